"""Archives that nobody's tar writes: each is refused with a sentence, quickly, and whatever tarfile makes of it."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from eyrie.adapters.archive import unpack
from eyrie.ports import ArtifactError

SIZE = slice(124, 136)  # of a header


def header(name: str = "model.json", **pax: str) -> bytearray:
    """An archive of one file of 600 bytes."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT) as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.pax_headers = 600, {word.replace("_", "."): value for word, value in pax.items()}
        archive.addfile(entry, io.BytesIO(b"1" * 600))
    return bytearray(held.getvalue())


def sized(size: bytes, kind: bytes = b"0") -> bytes:
    """An archive whose second file says another size, its checksum right."""
    archive = header()
    archive[SIZE], archive[156:157], archive[483:495] = size, kind, b"00000001130\0"
    archive[148:156] = b" " * 8
    archive[148:156] = b"%06o\0 " % sum(archive[:512])
    return bytes(header("config.json")[:1536] + archive)


STRANGE = {
    "smaller than nothing": sized(b"\xff" * 10 + b"\xfe\x00"),
    "a sparse file smaller than nothing": sized(b"\xff" * 10 + b"\xfe\x00", b"S"),
    "larger than disks": sized(b"\x80" + b"\xff" * 11),
    "a sparse file larger than numbers": sized(b"\x80" + b"\xff" * 11, b"S"),
    "a map of a sparse file that is no map": bytes(header(**{"GNU_sparse_map": "a,b", "GNU_sparse_size": "x"})),
    "a sparse file without its map": bytes(header(**{"GNU_sparse_major": "1", "GNU_sparse_minor": "0"})),
}


@pytest.mark.parametrize("packed", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("archive", STRANGE.values(), ids=STRANGE)
def test_what_no_tar_writes_is_refused(tmp_path: Path, archive: bytes, packed: type[bytes]) -> None:
    with pytest.raises(ArtifactError, match=r"at s3://eggs/model (is not a readable|unpacks to more).+") as refused:
        unpack(io.BytesIO(packed(archive)), tmp_path, "s3://eggs/model")
    assert "more than 100000 entries" not in str(refused.value)


def test_a_file_of_the_usual_kind_is_unpacked(tmp_path: Path) -> None:
    unpack(io.BytesIO(gzip.compress(bytes(header()))), tmp_path, "s3://eggs/model")
    assert (tmp_path / "model.json").read_bytes() == b"1" * 600
