"""Encryption of captured data by keys of this host: what `KmsKeyId` means here.

DATA/capture-keys.json (mode 0600) holds one random 256-bit key for each (account, KmsKeyId) that was ever named;
whoever has that file can read what was captured with it, and without it nobody can. Each object is sealed with a data
key of its own (AES-256-GCM), which stands in the object's head, wrapped by the account's key (AES-256-GCM again):

    EYRIE-SEALED-1\\n {"account", "kms_key", "wrapped", "nonce"}\\n ciphertext

The head is authenticated with the ciphertext. It is no AWS KMS: no policies, no rotation, no audit log.
"""

from __future__ import annotations

import importlib.util
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

from eyrie.adapters import durable

EXTRA = "the extra `eyrie[encryption]`"
FILE = "capture-keys.json"
MAGIC = b"EYRIE-SEALED-1\n"
_KEY_BYTES, _NONCE_BYTES = 32, 12
_HEAD_BYTES_MAX = 8_192


class Unsealable(ValueError):
    """It cannot be decrypted here; the message says why."""


@dataclass(frozen=True, slots=True)
class _Head:
    account: str
    kms_key: str
    wrapped: bytes  # nonce and the data key's ciphertext
    nonce: bytes


@dataclass(frozen=True, slots=True)
class _Key:
    account: str
    kms_key: str
    key: bytes


def available() -> bool:
    """Whether the library that encrypts is installed."""
    return importlib.util.find_spec("cryptography") is not None


def is_sealed(data: bytes) -> bool:
    """Whether these bytes are an encrypted object."""
    return data.startswith(MAGIC)


class CaptureKeys:
    """The keys of one data directory. Safe to use from any thread; one process writes (control)."""

    def __init__(self, data: Path) -> None:
        self._path = data / FILE
        self._lock = threading.Lock()

    def seal(self, account: str, kms_key: str, data: bytes) -> bytes:
        """Encrypt; a key that is named for the first time is made, and is on disk before anything depends on it.

        Raises OSError, and ImportError without the extra.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        data_key, nonce = secrets.token_bytes(_KEY_BYTES), secrets.token_bytes(_NONCE_BYTES)
        wrapping = secrets.token_bytes(_NONCE_BYTES)
        wrapped = wrapping + AESGCM(self._key(account, kms_key)).encrypt(wrapping, data_key, kms_key.encode())
        head = MAGIC + msgspec.json.encode(_Head(account, kms_key, wrapped, nonce)) + b"\n"
        return head + bytes(AESGCM(data_key).encrypt(nonce, data, head))

    def unseal(self, sealed: bytes) -> bytes:
        """Decrypt. Raises Unsealable, and ImportError without the extra."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        end = sealed.find(b"\n", len(MAGIC), len(MAGIC) + _HEAD_BYTES_MAX) + 1
        if not is_sealed(sealed) or not end:
            raise Unsealable("it is not an object that Eyrie encrypted")
        try:
            head = msgspec.json.decode(sealed[len(MAGIC) : end], type=_Head)
        except msgspec.MsgspecError as error:
            raise Unsealable(f"its head cannot be read: {error}") from None
        found = next((k for k in self._read() if (k.account, k.kms_key) == (head.account, head.kms_key)), None)
        if found is None:
            raise Unsealable(f"{self._path} has no key {head.kms_key!r} of account {head.account}")
        try:
            nonce, wrapped = head.wrapped[:_NONCE_BYTES], head.wrapped[_NONCE_BYTES:]
            data_key = AESGCM(found.key).decrypt(nonce, wrapped, head.kms_key.encode())
            return bytes(AESGCM(data_key).decrypt(head.nonce, sealed[end:], sealed[:end]))
        except (InvalidTag, ValueError):
            raise Unsealable(
                "it was changed, or encrypted with another key of this name, since it was written"
            ) from None

    def _key(self, account: str, kms_key: str) -> bytes:
        with self._lock:
            keys = self._read()
            found = next((k.key for k in keys if (k.account, k.kms_key) == (account, kms_key)), None)
            if found is None:
                found = secrets.token_bytes(_KEY_BYTES)
                self._store([*keys, _Key(account, kms_key, found)])
            return found

    def _read(self) -> list[_Key]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[_Key])
        except FileNotFoundError:
            return []
        except msgspec.MsgspecError as error:
            raise OSError(f"{self._path} cannot be read: {error}") from None

    def _store(self, keys: list[_Key]) -> None:
        durable.write_lasting(self._path, msgspec.json.encode(keys), 0o600)
