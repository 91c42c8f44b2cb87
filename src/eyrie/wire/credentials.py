"""Who may sign: the access keys of this Eyrie, from DATA/credentials.json (docs/concepts/processes.md). Light."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class CredentialsError(ValueError):
    """A credentials file that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One access key. With a session token (temporary credentials), requests must carry that very token."""

    access_key_id: str
    secret_access_key: str
    account: str
    session_token: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose request it is, as its credentials say."""

    access_key_id: str
    account: str
    region: str
    service: str  # signing name of the scope: "sagemaker", "monitoring", "s3"; "" where there is none


class Credentials:
    """The access keys that are known, by id."""

    def __init__(self, credentials: Iterable[Credential] = ()) -> None:
        self._by_id = {credential.access_key_id.encode(): credential for credential in credentials}

    @classmethod
    def load(cls, path: Path) -> Credentials:
        """Read DATA/credentials.json. Raises CredentialsError, also when it is not there."""
        try:
            entries = json.loads(path.read_bytes())
            return cls([Credential(**entry) for entry in entries])
        except OSError as error:
            raise CredentialsError(f"{path}: {error.strerror}") from None
        except (ValueError, TypeError):
            raise CredentialsError(f"{path} is not a list of access_key_id, secret_access_key, account") from None

    def get(self, access_key_id: bytes) -> Credential | None:
        """The credential of an access key id, or None."""
        return self._by_id.get(access_key_id)
