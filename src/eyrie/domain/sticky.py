"""Sticky assignment: a key that a request carries ties its client to one variant. An extension of Eyrie's own.

The rule says where the key is found. It is the value of the tag `eyrie:sticky` of an endpoint config, since a tag is
what every client can send:

    inference-id            the request's InferenceId
    custom-attributes       its CustomAttributes, whole
    custom-attributes:NAME  the value of NAME=VALUE in its CustomAttributes, which commas or semicolons part
    header:NAME             any header of the request

A request without the key goes where the weights say, as ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

TAG = "eyrie:sticky"
FORMS = ("inference-id", "custom-attributes", "custom-attributes:NAME", "header:NAME")
_SM = b"x-amzn-sagemaker-"
_RULE = re.compile(r"inference-id|custom-attributes(:[A-Za-z0-9_.-]{1,64})?|header:[A-Za-z0-9-]{1,64}")
_PARTED = re.compile(r"[;,]")


def is_rule(rule: str) -> bool:
    """Whether this is one of the forms."""
    return _RULE.fullmatch(rule) is not None


def key_of(rule: str, fields: Mapping[bytes, bytes]) -> str:
    """The key of a request, by its headers (names in lower case); "" where it carries none."""
    kind, _, name = rule.partition(":")
    header = name.lower().encode() if kind == "header" else _SM + kind.encode()
    said = fields.get(header, b"").decode("latin-1").strip()
    if kind != "custom-attributes" or not name:
        return said
    pairs = (part.partition("=") for part in _PARTED.split(said))
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")
