"""From what a user has (a model file, a folder, an archive, a script) to the model.tar.gz that CreateModel takes, and
the image that serves it.

An archive that is one already is sent as it is. Packing twice gives the same bytes, so that its digest names it.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters.model_files import Recognised, Unrecognised, is_tar, json_of, recognise

TEXTS = (
    ".md",
    ".txt",
    ".rst",
    ".html",
    ".yaml",
    ".yml",
    ".toml",
    ".csv",
    ".sh",
    ".cfg",
    ".ini",
    ".log",
    ".pdf",
    ".png",
)
GRAPH_DEPTH_MAX = 4
UNPACKED_BYTES_MAX = 64 * 1024**3
FILES_MAX = 100_000
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.msgpack", "*.h5")
OWN = Recognised("eyrie/python", "code of your own")


class Unpackable(ValueError):
    """It cannot be packed; the message is one line. `given`: since it is no model, or not there at all."""

    def __init__(self, message: str, given: bool = False) -> None:
        super().__init__(message)
        self.given = given


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive ready for upload."""

    archive: Path
    digest: str  # SHA-256, hex
    bytes: int
    model: Recognised


def pack(given: Path, code: Path | None, image: str | None, scratch: Path) -> Packed:
    """Recognise what is given and pack it below `scratch`. Raises Unpackable with one line."""
    if not given.exists():
        raise Unpackable(f"there is no {given}", given=True)
    try:
        model = recognised(given, code, image, scratch)
    except Unrecognised as error:
        raise Unpackable(str(error), given=True) from None
    except OSError as error:
        raise Unpackable(f"{given} cannot be read: {error.strerror or error}") from None
    if given.is_file() and code is None and is_tar(given) and given.name.endswith((".tar.gz", ".tgz")):
        return _packed(given, model)
    archive = scratch / "model.tar.gz"
    try:
        _write(archive, sorted(_entries(given, model, code, scratch)))
    except (OSError, tarfile.TarError) as error:
        raise Unpackable(f"{given} cannot be packed: {error}") from None
    return _packed(archive, model)


def recognised(given: Path, code: Path | None, image: str | None, scratch: Path) -> Recognised:
    """What is given, and the image that was asked for or that serves it. Raises Unrecognised."""
    if image is not None:
        return Recognised(image, "what you say it is", given.name)
    if code is not None:
        _check_code(code)
    if given.is_dir():
        return folder(given, has_code=code is not None)
    if is_tar(given):
        return folder(_unpacked(given, scratch), given.name, code is not None)
    try:
        return recognise(given)
    except Unrecognised:
        if code is None:
            raise
        return Recognised(OWN.image, OWN.what, given.name)


def folder(top: Path, name: str = "", has_code: bool = False) -> Recognised:
    """What a model folder, or an archive unpacked, holds. Raises Unrecognised for nothing, or for several things."""
    name = name or top.name or str(top)
    whole = _whole(top)
    if whole is not None:
        return whole
    found: dict[str, Recognised] = {}
    reasons: list[str] = []
    for path in _candidates(top):
        try:
            found[path.name] = recognise(path)
        except Unrecognised as error:
            reasons.append(str(error))
    images = sorted({one.image for one in found.values()})
    if len(images) > 1:
        told = ", ".join(f"{file}: {one.what}" for file, one in sorted(found.items())[:4])
        raise Unrecognised(f"{name} holds models of {len(images)} kinds ({told}): give one file, or say --image")
    if found:
        return next(iter(found.values()))
    if has_code or (top / "code" / "inference.py").is_file():
        return OWN
    if len(reasons) == 1:
        raise Unrecognised(reasons[0])
    raise Unrecognised(f"{name} holds no model that is known here, nor code/inference.py: {_shown(top)}")


def _whole(top: Path) -> Recognised | None:
    """Models that are a folder."""
    config = json_of(top / "config.json")
    if config and ("model_type" in config or "architectures" in config):
        if not any(next(top.glob(kind), None) for kind in WEIGHTS):
            raise Unrecognised(f"{top.name} has a transformers config.json and no weights beside it")
        return Recognised("eyrie/huggingface", f"a transformers model ({config.get('model_type', '?')})")
    if _graph(top) is not None:
        return Recognised("eyrie/tensorflow", "a TensorFlow SavedModel")
    for place in (top, *(p for p in _visible(top) if p.is_dir() and p.name != "code")):
        if (place / "stages").is_dir() and (place / "metadata").is_dir():
            return Recognised("eyrie/sparkml", "a Spark ML pipeline")
        if (place / "bundle.json").is_file() and (place / "root").is_dir():
            return Recognised("eyrie/sparkml", "an MLeap bundle")
    return None


def _graph(top: Path) -> Path | None:
    """The first saved_model.pb down to a bounded depth."""
    level = [top]
    for _ in range(GRAPH_DEPTH_MAX + 1):
        found = next((path / "saved_model.pb" for path in level if (path / "saved_model.pb").is_file()), None)
        if found is not None:
            return found
        level = [inner for path in level for inner in _visible(path) if inner.is_dir() and inner.name != "code"]
    return None


def _candidates(top: Path) -> list[Path]:
    """Files at the top that may be models: LightGBM's is the one text among them."""
    files = [path for path in _visible(top) if path.is_file() and path.suffix.lower() != ".py"]
    return [path for path in files if path.suffix.lower() not in TEXTS or _is_lightgbm(path)]


def _is_lightgbm(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6).startswith((b"tree\n", b"tree\r\n"))


def _visible(top: Path) -> list[Path]:
    return [path for path in sorted(top.iterdir()) if not path.name.startswith((".", "_"))]


def _shown(top: Path) -> str:
    names = [path.name for path in _visible(top)]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "it is empty"


def _check_code(code: Path) -> None:
    if code.is_dir() and not (code / "inference.py").is_file():
        raise Unrecognised(f"{code} has no inference.py")
    if code.is_file() and code.suffix != ".py":
        raise Unrecognised(f"--code takes inference.py or a folder with it, not {code.name}")
    if not code.exists():
        raise Unrecognised(f"there is no {code}")
    if code.is_file():
        recognise(code)


def _unpacked(archive: Path, scratch: Path) -> Path:
    """An archive's content in a folder of its own. Raises Unrecognised for one that cannot be read, or is too large."""
    into = scratch / "unpacked"
    if into.exists():
        return into
    into.mkdir()
    size = 0
    try:
        with tarfile.open(archive) as tar:
            for count, member in enumerate(tar):
                size += member.size
                if size > UNPACKED_BYTES_MAX or count >= FILES_MAX:
                    raise Unrecognised(f"{archive.name} holds more than {FILES_MAX:,} files or 64 GiB")
                tar.extract(member, into, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Unrecognised(f"{archive.name} cannot be unpacked: {' '.join(str(error).split())}") from None
    return into


# ------------------------------------------------------------------------------------------------------------- packing
def _entries(given: Path, model: Recognised, code: Path | None, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Name in the archive and file, for everything that goes in."""
    if given.is_dir():
        yield from _below(given, "1/" if (given / "saved_model.pb").is_file() else "")
    elif is_tar(given):
        yield from _below(_unpacked(given, scratch), "")
    else:
        yield model.place or given.name, given
    if given.is_file() and model.place == "code/inference.py":
        beside = given.with_name("requirements.txt")
        if beside.is_file():
            yield "code/requirements.txt", beside
    if code is not None and code.is_dir():
        yield from _below(code, "code/")
    elif code is not None:
        yield "code/inference.py", code


def _below(top: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    for count, path in enumerate(sorted(top.rglob("*"))):
        inside = path.relative_to(top)
        if count >= FILES_MAX:
            raise Unpackable(f"{top} holds more than {FILES_MAX:,} files")
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in inside.parts):
            yield f"{prefix}{inside.as_posix()}", path


def _write(archive: Path, entries: list[tuple[str, Path]]) -> None:
    """The archive: no times, no owners, so that the same content is the same bytes."""
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, path in entries:
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                tar.addfile(member, content)


def _packed(archive: Path, model: Recognised) -> Packed:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Packed(archive, digest, archive.stat().st_size, model)


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for packing that goes with the command."""
    return tempfile.TemporaryDirectory(prefix="eyrie-deploy-", ignore_cleanup_errors=True)


def enough_room(scratch: Path, given: Path) -> None:
    """Raises Unpackable where the temporary folder cannot hold what is to be packed."""
    size = sum(p.stat().st_size for p in given.rglob("*") if p.is_file()) if given.is_dir() else given.stat().st_size
    free = shutil.disk_usage(scratch).free
    if size > free:
        raise Unpackable(f"packing {given.name} needs {size / 1e9:.1f} GB in {scratch}, which has {free / 1e9:.1f}")
