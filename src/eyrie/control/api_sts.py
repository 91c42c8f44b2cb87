"""STS: who am I. Every principal of an account is its root for now; what it is called is an assumed role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eyrie.control.context import Context, Operation, Params


def operations() -> Mapping[str, Operation]:
    """The operations of STS."""
    return {"GetCallerIdentity": get_caller_identity}


def get_caller_identity(context: Context, params: Params) -> dict[str, Any]:
    """Account, ARN and id of whoever signed the call."""
    return {"UserId": context.caller.user_id, "Account": context.caller.account, "Arn": context.caller.arn}
