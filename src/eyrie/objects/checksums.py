"""The digests of a body as it streams by: MD5 for the ETag, and the checksums that S3 clients ask to be checked.

`Digests` is fed every chunk once; `Expected` is what the request (headers, or the trailer of an aws-chunked body)
claims.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from eyrie.objects.crc import CRC32, CRC32C, CRC64NVME, Crc
from eyrie.objects.errors import refuse

HEADER_PREFIX = "x-amz-checksum-"
CRCS: Mapping[str, Crc] = {"CRC32": CRC32, "CRC32C": CRC32C, "CRC64NVME": CRC64NVME}
_HASHES = ("SHA1", "SHA256", "SHA512", "MD5")
ALGORITHMS = (*CRCS, *_HASHES)

COMPOSITE = "COMPOSITE"
FULL_OBJECT = "FULL_OBJECT"


class _Sum(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _CrcSum:
    """A CRC that is fed like a hash."""

    def __init__(self, crc: Crc) -> None:
        self._crc = crc
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._crc.update(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._crc.width // 8, "big")


class Digests:
    """MD5 and the named checksums of the bytes fed so far."""

    def __init__(self, algorithms: Iterable[str] = ()) -> None:
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sums = {name: _sum(name) for name in algorithms}

    def update(self, data: bytes) -> None:
        """Feed the next bytes."""
        self.size += len(data)
        self._md5.update(data)
        for one in self._sums.values():
            one.update(data)

    @property
    def md5(self) -> bytes:
        """MD5, 16 bytes."""
        return self._md5.digest()

    @property
    def etag(self) -> str:
        """The ETag of a simple object: MD5 in hex, without quotes."""
        return self._md5.hexdigest()

    def checksum(self, algorithm: str) -> str:
        """One of the named checksums, base64 as S3 writes it."""
        return base64.b64encode(self._sums[algorithm].digest()).decode()

    def checksums(self) -> dict[str, str]:
        """All of the named checksums, base64."""
        return {name: self.checksum(name) for name in self._sums}


def _sum(algorithm: str) -> _Sum:
    if algorithm in CRCS:
        return _CrcSum(CRCS[algorithm])
    return hashlib.new(algorithm.lower(), usedforsecurity=False)


def digest_bytes(algorithm: str) -> int:
    """Length of one checksum in bytes."""
    return (
        CRCS[algorithm].width // 8
        if algorithm in CRCS
        else hashlib.new(algorithm.lower(), usedforsecurity=False).digest_size
    )


def known(algorithm: str) -> str:
    """The algorithm's name as we write it.

    Raises ApiError (InvalidRequest for an unknown one, NotImplemented for XXHASH).
    """
    name = algorithm.strip().upper()
    if name in ALGORITHMS:
        return name
    if name.startswith("XXHASH"):
        raise refuse("NotImplemented", f"Checksums of the algorithm {name} are not implemented.")
    raise refuse(
        "InvalidRequest",
        "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
        "[CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
    )


def algorithm_of_header(name: str) -> str | None:
    """The algorithm whose value a header carries, None for other headers (also `x-amz-checksum-algorithm`, `-type`,
    `-mode`).
    """
    if not name.startswith(HEADER_PREFIX):
        return None
    rest = name[len(HEADER_PREFIX) :].upper()
    if rest in ("ALGORITHM", "TYPE", "MODE"):
        return None
    return known(rest)


def claimed(headers: Mapping[str, str]) -> dict[str, str]:
    """Algorithm to base64 value, of the `x-amz-checksum-*` headers.

    Raises ApiError (InvalidRequest) for one that cannot be.
    """
    found: dict[str, str] = {}
    for name, value in headers.items():
        algorithm = algorithm_of_header(name)
        if algorithm is not None:
            found[algorithm] = _checked(algorithm, value)
    if len(found) > 1:
        raise refuse(
            "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    return found


def _checked(algorithm: str, value: str) -> str:
    if len(decoded(value.partition("-")[0])) != digest_bytes(algorithm):
        raise refuse("InvalidRequest", f"Value for {HEADER_PREFIX}{algorithm.lower()} header is invalid.")
    return value


def decoded(value: str) -> bytes:
    """Base64 text as bytes, b"" where it is none."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""


def content_md5(value: str | None) -> bytes | None:
    """The 16 bytes of a Content-MD5 header. Raises ApiError (InvalidDigest)."""
    if value is None:
        return None
    digest = decoded(value.strip())
    if len(digest) != 16:
        raise refuse("InvalidDigest", "The Content-MD5 you specified was invalid.")
    return digest


def composite(algorithm: str, parts: Sequence[str]) -> str:
    """The checksum of checksums of a multipart object: `BASE64-N`."""
    one = _sum(algorithm)
    for value in parts:
        one.update(decoded(value))
    return f"{base64.b64encode(one.digest()).decode()}-{len(parts)}"


def full_object(algorithm: str, parts: Sequence[tuple[str, int]]) -> str:
    """The CRC of a whole multipart object from its parts' (base64 CRC, size in bytes)."""
    crc = CRCS[algorithm]
    total = 0
    for value, size in parts:
        total = crc.combine(total, int.from_bytes(decoded(value), "big"), size)
    return base64.b64encode(total.to_bytes(crc.width // 8, "big")).decode()


def upload_type(algorithm: str, asked: str | None) -> str:
    """How a multipart upload's checksum is made: COMPOSITE or FULL_OBJECT.

    Raises ApiError (InvalidRequest) for a pair that cannot be.
    """
    kind = (asked or (FULL_OBJECT if algorithm == "CRC64NVME" else COMPOSITE)).upper()
    possible = (kind == COMPOSITE and algorithm != "CRC64NVME") or (kind == FULL_OBJECT and algorithm in CRCS)
    if not possible:
        raise refuse(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm.",
        )
    return kind
