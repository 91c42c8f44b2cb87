"""`eyrie quota`: the service limits, by the Service Quotas API; and deciding about increases that wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.public import Public
from eyrie.cli.screen import show

SERVICE = "sagemaker"


def list_all(data: Path, part: str, as_json: bool) -> None:
    """Print the limits whose names contain `part`, and what was asked for. Raises CommandError."""
    public = Public.of(data)
    found = _limits(public, part)
    asked = list(
        public.pages(
            "service-quotas", "list_requested_service_quota_change_history", "RequestedQuotas", ServiceCode=SERVICE
        )
    )
    if as_json:
        print_document({"quotas": found, "requests": asked})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("quota", "value", "unit", "code", "may be raised"):
        table.add_column(name, justify="right" if name == "value" else "left", no_wrap=True)
    for one in found:
        unit = "" if one["Unit"] == "None" else one["Unit"]
        cells = (one["QuotaName"], f"{one['Value']:g}", unit, one["QuotaCode"], "yes" if one["Adjustable"] else "no")
        table.add_row(*cells)
    show(table, whole=True)
    for one in asked:
        told = f"{one['Status']:9} {one['QuotaName']} to {one['DesiredValue']:g}  (request {one['Id']})"
        show(Text(told), whole=True)


def request(data: Path, name: str, value: int, as_json: bool) -> None:
    """Ask for more. Raises CommandError for a name that no quota, or more than one, has."""
    public = Public.of(data)
    near = _limits(public, name)
    found = [one for one in near if name in (one["QuotaName"], one["QuotaCode"])] or near
    if len(found) != 1:
        raise CommandError(f"{len(found)} quotas are called {name!r}: `eyrie quota list` has names and codes")
    code = found[0]["QuotaCode"]
    made = public.ask(
        "service-quotas",
        "request_service_quota_increase",
        ServiceCode=SERVICE,
        QuotaCode=code,
        DesiredValue=float(value),
    )["RequestedQuota"]
    if as_json:
        print_document(made)
    else:
        print(f"{made['Status']}: {made['QuotaName']} to {made['DesiredValue']:g} (request {made['Id']})")


def decide(data: Path, request_id: str, what: str, as_json: bool) -> None:
    """Approve or deny a request that waits. Raises CommandError."""
    client = ControlClient(data, str(datadir.running_env(data)["region"]))
    found = client.decide_quota(request_id, what)
    if as_json:
        print_document(found)
    else:
        print(f"{found['status']}: {found['name']} to {found['value']}")


def _limits(public: Public, part: str) -> list[dict[str, Any]]:
    every = public.pages("service-quotas", "list_service_quotas", "Quotas", ServiceCode=SERVICE)
    wanted = part.lower()
    return [one for one in every if wanted in one["QuotaName"].lower() or wanted == one["QuotaCode"].lower()]
