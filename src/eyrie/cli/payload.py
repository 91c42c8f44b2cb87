"""What `--data` means: a file, `-` for standard input, or the text itself; and what content type that seems to be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from eyrie.cli.errors import CommandError

BODY_BYTES_MAX = 128 * 1024 * 1024
ENDINGS = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".ndjson": "application/jsonlines",
    ".npy": "application/x-npy",
    ".libsvm": "text/libsvm",
    ".svm": "text/libsvm",
    ".txt": "text/plain",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".wav": "audio/wav",
    ".parquet": "application/x-parquet",
}


def body(given: str) -> tuple[bytes, str]:
    """The bytes, and the name of the file that they came from ("" for none). Raises CommandError."""
    if given == "-":
        return _bounded(sys.stdin.buffer.read(BODY_BYTES_MAX + 1), "standard input"), ""
    path = Path(given.removeprefix("@"))
    if given.startswith("@") or _is_file(path):
        try:
            with path.open("rb") as file:
                return _bounded(file.read(BODY_BYTES_MAX + 1), path.name), path.name
        except OSError as error:
            raise CommandError(f"--data {given}: {error.strerror or error}", code=2) from None
    if _looks_like_a_path(given):
        raise CommandError(f"--data {given}: there is no such file (for text that looks like one, use - and a pipe)", 2)
    return given.encode(), ""


def content_type(content: bytes, name: str) -> str:
    """What a body seems to be: by its file's ending, else by how it begins; text/csv where nothing tells."""
    ending = ENDINGS.get(Path(name).suffix.lower())
    if ending is not None:
        return ending
    if content.startswith(b"\x93NUMPY"):
        return "application/x-npy"
    start = content.lstrip()[:1]
    if start in (b"{", b"["):
        try:
            json.loads(content)
        except ValueError:
            return "application/jsonlines" if b"\n" in content.strip() else "application/json"
        return "application/json"
    return "text/csv"


def bodies(given: str, each_line: bool, kind: str | None) -> tuple[list[bytes], str]:
    """The bodies that are sent in turn, and their content type, `kind` where that was said: a folder's files, or a
    file's lines. Raises CommandError.
    """
    path = Path(given)
    if given and path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        if not files:
            raise CommandError(f"--data {given}: the folder holds no file", code=2)
        read = [body(f"@{file}")[0] for file in files]
        return read, kind or _kind_of_all(given, {content_type(b, f.name) for b, f in zip(read, files, strict=True)})
    content, name = body(given)
    if not content:
        raise CommandError(f"--data {given} is empty", code=2)
    if not each_line:
        return [content], kind or content_type(content, name)
    lines = [line for line in content.splitlines() if line.strip()]
    if not lines:
        raise CommandError(f"--data {given} holds no line", code=2)
    return lines, kind or content_type(lines[0], name)


def _kind_of_all(given: str, kinds: set[str]) -> str:
    """A load has one content type: half of a mixed folder would be refused by the model, and look like its failure."""
    if len(kinds) > 1:
        raise CommandError(f"--data {given}: files of {' and '.join(sorted(kinds))}: say --content-type", code=2)
    return kinds.pop()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # text that is no possible name: too long, or with a zero in it
        return False


def _looks_like_a_path(given: str) -> bool:
    return ("\n" not in given and given.startswith(("/", "./", "../", "~"))) or Path(given).suffix.lower() in ENDINGS


def _bounded(content: bytes, what: str) -> bytes:
    if len(content) > BODY_BYTES_MAX:
        raise CommandError(f"{what} holds more than {BODY_BYTES_MAX // 1024 // 1024} MiB", code=2)
    return content
