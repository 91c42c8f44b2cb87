"""Errors as AWS names them, with the texts that SDK code matches on. Any floor above raises these; `Wire.refuse`
writes them.

Light: imported by gateway workers too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class ApiError(Exception):
    """A refusal that the client gets to see: the code and text of its AWS error, and the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.fields: dict[str, Any] = dict(fields or {})  # further members of the error's shape

    @property
    def fault(self) -> str:
        """Whose fault it is, in the words of the query protocol: "Sender" or "Receiver"."""
        return "Receiver" if self.status >= 500 else "Sender"


def validation(message: str) -> ApiError:
    """ValidationException: the request says something that it may not say."""
    return ApiError("ValidationException", message)


def constraint_violations(violations: Iterable[str], code: str = "ValidationException") -> ApiError:
    """ValidationException (or the service's own code) over broken model constraints, in AWS's form.

    Each violation reads `Value 'x' at 'instanceType' failed to satisfy constraint: Member must ...`.
    """
    found = list(violations)
    errors = "error" if len(found) == 1 else "errors"
    return ApiError(code, f"{len(found)} validation {errors} detected: {'; '.join(found)}")


def could_not_find(noun: str, arn: str) -> ApiError:
    """ValidationException, `Could not find endpoint "arn:...".`: how core hosting says that something is missing.

    `noun` is "endpoint", "endpoint configuration", "model" or "inference component": SDK code matches on these words.
    """
    return validation(f'Could not find {noun} "{arn}".')


def already_exists(noun: str, arn: str) -> ApiError:
    """ValidationException, `Cannot create already existing endpoint "arn:...".`"""
    return validation(f'Cannot create already existing {noun} "{arn}".')


def resource_not_found(message: str) -> ApiError:
    """ResourceNotFound, as all nouns newer than hosting answer for what is missing."""
    return ApiError("ResourceNotFound", message)


def resource_in_use(message: str) -> ApiError:
    """ResourceInUse: the name is taken, or something still needs it."""
    return ApiError("ResourceInUse", message)


def resource_limit_exceeded(quota: str, limit: int, current: int, delta: int, unit: str = "Instances") -> ApiError:
    """ResourceLimitExceeded, naming the limit, what is used and what was asked for."""
    text = (
        f"The account-level service limit '{quota}' is {limit} {unit}, with current utilization of {current} {unit} "
        f"and a request delta of {delta} {unit}. Please use AWS Service Quotas to request an increase for this quota. "
        "If AWS Service Quotas is not available, contact AWS support to request an increase for this quota."
    )
    return ApiError("ResourceLimitExceeded", text)


def throttled(message: str = "Rate exceeded") -> ApiError:
    """ThrottlingException: a bound was hit; the client may come back."""
    return ApiError("ThrottlingException", message)


def too_large(limit_bytes: int) -> ApiError:
    """RequestEntityTooLargeException, naming the limit."""
    return ApiError("RequestEntityTooLargeException", f"The request body is larger than {limit_bytes} bytes.", 413)


def internal_failure(message: str = "An internal failure occurred.") -> ApiError:
    """InternalFailure: ours, not the client's; the story is in our log under the request id."""
    return ApiError("InternalFailure", message, 500)


def unavailable(message: str) -> ApiError:
    """ServiceUnavailable: try again."""
    return ApiError("ServiceUnavailable", message, 503)
