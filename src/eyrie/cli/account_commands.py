"""The commands about what endpoints cost and how available they are: costs, availability, objective, maintenance; and
quota.

Each one's work is in a module of its own. All of them but `availability` ask the public API alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from eyrie.cli.options import AsJson, Data, Endpoint, settings_of
from eyrie.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Make them commands of `eyrie`."""
    app.command()(costs)
    app.command()(availability)
    objective = typer.Typer(help="What share of an endpoint's minutes is to be good.", no_args_is_help=True)
    maintenance = typer.Typer(help="Planned maintenance of an endpoint.", no_args_is_help=True)
    objective.command("set")(objective_set)
    objective.command("show")(objective_show)
    objective.command("remove")(objective_remove)
    maintenance.command("add")(maintenance_add)
    maintenance.command("clear")(maintenance_clear)
    quota = typer.Typer(help="Service limits of the account, and raising them.", no_args_is_help=True)
    quota.command("list")(quota_list)
    quota.command("request")(quota_request)
    quota.command("approve")(quota_approve)
    quota.command("deny")(quota_deny)
    app.add_typer(quota, name="quota")
    app.add_typer(objective, name="objective")
    app.add_typer(maintenance, name="maintenance")


def _now(settings: Settings) -> datetime:
    """By the clock of decisions as the running Eyrie has it, which EYRIE_TIME_SCALE speeds up."""
    from eyrie.cli.data import clock_of

    return datetime.fromtimestamp(clock_of(settings.data).now_ms() / 1000, UTC)


def costs(
    endpoint: Annotated[str | None, typer.Argument(help="Only this endpoint. [every one, and jobs]")] = None,
    over: Annotated[str, typer.Option(metavar="SPAN", help="How far back: 90min, 6h, 30d.")] = "30d",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show what endpoints, variants and jobs cost: by the hour now, over a time, and per request."""
    from eyrie.cli import costs as command

    settings = settings_of(data)
    command.run(settings.data, over, endpoint, as_json, _now(settings))


def availability(
    endpoint: Endpoint,
    days: Annotated[int | None, typer.Option(min=1, max=90, help="How far back. [30 and 90]")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show how available an endpoint was, minute by minute: from its requests and from probes."""
    from eyrie.cli import availability as command

    command.run(settings_of(data).data, endpoint, days, as_json)


def objective_set(
    endpoint: Endpoint,
    percent: Annotated[str, typer.Argument(help="Of its minutes that are to be good, as 99.9.")],
    notify: Annotated[str | None, typer.Option(metavar="TOPIC_ARN", help="Whom its alarms tell.")] = None,
    alarms: Annotated[bool, typer.Option("--alarms/--no-alarms", help="With alarms on its burn rates.")] = True,
    probe: Annotated[Path | None, typer.Option(metavar="FILE", help="A request to probe with. [/ping]")] = None,
    content_type: Annotated[str, typer.Option(help="Of --probe.")] = "text/csv",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Say what share of an endpoint's minutes is to be good, and be told when its error budget burns."""
    from eyrie.cli import availability as command

    command.set_objective(
        settings_of(data).data,
        endpoint,
        percent,
        notify=notify,
        alarms=alarms,
        probe=probe,
        content_type=content_type,
        as_json=as_json,
    )


def objective_show(endpoint: Endpoint, data: Data = None, as_json: AsJson = False) -> None:
    """Show objective, maintenance and probe of an endpoint."""
    from eyrie.cli import availability as command

    command.show_objective(settings_of(data).data, endpoint, as_json)


def objective_remove(endpoint: Endpoint, data: Data = None, as_json: AsJson = False) -> None:
    """Forget the objective of an endpoint, its probe and its alarms: EYRIE_OBJECTIVE holds."""
    from eyrie.cli import availability as command

    command.remove_objective(settings_of(data).data, endpoint, as_json)


def maintenance_add(
    endpoint: Endpoint,
    start: Annotated[str, typer.Argument(help="now, 2h (from now), 2026-11-22T02:00Z, sun/02:00Z or daily/02:00Z.")],
    length: Annotated[str, typer.Argument(metavar="SPAN", help="How long it takes: 30min, 2h.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Plan maintenance: its minutes count neither as good nor as bad."""
    from eyrie.cli import availability as command

    settings = settings_of(data)
    command.add_maintenance(settings.data, endpoint, start, length, _now(settings), as_json)


def maintenance_clear(endpoint: Endpoint, data: Data = None, as_json: AsJson = False) -> None:
    """Plan none any more."""
    from eyrie.cli import availability as command

    command.clear_maintenance(settings_of(data).data, endpoint, as_json)


def quota_list(
    name: Annotated[str, typer.Argument(help="A part of names, as `ml.m5.large`. [every one]")] = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show service limits, and what was asked to be raised."""
    from eyrie.cli import quota as command

    command.list_all(settings_of(data).data, name, as_json)


def quota_request(
    name: Annotated[str, typer.Argument(help="Name or code of a limit.")],
    value: Annotated[int, typer.Argument(min=1, help="What it should be.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Raise a limit (at once, unless EYRIE_QUOTA_INCREASES is off)."""
    from eyrie.cli import quota as command

    command.request(settings_of(data).data, name, value, as_json)


def quota_approve(
    request: Annotated[str, typer.Argument(help="Its id.")], data: Data = None, as_json: AsJson = False
) -> None:
    """Grant a request that is pending."""
    from eyrie.cli import quota as command

    command.decide(settings_of(data).data, request, "approve", as_json)


def quota_deny(
    request: Annotated[str, typer.Argument(help="Its id.")], data: Data = None, as_json: AsJson = False
) -> None:
    """Refuse a request that is pending."""
    from eyrie.cli import quota as command

    command.decide(settings_of(data).data, request, "deny", as_json)
