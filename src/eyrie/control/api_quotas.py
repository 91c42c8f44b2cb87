"""Service Quotas: the limits of an account and region, and raising them.

This is the user's own machine, so an increase is granted at once: APPROVED in the very answer. With
EYRIE_QUOTA_INCREASES=pending it waits, PENDING, until somebody decides: `eyrie quota approve ID`, or `deny`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from eyrie.control import quotas
from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.control.topics import uuid
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError

REQUESTS = "ServiceQuotaRequest"
REQUESTS_MAX = 1_000  # kept; the oldest that is decided goes first
PENDING_MAX = 100
VALUE_MAX = 1_000_000
PAGE_MAX = 100
PENDING, APPROVED, DENIED = "PENDING", "APPROVED", "DENIED"
PATH = "/eyrie/quotas/"


def operations(granted: bool, body_bytes_max: int) -> Mapping[str, Operation]:
    """The operations. `granted`: increases are, at once."""

    def listed(context: Context) -> dict[str, quotas.Quota]:
        return quotas.table(context.instance_types.rows, body_bytes_max)

    def request(context: Context, params: Params) -> dict[str, Any]:
        return _request(context, params, _quota(listed(context), params), granted)

    return {
        "ListServices": list_services,
        "ListServiceQuotas": _quotas_of(listed, _applied),
        "ListAWSDefaultServiceQuotas": _quotas_of(listed, _default),
        "GetServiceQuota": lambda context, params: {"Quota": _applied(context, _quota(listed(context), params))},
        "GetAWSDefaultServiceQuota": lambda context, params: {
            "Quota": _default(context, _quota(listed(context), params))
        },
        "RequestServiceQuotaIncrease": request,
        "GetRequestedServiceQuotaChange": get_change,
        "ListRequestedServiceQuotaChangeHistory": list_changes,
        "ListRequestedServiceQuotaChangeHistoryByQuota": list_changes,
    }


def list_services(context: Context, params: Params) -> dict[str, Any]:
    """The services that have quotas."""
    return _page("Services", [{"ServiceCode": quotas.SERVICE, "ServiceName": quotas.SERVICE_NAME}], params)


def _quotas_of(
    listed: Callable[[Context], dict[str, quotas.Quota]], shown: Callable[[Context, quotas.Quota], dict[str, Any]]
) -> Operation:
    def answer(context: Context, params: Params) -> dict[str, Any]:
        _check_service(params)
        wanted = params.get("QuotaCode")
        found = [quota for code, quota in listed(context).items() if wanted in (None, code)]
        return _page("Quotas", found, params, lambda quota: shown(context, quota))

    return answer


def get_change(context: Context, params: Params) -> dict[str, Any]:
    """One request for an increase."""
    return {"RequestedQuota": _change(context, _found(context, params["RequestId"]))}


def list_changes(context: Context, params: Params) -> dict[str, Any]:
    """Requests for increases, the newest first."""
    if "ServiceCode" in params:
        _check_service(params)
    found = [
        document
        for document in sorted(context.store.scan(REQUESTS, context.scope), key=lambda d: (-d.created_ms, d.name))
        if params.get("Status") in (None, document.body["status"])
        and params.get("QuotaCode") in (None, document.body["code"])
    ]
    return _page("RequestedQuotas", found, params, lambda document: _change(context, document))


def _request(context: Context, params: Params, quota: quotas.Quota, granted: bool) -> dict[str, Any]:
    """Ask for more, and get it or wait."""
    value, now = params["DesiredValue"], quotas.limit(context.store, context.scope, quota.name, quota.default)
    if not quota.adjustable:
        raise _illegal(f"The quota {quota.code} ({quota.name}) is not adjustable.")
    if value != int(value) or not now < value <= VALUE_MAX:
        raise _illegal(
            f"DesiredValue {value:g} of the quota {quota.code} ({quota.name}) must be a whole number above its current "
            f"value {now} and at most {VALUE_MAX}."
        )
    known = sorted(context.store.scan(REQUESTS, context.scope), key=lambda d: d.created_ms)
    waiting = [document for document in known if document.body["status"] == PENDING]
    if any(document.body["code"] == quota.code for document in waiting):
        raise ApiError("ResourceAlreadyExistsException", f"A request for the quota {quota.code} is pending already.")
    if len(waiting) >= PENDING_MAX:
        raise ApiError("QuotaExceededException", f"{PENDING_MAX} requests are pending already.")
    body = {"code": quota.code, "name": quota.name, "value": int(value), "status": APPROVED if granted else PENDING}
    made = context.new(REQUESTS, uuid(context.identity.token).replace("-", ""), body)
    puts = [made, _raised(context, made)] if granted else [made]
    decided = [document for document in known if document.body["status"] != PENDING]
    over = decided[: max(0, len(known) + 1 - REQUESTS_MAX)]
    context.store.commit(Commit(puts=puts, deletes=over))
    return {"RequestedQuota": _change(context, made)}


def decide(context: Context, path: str) -> dict[str, Any]:
    """`POST /eyrie/quotas/ID/approve` and `.../deny`: what `eyrie quota` asks. Raises ApiError."""
    request_id, _, what = path.removeprefix(PATH).partition("/")
    if what not in ("approve", "deny"):
        raise _illegal(f"A request is answered with approve or deny, and not with {what[:64]!r}.")
    document = _found(context, request_id)
    if document.body["status"] != PENDING:
        raise _illegal(f"The request {request_id} is {document.body['status']} already.")
    body = {**document.body, "status": APPROVED if what == "approve" else DENIED}
    now = replace(document, body=body, modified_ms=context.now_ms)
    context.store.commit(Commit(puts=[now, _raised(context, now)] if what == "approve" else [now]))
    return {"id": request_id, "name": body["name"], "value": body["value"], "status": body["status"]}


def _raised(context: Context, request: Document) -> Document:
    """The limit as a request has it; one that another raised further meanwhile stays there."""
    name, value = request.body["name"], request.body["value"]
    found = context.store.get(quotas.KIND, context.scope, name)
    if found is None:
        return context.new(quotas.KIND, name, {"value": value})
    return replace(found, body={"value": max(value, found.body["value"])}, modified_ms=context.now_ms)


def _found(context: Context, request_id: str) -> Document:
    document = context.store.get(REQUESTS, context.scope, request_id)
    if document is None:
        raise _missing(f"There is no request {request_id[:64]!r} for an increase of a quota.")
    return document


def _quota(listed: Mapping[str, quotas.Quota], params: Params) -> quotas.Quota:
    _check_service(params)
    quota = listed.get(params["QuotaCode"])
    if quota is None:
        raise _missing(f"The service {quotas.SERVICE} has no quota {params['QuotaCode']}: see ListServiceQuotas.")
    return quota


def _check_service(params: Params) -> None:
    if params["ServiceCode"] != quotas.SERVICE:
        raise _missing(f"The service {params['ServiceCode']} has no quotas here; {quotas.SERVICE} has.")


def _applied(context: Context, quota: quotas.Quota) -> dict[str, Any]:
    return _shown(context, quota, quotas.limit(context.store, context.scope, quota.name, quota.default))


def _default(context: Context, quota: quotas.Quota) -> dict[str, Any]:
    return _shown(context, quota, quota.default)


def _shown(context: Context, quota: quotas.Quota, value: int) -> dict[str, Any]:
    return {
        "ServiceCode": quotas.SERVICE,
        "ServiceName": quotas.SERVICE_NAME,
        "QuotaArn": _arn(context, quota.code),
        "QuotaCode": quota.code,
        "QuotaName": quota.name,
        "Value": float(value),
        "Unit": quota.unit,
        "Adjustable": quota.adjustable,
        "GlobalQuota": False,
    }


def _change(context: Context, document: Document) -> dict[str, Any]:
    body = document.body
    return {
        "Id": document.name,
        "ServiceCode": quotas.SERVICE,
        "ServiceName": quotas.SERVICE_NAME,
        "QuotaCode": body["code"],
        "QuotaName": body["name"],
        "DesiredValue": float(body["value"]),
        "Status": body["status"],
        "Created": seconds(document.created_ms),
        "LastUpdated": seconds(document.modified_ms),
        "Requester": f'{{"accountId":"{context.scope.account}"}}',
        "QuotaArn": _arn(context, body["code"]),
        "GlobalQuota": False,
        "Unit": "None",
    }


def _arn(context: Context, code: str) -> str:
    return f"arn:aws:servicequotas:{context.scope.region}:{context.scope.account}:{quotas.SERVICE}/{code}"


def _page(
    key: str, rows: Sequence[Any], params: Params, shown: Callable[[Any], dict[str, Any]] = lambda row: row
) -> dict[str, Any]:
    """A page of rows: the token is where it begins."""
    first, most = _first(params), params.get("MaxResults", PAGE_MAX)
    reply: dict[str, Any] = {key: [shown(row) for row in rows[first : first + most]]}
    if first + most < len(rows):
        reply["NextToken"] = base64.urlsafe_b64encode(str(first + most).encode()).decode()
    return reply


def _first(params: Params) -> int:
    if "NextToken" not in params:
        return 0
    try:
        return max(0, int(base64.b64decode(params["NextToken"].encode("ascii"), b"-_", validate=True)))
    except (ValueError, binascii.Error):
        raise ApiError("InvalidPaginationTokenException", "The NextToken is not one that was given here.") from None


def _illegal(message: str) -> ApiError:
    return ApiError("IllegalArgumentException", message)


def _missing(message: str) -> ApiError:
    return ApiError("NoSuchResourceException", message)
