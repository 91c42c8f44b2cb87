"""What one process of a load test is told to do: a line of JSON on its standard input, since it holds a secret."""

from __future__ import annotations

import msgspec

from eyrie.domain.load import Stage


class Target(msgspec.Struct, frozen=True):
    """Where requests go and whose key signs them."""

    host: str
    port: int
    tls: bool
    path: str
    headers: list[tuple[str, str]]
    access_key_id: str
    secret: str
    token: str | None
    region: str
    service: str = "sagemaker"


class Plan(msgspec.Struct, frozen=True):
    """One process' part of a load: open (stages) or closed (users)."""

    target: Target
    bodies: list[bytes]  # sent in turn
    models: list[str]  # TargetModels, in turn; none where the endpoint has one model
    share: int  # this process' number
    shares: int
    stages: list[Stage]  # empty: a closed loop
    poisson: bool
    seed: int
    users: int  # of this process, in a closed loop
    think_s: float
    seconds: float
    connections: int
    waiting_max: int
    timeout_s: float
    levels: list[tuple[float, int]] = []  # of a closed loop whose users come and go: from a second on, so many
    begin_s: float = 0.0  # CLOCK_MONOTONIC, the same for all; set once every process is ready


def encoded(plan: Plan) -> bytes:
    """A plan as one line."""
    return msgspec.json.encode(plan) + b"\n"


def decoded(line: bytes) -> Plan:
    """The plan of a line."""
    return msgspec.json.decode(line, type=Plan)
