"""What an operation gets to work with: who calls, from where, when, and the ports of control.

An operation is a plain synchronous function, `op(context, params) -> reply`, spelled as boto3 spells both; `app.py`
runs it in a thread. It raises `ApiError` for whatever the client gets to see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from eyrie.control.endpoints import Endpoints
from eyrie.control.log_book import LogBook
from eyrie.control.log_queries import LogQueries
from eyrie.decide.alarms import AlarmActions
from eyrie.domain.instance_types import InstanceTypes
from eyrie.domain.names import Scope
from eyrie.ports import Document, Identity, Metrics, Store

DEFAULT_ROLE = "Eyrie"  # exists in every account without being created
DEFAULT_ROLE_ID = "AROAEYRIEDEFAULTROLE0"
DOCUMENTS_MAX = 10_000  # of one kind in one account and region; beyond it a Create is refused


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key signed the request. Every principal of an account is its root: there are no policies yet."""

    access_key_id: str
    account: str

    @property
    def arn(self) -> str:
        """An assumed role, as on a notebook or a CI runner: SDK code takes the execution role from it."""
        return f"arn:aws:sts::{self.account}:assumed-role/{DEFAULT_ROLE}/{self.access_key_id}"

    @property
    def user_id(self) -> str:
        """Role id and session name, as STS puts them."""
        return f"{DEFAULT_ROLE_ID}:{self.access_key_id}"


@dataclass(frozen=True, slots=True)
class Context:
    """One call's surroundings."""

    scope: Scope
    caller: Caller
    now_ms: int
    store: Store
    identity: Identity
    logs: LogBook
    queries: LogQueries
    endpoints: Endpoints
    instance_types: InstanceTypes
    metrics: Metrics
    wake_jobs: Callable[[], None] = lambda: None  # a job was created or changed
    wake_experiments: Callable[[], None] = lambda: None  # an inference experiment was created or changed
    wake_alarms: Callable[[], None] = lambda: None  # an alarm was created, changed or deleted
    wake_events: Callable[[], None] = lambda: None  # there is something to announce or to deliver
    alarm_actions: AlarmActions = field(default_factory=dict)
    wake_scaling: Callable[[], None] = lambda: None  # a scalable target, or something that it has, was changed
    idle_is_zero: bool = True  # a variant without traffic has none: nothing is missing

    def arn(self, kind: str, name: str) -> str:
        """The ARN of a sagemaker resource in the caller's account and region."""
        return self.scope.arn(kind, name)

    def get(self, kind: str, name: str) -> Document | None:
        """A document in the caller's account and region."""
        return self.store.get(kind, self.scope, name)

    def new(self, kind: str, name: str, body: dict[str, Any]) -> Document:
        """A document that does not exist yet, ready to be put."""
        return Document(kind, self.scope, name, 0, self.now_ms, self.now_ms, body)


Params = dict[str, Any]
Operation = Callable[[Context, Params], dict[str, Any]]


def seconds(at_ms: int) -> float:
    """A time as AWS replies carry it: seconds since the epoch."""
    return at_ms / 1000


def without(params: Params, *names: str) -> Params:
    """The parameters but these."""
    return {name: value for name, value in params.items() if name not in names}


def first_duplicate(names: Sequence[str]) -> str | None:
    """The first name that occurs a second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
