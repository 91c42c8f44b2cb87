"""Images of the user's own by digest: `DATA/images/DIGEST/`, written whole by `eyrie image add`, never changed, removed
by control when no name and no endpoint has it any more.

Three kinds: a root file system (`root/` becomes the root of the sandbox), a folder (a virtual environment, or any
folder with a `serve` program; it is seen at its own path), and an image that a container engine holds (only what must
be known of it is here; its files too, once it has run among several containers). The digest is of every path, type,
right to execute, link and byte, and of how it is started.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from eyrie.adapters.described import described
from eyrie.adapters.slots import read_bounded

ROOTFS, FOLDER, ENGINE = "rootfs", "folder", "engine"
IMAGE = "{image}"  # in commands and folders: where the image lies
ENTRIES_MAX = 1_000_000
SETTLED_S = 3600.0  # a digest younger than this may be about to be named
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MOUNT_POINTS = ("proc", "dev", "tmp", "opt/ml")  # of a root file system: it has to have them
WRITABLE = ("tmp", "run", "var/tmp", "var/log", "var/lib/nginx")  # private and bounded, where they are folders
_FILES = ("etc/passwd", "etc/group", "etc/hosts")
NOT_TAKEN = frozenset({"proc", "sys", "dev"})  # at the top of a root file system: the kernel's, not the image's
_DIGEST = re.compile(r"[0-9a-f]{64}")
_AS_ROOT = "rootfs.json"  # beside image.json: an engine's image whose files are here
_CHUNK = 1 << 20
_HEAD_BYTES = 1024
_PROGRAM_FOLDERS = ("usr/local/bin", "usr/bin", "bin", "usr/local/sbin", "usr/sbin", "sbin", "opt/program", "opt", "")


class ImageError(ValueError):
    """What was given is no image that could run here; the message is the reason for people."""


class StoredImage(msgspec.Struct, frozen=True):
    """`image.json`."""

    digest: str  # sha256, hex
    kind: str  # ROOTFS, FOLDER or ENGINE
    size_bytes: int
    created_ms: int
    command: tuple[str, ...]  # what is started; the last word is "serve"
    environment: dict[str, str] = {}
    workdir: str = "/"
    reference: str = ""  # of an engine's image: what the engine knows it by
    source: str = ""  # where it came from, for people


described(StoredImage)  # it is read into in several threads


@dataclass(frozen=True, slots=True)
class Start:
    """How an image is to be started, where its user says so; empty: found out."""

    entrypoint: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    workdir: str = ""


class ImageStore:
    """The images of a data directory. Several processes may add at once; one may sweep."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "images"

    def path(self, digest: str) -> Path:
        """The folder of an image: `root/` in it is the root file system, or the folder."""
        return self._folder / digest

    def find(self, digest: str) -> StoredImage | None:
        """The image of that digest, if it is here."""
        if not _DIGEST.fullmatch(digest):
            return None
        return _read(self._folder / digest / "image.json")

    def touch(self, digest: str) -> None:
        """It is about to be named: no sweep may take it within the next hour."""
        with contextlib.suppress(OSError):
            os.utime(self._folder / digest)

    def add_tree(self, source: Path, start: Start = Start(), kind: str = "") -> StoredImage:
        """Copy a root file system or a folder with a `serve` program. Raises ImageError, OSError."""
        source = source.absolute()
        if not source.is_dir():
            raise ImageError(f"{source} is no directory")
        kind = kind or kind_of(source)
        staged = self._stage()
        try:
            (staged / "root").mkdir(mode=0o755)
            tree, size = _copy(source, staged / "root", skip=NOT_TAKEN if kind == ROOTFS else frozenset())
            if kind == ROOTFS:
                _furnish(staged / "root")
            how = _how(staged / "root", kind, start)
            digest = _digest_of(tree, kind, how)
            made = StoredImage(
                digest, kind, size, int(time.time() * 1000), how.entrypoint, dict(how.environment), how.workdir,
                source=str(source),
            )  # fmt: skip
            if kind == FOLDER:
                _move_scripts(staged / "root", source, self._folder / digest / "root")
            self._keep(staged, made)
            return made
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def add_engine_image(self, reference: str, size_bytes: int, source: str) -> StoredImage:
        """Note an image that a container engine holds. `reference`: its id, `sha256:HEX`. Raises ImageError."""
        digest = reference.removeprefix("sha256:")
        if not _DIGEST.fullmatch(digest):
            raise ImageError(f"{reference!r} is no image id")
        made = StoredImage(
            digest, ENGINE, size_bytes, int(time.time() * 1000), ("serve",), reference=f"sha256:{digest}", source=source
        )
        staged = self._stage()
        try:
            self._keep(staged, made)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return made

    def root_of(self, image: StoredImage) -> StoredImage | None:
        """An engine's image as a root file system, where `keep_root` was called for it before."""
        return _read(self._folder / image.digest / _AS_ROOT)

    def keep_root(self, image: StoredImage, lay_out: Callable[[Path], Start]) -> StoredImage:
        """Keep the files of an engine's image beside what is known of it: it can run as a root file system from then
        on, under the same digest. `lay_out` fills a folder and says how it is started. Raises what it does,
        ImageError, OSError.
        """
        staged, place = self._stage(), self._folder / image.digest
        try:
            (staged / "root").mkdir(mode=0o755)
            start = lay_out(staged / "root")
            _furnish(staged / "root")
            how = _how(staged / "root", ROOTFS, start)
            made = msgspec.structs.replace(
                image, kind=ROOTFS, command=how.entrypoint, environment=dict(how.environment), workdir=how.workdir
            )
            (staged / _AS_ROOT).write_bytes(msgspec.json.encode(made))
            os.sync()
            shutil.rmtree(place / "root", ignore_errors=True)  # of a control that died here
            (staged / "root").rename(place / "root")
            (staged / _AS_ROOT).rename(place / _AS_ROOT)
            return made
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def sweep(self, named: set[str], now_s: float) -> list[str]:
        """Remove images that nobody names, and what was left half made; the digests that went."""
        gone = []
        for path in self._entries():
            with contextlib.suppress(OSError):
                if path.name not in named and now_s - path.stat().st_mtime > SETTLED_S:
                    trash = self._folder / f".gone-{path.name}"
                    path.rename(trash)
                    shutil.rmtree(trash, ignore_errors=True)
                    gone.append(path.name)
        return gone

    def _entries(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            yield from sorted(self._folder.iterdir())

    def _stage(self) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = self._folder / f".staged-{secrets.token_hex(8)}"
        staged.mkdir(mode=0o755)
        return staged

    def _keep(self, staged: Path, made: StoredImage) -> None:
        (staged / "image.json").write_bytes(msgspec.json.encode(made))
        os.sync()
        try:
            staged.rename(self._folder / made.digest)
        except OSError:
            if self.find(made.digest) is None:
                raise
            self.touch(made.digest)  # the same was added before


def _read(path: Path) -> StoredImage | None:
    text = read_bounded(path)
    try:
        return msgspec.json.decode(text, type=StoredImage) if text else None
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def kind_of(source: Path) -> str:
    """Whether a directory is a root file system or a folder that runs on the host's own."""
    if (source / "pyvenv.cfg").exists():
        return FOLDER
    has_system = (source / "etc").is_dir() and any((source / name).is_dir() for name in ("usr", "bin", "lib", "lib64"))
    return ROOTFS if has_system else FOLDER


def shown_to_the_folder(root: Path) -> list[Path]:
    """What a folder needs of the host besides /usr: the installation that its interpreter belongs to."""
    found = []
    for name in ("python", "python3"):
        with contextlib.suppress(OSError):
            real = (root / "bin" / name).resolve(strict=True)
            if not real.is_relative_to(root):
                found.append(real.parent.parent)
    return found


def _copy(source: Path, target: Path, skip: frozenset[str]) -> tuple[bytes, int]:
    """Copy a tree, everything readable for everybody and nothing setuid; the digest of what it is, and its bytes."""
    told, size = hashlib.sha256(), 0
    for count, (entry, place) in enumerate(_walk(source, target, skip)):
        if count >= ENTRIES_MAX:
            raise ImageError(f"{source} holds more than {ENTRIES_MAX} files")
        facts = entry.stat(follow_symlinks=False)
        name = os.fsencode(os.path.relpath(place, target))
        if stat.S_ISDIR(facts.st_mode):
            place.mkdir(mode=0o755, exist_ok=True)
            told.update(b"d %d %b\n" % (len(name), name))
        elif stat.S_ISLNK(facts.st_mode):
            link = os.readlink(entry.path)
            place.symlink_to(link)
            told.update(b"l %d %b %b\n" % (len(name), name, os.fsencode(link)))
        elif stat.S_ISREG(facts.st_mode):
            runs = facts.st_mode & 0o111
            inside = _copy_file(Path(entry.path), place, 0o755 if runs else 0o644)
            told.update(b"f %d %b %d %b\n" % (len(name), name, bool(runs), inside))
            size += facts.st_size
    return told.digest(), size


def _walk(source: Path, target: Path, skip: frozenset[str]) -> Iterator[tuple[os.DirEntry[str], Path]]:
    """Every entry with its place, folders before what is in them, in an order of their names."""
    folders = [(source, target)]
    while folders:
        here, there = folders.pop()
        with os.scandir(here) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            if here == source and entry.name in skip:
                continue
            yield entry, there / entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append((Path(entry.path), there / entry.name))


def _copy_file(source: Path, target: Path, mode: int) -> bytes:
    told = hashlib.sha256()
    with open(source, "rb") as read, open(target, "wb") as written:
        while piece := read.read(_CHUNK):
            told.update(piece)
            written.write(piece)
    target.chmod(mode)
    return told.digest()


def _furnish(root: Path) -> None:
    """Make the places of a root file system that something is mounted at. Raises ImageError where a link is in the
    way.
    """
    for name in (*MOUNT_POINTS, *WRITABLE):
        place = root
        for part in Path(name).parts:
            place /= part
            if place.is_symlink():
                if name in MOUNT_POINTS:
                    raise ImageError(f"/{name} of this root file system must be a folder, not a link")
                break
            place.mkdir(mode=0o755, exist_ok=True)
    (root / "etc").mkdir(mode=0o755, exist_ok=True)
    for name in _FILES:
        if not (root / name).is_symlink():
            (root / name).touch(mode=0o644)


def mounted_files(root: Path) -> list[str]:
    """Those of the system's small files that may be laid over in a root file system."""
    return [name for name in _FILES if (root / name).is_file() and not (root / name).is_symlink()]


def writable_places(root: Path) -> list[str]:
    """The folders of a root file system that get private memory: no link among them or above them."""
    return [name for name in WRITABLE if _is_plain_folder(root, name)]


def _is_plain_folder(root: Path, name: str) -> bool:
    place = root
    for part in Path(name).parts:
        place /= part
        if place.is_symlink() or not place.is_dir():
            return False
    return True


def _how(root: Path, kind: str, given: Start) -> Start:
    """How it is started: as told, else the `serve` program along the usual places. Raises ImageError."""
    home = IMAGE if kind == FOLDER else "/"
    if given.entrypoint:
        return Start((*given.entrypoint, "serve"), given.environment, given.workdir or home)
    folders = ("bin", "") if kind == FOLDER else _PROGRAM_FOLDERS
    path = dict(given.environment).get("PATH", "") if kind == ROOTFS else ""
    asked = [part.strip("/") for part in path.split(":") if part.startswith("/")]
    for folder in (*asked, *folders):
        place = root / folder / "serve"
        if place.is_symlink() or (place.is_file() and os.access(place, os.X_OK)):
            inside = f"/{folder}" if folder else ""
            if kind == FOLDER:
                return Start((f"{IMAGE}{inside}/serve",), given.environment, given.workdir or home)
            return Start((f"{inside}/serve",), given.environment, given.workdir or (inside or home))
    looked = ", ".join(f"/{folder}" for folder in folders)
    raise ImageError(
        f"there is no program named serve in it (looked in {looked}); "
        "give the words before it with --entrypoint if it is called otherwise"
    )


def _digest_of(tree: bytes, kind: str, how: Start) -> str:
    words = (kind, how.entrypoint, sorted(how.environment), how.workdir)
    return hashlib.sha256(tree + msgspec.json.encode(words)).hexdigest()


def _move_scripts(root: Path, source: Path, place: Path) -> None:
    """Let the scripts of an environment start the interpreter at its new place: their first lines name the old one."""
    old, new = os.fsencode(source) + b"/", os.fsencode(place) + b"/"
    with contextlib.suppress(FileNotFoundError):
        for script in sorted((root / "bin").iterdir()):
            if script.is_symlink() or not script.is_file():
                continue
            with open(script, "rb") as file:
                head = file.read(_HEAD_BYTES)
                if head.startswith(b"#!") and old in head:
                    script.write_bytes(head.replace(old, new) + file.read())
