"""What lies in a model folder: which files may be models, what they hold by their first bytes, and how pickles and
skops archives are read.

Used by the frameworks' `find` and `read`, once at load.
"""

from __future__ import annotations

import gzip
import lzma
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from eyrie.modelserver.frameworks.interface import LoadError, Source

SKOPS_TRUSTED = "SKOPS_TRUSTED_TYPES"
NOT_MODELS = (
    ".md",
    ".txt",
    ".rst",
    ".html",
    ".yaml",
    ".yml",
    ".toml",
    ".csv",
    ".py",
    ".sh",
    ".cfg",
    ".ini",
    ".log",
    ".pdf",
    ".png",
)
MAPPED_BYTES_MIN = 33_554_432  # a mapped array costs microseconds more a call: not worth it for small ones
DAMAGED = (
    EOFError,
    IndexError,
    pickle.UnpicklingError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
)
CUT_ARRAY = ("EOF:", "mmap length is greater")  # what joblib and mmap say of an array that ends too early
PACKED = (
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"]\x00\x00",
    b"\x04\x22\x4d\x18",
)


def missing(library: str, extra: str) -> str:
    """The line about a library that is not installed."""
    return f"this model needs {library}, which is not installed here: pip install 'eyrie[{extra}]'"


def visible(folder: Path) -> list[Path]:
    """Everything at the top of a model folder that is not hidden, by name order; `code` is not part of it."""
    if not folder.is_dir():
        return []
    return [p for p in sorted(folder.iterdir()) if not p.name.startswith((".", "_")) and p.name != "code"]


def of_kind(folder: Path, *kinds: str) -> list[Path]:
    """The model files at the top of a folder whose first bytes say one of these kinds."""
    return [path for path in model_files(folder) if kind_of(path) in kinds]


def model_files(folder: Path) -> list[Path]:
    """Files at the top of a model folder that hold something of a known kind, by name order."""
    return [p for p in visible(folder) if p.is_file() and p.suffix.lower() not in NOT_MODELS and kind_of(p)]


def kind_of(path: Path) -> str:
    """What a file holds, by its first bytes: xgboost-json, xgboost-ubj, xgboost-binary, pickle or skops; "" for
    anything else.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    if start[:4] == b"PK\x03\x04":
        return "skops" if _is_skops(path) else ""
    if start[:4] == b"binf" or (path.suffix.lower() in (".bin", ".deprecated") and start[:1] not in (b"{", b"\x80")):
        return "xgboost-binary"
    if start[:2] in (b"{L", b"{i", b"{U") or (start[:1] == b"{" and path.suffix.lower() == ".ubj"):
        return "xgboost-ubj"
    if start[:1] == b"{":
        return "xgboost-json" if b'"learner"' in start or path.name.startswith("xgboost-model") else ""
    if (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05") or start.startswith(PACKED):
        return "pickle"
    return "xgboost-binary" if path.name.startswith("xgboost-model") else ""


def _is_skops(path: Path) -> bool:
    """A zip archive with skops' schema; PyTorch's and NumPy's archives are zips too."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "schema.json" in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return path.suffix.lower() == ".skops"


def read_pickle(path: Path) -> Any:
    """Through joblib, which reads plain pickles and its own, compressed ones; warnings about versions go to the log.

    Arrays of a large file that joblib wrote uncompressed are mapped, not read: instances of a host that serve the same
    file hold them once. Whoever writes to one has the pages that it writes for itself.
    """
    try:
        import joblib
    except ImportError:
        raise LoadError(missing("joblib", "sklearn")) from None
    large = path.stat().st_size >= MAPPED_BYTES_MIN and not _is_packed(path)
    try:
        return joblib.load(path, mmap_mode="c" if large else None)
    except DAMAGED as error:
        raise _damaged(path, error) from error
    except ValueError as error:
        if str(error).startswith(CUT_ARRAY):
            raise _damaged(path, error) from error
        raise


def _damaged(path: Path, error: Exception) -> LoadError:
    why = str(error) or "it ends too early"
    return LoadError(f"{path.name} is a pickle that is cut short or damaged: {why}")


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8).startswith(PACKED)


def read_skops(path: Path, source: Source) -> Any:
    """The object of a skops archive. Raises LoadError for types that nobody has said to be trusted."""
    try:
        from skops import io
    except ImportError:
        raise LoadError(missing("skops", "sklearn")) from None
    trusted = [name for name in source.env.get(SKOPS_TRUSTED, "").replace(" ", "").split(",") if name]
    unknown = sorted(set(io.get_untrusted_types(file=path)) - set(trusted))
    if unknown:
        raise LoadError(
            f"{path.name} holds types that skops does not trust: {', '.join(unknown)}. "
            f"If you do, name them in the model's environment: {SKOPS_TRUSTED}={','.join(trusted + unknown)}"
        )
    return io.load(path, trusted=trusted)
