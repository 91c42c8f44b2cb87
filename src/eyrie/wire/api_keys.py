"""API keys: `Authorization: Bearer eyrie_ID_SECRET` in place of a signature, for the Open Inference Protocol.

DATA/keys.json (mode 0600) holds a SHA-256 of each, never the key; a key is 256 random bits, so a fast hash is enough.
`eyrie key` writes the file, the gateway workers look several times a second whether it has changed
(docs/concepts/processes.md).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

log = logging.getLogger(__name__)

KEYS_MAX = 10_000
_FILE_BYTES_MAX = 16_777_216
_KEY = re.compile(rb"eyrie_([a-z2-7]{10})_([A-Za-z0-9_-]{43})")


class KeyRefused(Exception):
    """No key, or one that does not count; `status` is 401 (who are you) or 403 (not you)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KeysError(ValueError):
    """A keys file that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key: what it opens, and until when."""

    key_id: str
    sha256: str  # hex, of the whole key
    account: str
    region: str
    endpoints: tuple[str, ...] = ()  # empty: every endpoint of the account and region
    created_ms: int = 0
    expires_ms: int | None = None

    def expired(self, now_ms: int) -> bool:
        """Whether its time has passed."""
        return self.expires_ms is not None and now_ms >= self.expires_ms


def digest(key: bytes) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key).hexdigest()


def read_keys(path: Path) -> list[ApiKey]:
    """The keys of a file; none where there is no file. Raises KeysError."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}") from None
    try:
        if len(data) > _FILE_BYTES_MAX:
            raise ValueError
        entries = json.loads(data)
        return [ApiKey(**{**entry, "endpoints": tuple(entry["endpoints"])}) for entry in entries]
    except (ValueError, TypeError, KeyError):
        raise KeysError(f"{path} is not a list of keys as `eyrie key` writes it") from None


def keys_text(keys: Iterable[ApiKey]) -> str:
    """The file of these keys."""
    return json.dumps([asdict(key) for key in keys], indent=1) + "\n"


class KeyRing:
    """The keys that count now, in a gateway worker."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[bytes, ApiKey] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the file again where it has changed; one that cannot be read leaves the keys as they were."""
        try:
            stat = self._path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except OSError:
            seen = None
        if seen == self._seen:
            return
        try:
            found = read_keys(self._path)
        except KeysError as error:
            log.error("the API keys cannot be read, those known before go on to count: %s", error)
        else:
            self._keys = {key.key_id.encode(): key for key in found}
        self._seen = seen

    def check(self, authorization: bytes | None, now_ms: int) -> ApiKey:
        """The key that an Authorization header carries. Raises KeyRefused. An unknown id takes as long as a wrong
        secret.
        """
        scheme, _, text = (authorization or b"").strip().partition(b" ")
        if scheme.lower() != b"bearer":
            raise KeyRefused(401, "This needs an API key: `Authorization: Bearer KEY` (`eyrie key create` makes one).")
        found = _KEY.fullmatch(text.strip())
        known = self._keys.get(found[1]) if found else None
        expected = known.sha256 if known else digest(b"")
        if found is None or not hmac.compare_digest(digest(found[0]), expected) or known is None:
            raise KeyRefused(401, "This API key is not known, or it was revoked.")
        if known.expired(now_ms):
            raise KeyRefused(401, f"The API key {known.key_id} has expired.")
        return known


def check_endpoint(key: ApiKey, name: str) -> None:
    """Whether a key opens an endpoint. Raises KeyRefused."""
    if key.endpoints and name not in key.endpoints:
        raise KeyRefused(403, f"The API key {key.key_id} is not for endpoint {name}.")
