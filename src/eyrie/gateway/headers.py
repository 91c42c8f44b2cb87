"""The headers of the runtime's own: their names, which go on to the container, and which of its reply come back.

On the path of every invocation: `request` reads by these names what a head asks for; `invocation` and the other kinds
take from a container's reply what `returned` lets through.
"""

from __future__ import annotations

from collections.abc import Iterable

_SM = b"x-amzn-sagemaker-"
TARGET_CONTAINER = _SM + b"target-container-hostname"
TARGET_MODEL = _SM + b"target-model"
TARGET_VARIANT = _SM + b"target-variant"
SESSION = _SM + b"session-id"
FORWARDED = (  # and Content-Type, Accept
    _SM + b"custom-attributes",
    _SM + b"inference-id",
    _SM + b"prefix-aware-id",
    TARGET_CONTAINER,
)
NOT_BUILT = {
    _SM + b"inference-component": "inference components (InferenceComponentName)",
    _SM + b"enable-explanations": "online explanations (EnableExplanations)",
}
SPECIAL = frozenset((*NOT_BUILT, *FORWARDED, TARGET_VARIANT, SESSION, TARGET_MODEL))
CUSTOM_ATTRIBUTES = frozenset((_SM + b"custom-attributes",))
_RETURNED = CUSTOM_ATTRIBUTES | {b"content-type"}
_HEADER_BYTES_MAX = 1_024
SPEAKER = b"x-eyrie-container"  # of an error: whose it is, of several containers


def returned(headers: Iterable[tuple[bytes, bytes]], names: frozenset[bytes] = _RETURNED) -> bytes:
    """The lines of a container's reply that the client gets to see."""
    kept = [(name, value) for name, value in headers if name in names and len(value) <= _HEADER_BYTES_MAX]
    return b"".join([b"%b: %b\r\n" % pair for pair in kept])
