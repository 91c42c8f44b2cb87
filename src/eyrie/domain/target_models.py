"""A multi-model endpoint's models by name: what a request may call TargetModel, and what that comes to.

The name is a path below the prefix of the container. Inside an instance a model goes by its key, which says nothing
about the name and may be a folder anywhere.
"""

from __future__ import annotations

import hashlib

NAME_BYTES_MAX = 1_024  # SageMaker's limit of the header


def refusal(name: str) -> str | None:
    """Why a name cannot be a TargetModel, as the end of a sentence; None where it can."""
    if not name:
        return "it is empty"
    if len(name.encode()) > NAME_BYTES_MAX:
        return f"it is longer than {NAME_BYTES_MAX} bytes"
    if any(character < " " or character == "\x7f" for character in name):
        return "it holds control characters"
    parts = name.split("/")
    if not parts[0]:
        return "it must be relative to the endpoint's model prefix"
    if not parts[-1]:
        return "it must name an archive, not a folder"
    if any(part in ("", ".", "..") for part in parts):
        return "no part of it may be empty, . or .."
    return None


def key_of(name: str) -> str:
    """The name of a model inside an instance: 32 hex digits."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def url_of(prefix: str, name: str) -> str:
    """Where a model's archive is: the s3:// URL below the container's prefix."""
    return f"{prefix}{name}" if prefix.endswith("/") else f"{prefix}/{name}"
