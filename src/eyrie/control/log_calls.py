"""What the operations on logs share: finding groups, refusals, tokens, pages."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from eyrie.control.context import Context, Params
from eyrie.decide.log_pattern import Pattern, UnreadablePattern, parse_pattern
from eyrie.domain.logs import LogGroup
from eyrie.wire.errors import ApiError

PAGE_MAX = 50  # groups, streams, filters
NO_GROUP = "The specified log group does not exist."
NO_STREAM = "The specified log stream does not exist."
_PAGED_BY = ("nextToken", "limit", "maxResults")


def invalid(message: str) -> ApiError:
    """InvalidParameterException."""
    return ApiError("InvalidParameterException", message)


def missing(message: str = NO_GROUP) -> ApiError:
    """ResourceNotFoundException."""
    return ApiError("ResourceNotFoundException", message)


def group_called(context: Context, name: str) -> LogGroup:
    """The group of a name or ARN. Raises ResourceNotFoundException."""
    found = context.logs.group(context.scope, group_name(name))
    if found is None:
        raise missing()
    return found


def group_named(context: Context, params: Params) -> LogGroup:
    """The group that logGroupName or logGroupIdentifier tells. Raises ApiError."""
    if ("logGroupName" in params) == ("logGroupIdentifier" in params):
        raise invalid("Exactly one of logGroupName and logGroupIdentifier is needed.")
    return group_called(context, params.get("logGroupName") or params["logGroupIdentifier"])


def group_name(identifier: str) -> str:
    """A group's name from its name or ARN."""
    return identifier.split(":")[6] if identifier.startswith("arn:") and identifier.count(":") >= 6 else identifier


def pattern_of(text: str) -> Pattern:
    """A filter pattern. Raises InvalidParameterException saying where it cannot be read."""
    try:
        return parse_pattern(text)
    except UnreadablePattern as error:
        raise invalid(f"Invalid filter pattern: {error}.") from None


def page(names: Sequence[str], params: Params, size: str = "limit", most: int = PAGE_MAX) -> tuple[Sequence[str], str]:
    """One page of sorted names, and the token of the next one; it holds the last name shown."""
    start, stamp = 0, digest(params)
    if "nextToken" in params:
        read = decoded(params["nextToken"])
        if not isinstance(read, list) or len(read) != 2 or read[0] != stamp or read[1] not in names:
            raise bad_token()
        start = names.index(read[1]) + 1
    stop = start + min(int(params.get(size, most)), most)
    return names[start:stop], encoded([stamp, names[stop - 1]]) if stop < len(names) else ""


def with_token(reply: dict[str, Any], token: str) -> dict[str, Any]:
    """The reply, with nextToken where there is more."""
    return {**reply, "nextToken": token} if token else reply


def digest(params: Params) -> str:
    """Of what a token belongs to."""
    given = {name: value for name, value in params.items() if name not in _PAGED_BY}
    return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()[:16]


def encoded(value: Any) -> str:
    """A token."""
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()


def decoded(token: str) -> Any:
    """What a token says. Raises InvalidParameterException."""
    try:
        return json.loads(base64.b64decode(token.encode("ascii"), b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise bad_token() from None


def bad_token() -> ApiError:
    """For a token that is none of ours, or of another call."""
    return invalid("The specified nextToken is invalid.")
