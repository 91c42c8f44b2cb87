"""The headers of the runtime's own: their names, which go on to the container, and which of its reply come back.

On the path of every invocation: `request` reads by these names what a head asks for; `invocation` and the other kinds
take from a container's reply what `returned` lets through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
BOUNDS = {  # header -> its member in the API, and how long it may be; a TargetModel is `models` to look at
    b"content-type": ("contentType", 1_024),
    b"accept": ("accept", 1_024),
    _SM + b"accept": ("accept", 1_024),
    _SM + b"custom-attributes": ("customAttributes", _HEADER_BYTES_MAX),
    _SM + b"inference-id": ("inferenceId", 64),
    _SM + b"prefix-aware-id": ("prefixAwareId", 64),
    TARGET_CONTAINER: ("targetContainerHostname", 63),
}
_SHOWN_CHARS_MAX = 256
SPEAKER = b"x-eyrie-container"  # of an error: whose it is, of several containers


def returned(headers: Iterable[tuple[bytes, bytes]], names: frozenset[bytes] = _RETURNED) -> bytes:
    """The lines of a container's reply that the client gets to see."""
    kept = [(name, value) for name, value in headers if name in names and len(value) <= _HEADER_BYTES_MAX]
    return b"".join([b"%b: %b\r\n" % pair for pair in kept])


def too_long(fields: Mapping[bytes, bytes]) -> str | None:
    """What is wrong with a head of which some header is longer than the API says, in AWS's words; None: none is."""
    found = []
    for name, (member, longest) in BOUNDS.items():
        value = fields.get(name, b"")
        if len(value) > longest:
            shown = value[:_SHOWN_CHARS_MAX].decode("latin-1") + ("..." if len(value) > _SHOWN_CHARS_MAX else "")
            constraint = f"Member must have length less than or equal to {longest}"
            found.append(f"Value '{shown}' at '{member}' failed to satisfy constraint: {constraint}")
    if not found:
        return None
    return f"{len(found)} validation error{'s' if len(found) > 1 else ''} detected: {'; '.join(found)}"
