"""Reads the table of instance types: the shipped one, with the rows of `DATA/instance_types.json` laid over it.

A user's file has the form of the shipped one, `{"types": {"ml.m5.large": {"vcpu": 2, "memory_mb": 8192, ...}}}`; with
`"replace": true` beside `types` nothing of the shipped table remains. `"serverless": {"usd_per_gb_second": ...,
"usd_per_provisioned_gb_second": ...}` beside `types` is what serverless variants are reckoned at.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import msgspec

from eyrie.domain.costs import ServerlessPrice
from eyrie.domain.instance_types import InstanceType, InstanceTypes

FILE_NAME = "instance_types.json"
FILE_BYTES_MAX = 4_194_304

_Count = Annotated[int, msgspec.Meta(ge=0, le=65_536)]


class InstanceTypesError(ValueError):
    """A table that cannot be read; the message names the file and the fault."""


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vcpu: Annotated[int, msgspec.Meta(ge=1, le=65_536)]
    memory_mb: Annotated[int, msgspec.Meta(ge=64, le=1 << 30)]
    usd_per_hour: Annotated[float, msgspec.Meta(ge=0)] | None = None
    accelerators: _Count = 0
    accelerator_kind: str = ""
    cpu_baseline_percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 100.0
    cpu_credits_max: Annotated[float, msgspec.Meta(ge=0)] | None = None
    launch_credits: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    credits_unlimited: bool = False
    cpu_percent: Annotated[float, msgspec.Meta(ge=1, le=100)] = 100.0


class _Serverless(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    usd_per_gb_second: Annotated[float, msgspec.Meta(ge=0)] | None = None
    usd_per_provisioned_gb_second: Annotated[float, msgspec.Meta(ge=0)] | None = None


class _Table(msgspec.Struct, frozen=True):
    types: dict[str, _Row] = msgspec.field(default_factory=dict)
    serverless: _Serverless = _Serverless()
    replace: bool = False


def load_instance_types(data: Path) -> InstanceTypes:
    """The table that holds for a data directory. Raises InstanceTypesError when the user's file cannot be read."""
    shipped = _decode(files("eyrie.adapters").joinpath(FILE_NAME).read_bytes(), FILE_NAME)
    own, cpus = data / FILE_NAME, len(os.sched_getaffinity(0))
    if not own.exists():
        return InstanceTypes(_rows(shipped), cpus, _serverless(shipped))
    if own.stat().st_size > FILE_BYTES_MAX:
        raise InstanceTypesError(f"{own} is larger than {FILE_BYTES_MAX} bytes")
    given = _decode(own.read_bytes(), str(own))
    rows = _rows(given) if given.replace else {**_rows(shipped), **_rows(given)}
    return InstanceTypes(rows, cpus, _serverless(shipped, given))


def _decode(text: bytes, name: str) -> _Table:
    try:
        return msgspec.json.decode(text, type=_Table)
    except (msgspec.DecodeError, msgspec.ValidationError) as fault:
        raise InstanceTypesError(f"{name}: {fault}") from None


def _rows(table: _Table) -> dict[str, InstanceType]:
    return {name: InstanceType(name, **msgspec.structs.asdict(row)) for name, row in table.types.items()}


def _serverless(*tables: _Table) -> ServerlessPrice:
    """Prices of serverless variants: the last table that has one says it."""
    given = [msgspec.structs.asdict(table.serverless) for table in tables]
    return ServerlessPrice(**{name: value for one in given for name, value in one.items() if value is not None})
