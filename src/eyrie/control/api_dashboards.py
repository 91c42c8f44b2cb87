"""CloudWatch's dashboards: PutDashboard with what is wrong with a body, GetDashboard, ListDashboards, DeleteDashboards.

A dashboard is a document of its account, not of a region, as CloudWatch has it. The body is kept as it was given.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.control.family import plain
from eyrie.decide.dashboards import Fault, faults
from eyrie.domain.names import Scope
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError

KIND = "Dashboard"
EVERYWHERE = "aws-global"  # stands for the region: dashboards have none
DASHBOARDS_MAX = 500  # of an account
BODY_BYTES_MAX = 1_048_576
LIST_MAX = 1_000
NOT_FOUND = "ResourceNotFound"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")


def operations() -> Mapping[str, Operation]:
    """The operations on dashboards."""
    return {
        "PutDashboard": put_dashboard,
        "GetDashboard": get_dashboard,
        "ListDashboards": list_dashboards,
        "DeleteDashboards": delete_dashboards,
    }


def put_dashboard(context: Context, params: Params) -> dict[str, Any]:
    """Store a dashboard in place of the one of that name; warnings about its body."""
    name, body = params["DashboardName"], params["DashboardBody"]
    if not _NAME.fullmatch(name):
        raise _invalid(f"The value {name[:64]!r} for field DashboardName must be 1 to 255 of A-Z, a-z, 0-9, - and _.")
    found = _checked(body)
    scope = _scope(context)
    document = context.store.get(KIND, scope, name)
    if document is None:
        _refuse_beyond_quota(context, scope)
        document = Document(KIND, scope, name, 0, context.now_ms, context.now_ms, {})
    stored = {"body": body, "tags": plain(params.get("Tags", []))}
    changed = Document(KIND, scope, name, document.version, document.created_ms, context.now_ms, stored)
    context.store.commit(Commit(puts=[changed]))
    return {"DashboardValidationMessages": _messages(found)}


def get_dashboard(context: Context, params: Params) -> dict[str, Any]:
    """A dashboard's body, as it was given."""
    name = params["DashboardName"]
    document = context.store.get(KIND, _scope(context), name)
    if document is None:
        raise _missing(name)
    return {"DashboardArn": _arn(context, name), "DashboardBody": document.body["body"], "DashboardName": name}


def list_dashboards(context: Context, params: Params) -> dict[str, Any]:
    """Dashboards by name, those with a prefix, in pages."""
    prefix, after = params.get("DashboardNamePrefix", ""), _after(params)
    documents = sorted(context.store.scan(KIND, _scope(context)), key=lambda document: document.name)
    found = [d for d in documents if d.name.startswith(prefix) and d.name > after]
    reply: dict[str, Any] = {
        "DashboardEntries": [
            {
                "DashboardName": document.name,
                "DashboardArn": _arn(context, document.name),
                "LastModified": seconds(document.modified_ms),
                "Size": len(document.body["body"].encode()),
            }
            for document in found[:LIST_MAX]
        ]
    }
    if len(found) > LIST_MAX:
        reply["NextToken"] = base64.urlsafe_b64encode(found[LIST_MAX - 1].name.encode()).decode()
    return reply


def delete_dashboards(context: Context, params: Params) -> dict[str, Any]:
    """Delete all that are named, or none where one does not exist."""
    names = list(dict.fromkeys(params["DashboardNames"]))
    if not names:
        raise ApiError("MissingParameter", "The parameter DashboardNames is required.")
    found = {name: context.store.get(KIND, _scope(context), name) for name in names}
    for name, document in found.items():
        if document is None:
            raise _missing(name)
    context.store.commit(Commit(deletes=[document for document in found.values() if document is not None]))
    return {}


def _checked(text: str) -> list[Fault]:
    """The warnings about a body. Raises InvalidParameterInput where any fault is fatal."""
    if len(text.encode()) > BODY_BYTES_MAX:
        raise _invalid(f"The field DashboardBody must not be larger than {BODY_BYTES_MAX} bytes.")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise _invalid("The field DashboardBody must be a valid JSON object.") from None
    if not isinstance(body, dict):
        raise _invalid("The field DashboardBody must be a valid JSON object.")
    found = faults(body)
    fatal = [fault for fault in found if fault.fatal]
    if fatal:
        told = "; ".join(f"{fault.path or '/'}: {fault.message}" for fault in fatal[:10])
        raise _invalid(f"The dashboard body is invalid, there are {len(fatal)} validation errors: {told}", found)
    return found


def _messages(found: list[Fault]) -> list[dict[str, str]]:
    return [{"DataPath": fault.path, "Message": fault.message} for fault in found]


def _invalid(message: str, found: list[Fault] | None = None) -> ApiError:
    """DashboardInvalidInputError, by its code."""
    return ApiError("InvalidParameterInput", message, fields={"dashboardValidationMessages": _messages(found or [])})


def _missing(name: str) -> ApiError:
    return ApiError(NOT_FOUND, f"Dashboard {name[:255]} does not exist", 404)


def _refuse_beyond_quota(context: Context, scope: Scope) -> None:
    if len(context.store.scan(KIND, scope)) >= DASHBOARDS_MAX:
        raise _invalid(f"There are {DASHBOARDS_MAX} dashboards already: delete one before DashboardName is created.")


def _scope(context: Context) -> Scope:
    return Scope(context.scope.account, EVERYWHERE)


def _arn(context: Context, name: str) -> str:
    return f"arn:aws:cloudwatch::{context.scope.account}:dashboard/{name}"


def _after(params: Params) -> str:
    """The name that the page begins behind."""
    if "NextToken" not in params:
        return ""
    try:
        return base64.b64decode(params["NextToken"].encode("ascii"), b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise ApiError(
            "InvalidParameterValue", "The parameter NextToken is not one that ListDashboards gave."
        ) from None
