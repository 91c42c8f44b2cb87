"""SigV4, made: the head of a request signed with a key, for clients of ours that send many.

What does not change from request to request is worked out once; a signature then costs two digests and two HMACs, and
holds for a second, since its date has no finer unit. `auth` proves what this makes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote


class Signer:
    """Signs POSTs to one path of one service."""

    def __init__(
        self,
        access_key_id: str,
        secret: str,
        token: str | None,
        scope: tuple[str, str],
        host: str,
        path: str,
        headers: Sequence[tuple[str, str]],
    ) -> None:
        """`scope` is region and service; `path` as it is sent; `headers` go out signed, besides host and date."""
        self._key_id, self._secret, self._scope = access_key_id, secret, scope
        signed = {"host": host, "x-amz-date": "", **{name.lower(): value.strip() for name, value in headers}}
        if token:
            signed["x-amz-security-token"] = token
        self._names = ";".join(sorted(signed))
        lines = [f"{name}:{' '.join(signed[name].split())}" for name in sorted(signed)]
        canonical_path = quote(path, safe="/~")
        canonical = f"POST\n{canonical_path}\n\n" + "\n".join(lines) + f"\n\n{self._names}\n"
        self._before, date, after = canonical.partition("\nx-amz-date:")
        self._before, self._after = self._before + date, after  # the stamp stands between them
        sent = [(name, value) for name, value in signed.items() if name != "x-amz-date"]
        self._sent = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in sent)
        self._day, self._key = "", b""

    def head(self, digest: str, length: int, at_s: int) -> bytes:
        """The whole head of a request with a body of this SHA-256 (hex) and length, dated `at_s` (since the epoch)."""
        stamp = f"{datetime.fromtimestamp(at_s, UTC):%Y%m%dT%H%M%SZ}"
        day, (region, service) = stamp[:8], self._scope
        if day != self._day:
            self._day, self._key = day, signing_key(self._secret, day, region, service)
        scope = f"{day}/{region}/{service}/aws4_request"
        canonical = self._before + stamp + self._after + digest
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._key, text.encode(), "sha256").hex()
        return (
            f"{self._sent}x-amz-date: {stamp}\r\n"
            f"authorization: AWS4-HMAC-SHA256 Credential={self._key_id}/{scope}, SignedHeaders={self._names}, "
            f"Signature={signature}\r\ncontent-length: {length}\r\n\r\n"
        ).encode("latin-1")


def signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """The key of a day, a region and a service."""
    key = ("AWS4" + secret).encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
