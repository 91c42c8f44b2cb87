"""IAM, as much as the SDKs ask for: roles are records, and every principal may do everything.

The role "Eyrie" exists in every account without being created. Roles are of the account, not of a region, so they are
kept in one region's scope.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from eyrie.control.context import DEFAULT_ROLE, DEFAULT_ROLE_ID, Context, Operation, Params, seconds
from eyrie.control.records import TAGS_MAX
from eyrie.domain.names import Scope
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError

KIND = "IamRole"
GLOBAL = "aws-global"
SESSION_SECONDS = 3600
POLICIES_MAX = 20  # attached to one role
TRUST_SAGEMAKER = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def operations() -> Mapping[str, Operation]:
    """The operations of IAM."""
    return {
        "CreateRole": create_role,
        "GetRole": get_role,
        "ListRoles": list_roles,
        "DeleteRole": delete_role,
        "AttachRolePolicy": attach_role_policy,
        "DetachRolePolicy": detach_role_policy,
        "ListAttachedRolePolicies": list_attached_role_policies,
        "ListRolePolicies": list_role_policies,
        "ListInstanceProfilesForRole": list_instance_profiles_for_role,
        "GetUser": get_user,
        "SimulatePrincipalPolicy": simulate_principal_policy,
    }


def create_role(context: Context, params: Params) -> dict[str, Any]:
    """Store a role. Its policies are not evaluated."""
    name = params["RoleName"]
    if name == DEFAULT_ROLE or _find(context, name) is not None:
        raise ApiError("EntityAlreadyExists", f"Role with name {name} already exists.", 409)
    _check_document(params["AssumeRolePolicyDocument"])
    if len(params.get("Tags", [])) > TAGS_MAX:
        raise ApiError("LimitExceeded", f"A role has at most {TAGS_MAX} tags.", 409)
    document = Document(KIND, _account(context), name, 0, context.now_ms, context.now_ms, dict(params))
    context.store.commit(Commit(puts=[document]))
    return {"Role": _role(context, document)}


def get_role(context: Context, params: Params) -> dict[str, Any]:
    """A role as it was created, or the one that is always there."""
    return {"Role": _role(context, _existing(context, params["RoleName"]))}


def list_roles(context: Context, params: Params) -> dict[str, Any]:
    """All roles, by name, in pages."""
    prefix = params.get("PathPrefix", "/")
    stored = {d.name: d for d in (_default(context), *context.store.scan(KIND, _account(context)))}
    found = [
        d
        for _, d in sorted(stored.items())
        if d.body.get("Path", "/").startswith(prefix) and d.name > params.get("Marker", "")
    ]
    size = int(params.get("MaxItems", 100))
    reply: dict[str, Any] = {"Roles": [_role(context, d) for d in found[:size]], "IsTruncated": len(found) > size}
    if reply["IsTruncated"]:
        reply["Marker"] = found[size - 1].name
    return reply


def delete_role(context: Context, params: Params) -> dict[str, Any]:
    """Forget a role. Models and endpoints that name it go on: nothing looks at it."""
    name = params["RoleName"]
    if name == DEFAULT_ROLE:
        raise ApiError("DeleteConflict", f"The role {DEFAULT_ROLE} belongs to Eyrie and cannot be deleted.", 409)
    role = _existing(context, name)
    if _attached(role):
        raise ApiError("DeleteConflict", "Cannot delete entity, must detach all policies first.", 409)
    context.store.commit(Commit(deletes=[role]))
    return {}


def attach_role_policy(context: Context, params: Params) -> dict[str, Any]:
    """Note a managed policy with a role. It is not evaluated."""
    role = _existing(context, params["RoleName"])
    attached = [*_attached(role), params["PolicyArn"]]
    if len(set(attached)) > POLICIES_MAX:
        raise ApiError("LimitExceeded", f"A role has at most {POLICIES_MAX} attached policies.", 409)
    _keep_attached(context, role, attached)
    return {}


def detach_role_policy(context: Context, params: Params) -> dict[str, Any]:
    """Take a managed policy from a role."""
    role, arn = _existing(context, params["RoleName"]), params["PolicyArn"]
    if arn not in _attached(role):
        raise ApiError("NoSuchEntity", f"Policy {arn} was not found.", 404)
    _keep_attached(context, role, [kept for kept in _attached(role) if kept != arn])
    return {}


def list_attached_role_policies(context: Context, params: Params) -> dict[str, Any]:
    """The managed policies noted with a role: all of the few that there may be."""
    arns = _attached(_existing(context, params["RoleName"]))
    policies = [{"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn} for arn in arns]
    return {"AttachedPolicies": policies, "IsTruncated": False}


def list_role_policies(context: Context, params: Params) -> dict[str, Any]:
    """None: inline policies are not kept."""
    _existing(context, params["RoleName"])
    return {"PolicyNames": [], "IsTruncated": False}


def list_instance_profiles_for_role(context: Context, params: Params) -> dict[str, Any]:
    """None: there are no machines to have them."""
    _existing(context, params["RoleName"])
    return {"InstanceProfiles": [], "IsTruncated": False}


def get_user(context: Context, params: Params) -> dict[str, Any]:
    """Callers are assumed roles, which are no users: the answer that AWS gives them too."""
    if "UserName" in params:
        name = params["UserName"]
        raise ApiError("NoSuchEntity", f"The user with name {name} cannot be found.", 404)
    raise ApiError("ValidationError", "Must specify userName when calling with non-User credentials")


def simulate_principal_policy(context: Context, params: Params) -> dict[str, Any]:
    """Allowed, each action on each resource: every principal is root until there are policies."""
    actions, resources = params["ActionNames"], params.get("ResourceArns") or ["*"]
    size = int(params.get("MaxItems", 1000))
    start = int(params["Marker"]) if str(params.get("Marker", "")).isdecimal() else 0
    total = len(actions) * len(resources)  # the product is never built: both lists may be long
    stop = min(start + size, total)
    results = [_allowed(actions[n // len(resources)], resources[n % len(resources)]) for n in range(start, stop)]
    reply: dict[str, Any] = {"EvaluationResults": results, "IsTruncated": stop < total}
    if stop < total:
        reply["Marker"] = str(stop)
    return reply


def _allowed(action: str, resource: str) -> dict[str, Any]:
    return {
        "EvalActionName": action,
        "EvalResourceName": resource,
        "EvalDecision": "allowed",
        "MatchedStatements": [],
        "MissingContextValues": [],
    }


def _account(context: Context) -> Scope:
    return Scope(context.scope.account, GLOBAL)


def _attached(role: Document) -> list[str]:
    return list(role.body.get("AttachedPolicies", []))


def _keep_attached(context: Context, role: Document, arns: list[str]) -> None:
    """Store what is attached; the default role becomes a document with it."""
    body = {**role.body, "AttachedPolicies": sorted(set(arns))}
    context.store.commit(Commit(puts=[replace(role, body=body, modified_ms=context.now_ms)]))


def _find(context: Context, name: str) -> Document | None:
    return context.store.get(KIND, _account(context), name)


def _existing(context: Context, name: str) -> Document:
    found = _find(context, name) or (_default(context) if name == DEFAULT_ROLE else None)
    if found is None:
        raise ApiError("NoSuchEntity", f"The role with name {name} cannot be found.", 404)
    return found


def _default(context: Context) -> Document:
    body = {
        "Path": "/",
        "RoleName": DEFAULT_ROLE,
        "AssumeRolePolicyDocument": json.dumps(TRUST_SAGEMAKER),
        "Description": "The role that exists in every account of an Eyrie.",
    }
    return Document(KIND, _account(context), DEFAULT_ROLE, 0, 0, 0, body)


def _role(context: Context, d: Document) -> dict[str, Any]:
    path = d.body.get("Path", "/")
    role = {
        "Path": path,
        "RoleName": d.name,
        "RoleId": DEFAULT_ROLE_ID if d.name == DEFAULT_ROLE else _role_id(d),
        "Arn": f"arn:aws:iam::{context.scope.account}:role{path}{d.name}",
        "CreateDate": seconds(d.created_ms),
        "AssumeRolePolicyDocument": quote(d.body["AssumeRolePolicyDocument"], safe=""),
        "MaxSessionDuration": d.body.get("MaxSessionDuration", SESSION_SECONDS),
    }
    for member in ("Description", "Tags"):
        if member in d.body:
            role[member] = d.body[member]
    return role


def _role_id(d: Document) -> str:
    """AROA and 17 letters, drawn from what tells this role from any other."""
    digest = hashlib.sha256(f"{d.scope.account}/{d.name}/{d.created_ms}".encode()).hexdigest()
    return "AROA" + digest[:17].upper()


def _check_document(text: str) -> None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict) or "Statement" not in parsed:
        raise ApiError("MalformedPolicyDocument", "This policy contains invalid Json or no Statement.")
