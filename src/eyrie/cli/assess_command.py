"""`eyrie assess` as a command: its flags. The work is in `eyrie.cli.assess`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eyrie.cli.documents import print_document
from eyrie.cli.options import AsJson, Data, Endpoint, confirmed, settings_of


def assess(
    endpoint: Endpoint,
    in_place: Annotated[bool, typer.Option("--in-place", help="The endpoint itself, not a copy of it.")] = False,
    objective: Annotated[float, typer.Option(metavar="PERCENT", help="Of the requests that are good.")] = 99.9,
    p99: Annotated[float | None, typer.Option(min=0.01, metavar="MS", help="What p99 must keep at 80 %.")] = None,
    at_least: Annotated[str | None, typer.Option(metavar="A-F", help="The grade that it must have.")] = None,
    against: Annotated[str | None, typer.Option(metavar="FILE|last", help="Compare with an earlier one.")] = None,
    faults: Annotated[
        str | None, typer.Option(metavar="NAMES", help="all, instance (its own alone), none, or names. [all]")
    ] = None,
    instances: Annotated[str, typer.Option(metavar="N,N", help="A variant, for the scalability.")] = "1,2,4",
    rps: Annotated[
        float | None, typer.Option(min=1, max=10_000, help="While things are broken. [30 % of saturation, at most 300]")
    ] = None,
    seconds: Annotated[float, typer.Option("--for", min=0.5, max=120, help="How long what lasts is to last.")] = 4.0,
    runs: Annotated[int, typer.Option(min=1, max=20, help="Of each fault.")] = 1,
    send: Annotated[str | None, typer.Option(metavar="FILE|TEXT", help="What is sent. [as the endpoint tells]")] = None,
    each_line: Annotated[bool, typer.Option("--each-line", help="Each line of the file is a request.")] = False,
    content_type: Annotated[str | None, typer.Option(help="[by the file's ending, or how it begins]")] = None,
    target_model: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Of many; repeatable, in turn.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short loads: less sure figures.")] = False,
    within: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="It must be whole again.")] = 90.0,
    time: Annotated[
        float | None,
        typer.Option(min=10, metavar="SECONDS", help="What does not fit is left out, and named. [255, or as asked]"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report here too.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the JSON here too.")] = None,
    history: Annotated[bool, typer.Option("--history", help="Show those that were kept, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Assess an endpoint by five measures, on a copy: deploy, load, break, watch, report, grade.

    eyrie assess iris --yes

    eyrie assess iris --objective 99.9 --p99 50 --against last --yes

    eyrie assess iris --faults instance --html report.html --yes
    """
    from eyrie.cli import assess as command
    from eyrie.cli import assess_history, assess_view

    directory = settings_of(data).data
    if history:
        kept = assess_history.earlier(directory, endpoint)
        if as_json:
            print_document(kept)
        else:
            assess_view.show_history(kept)
        return
    asked = command.Asked(
        endpoint=endpoint, in_place=in_place, objective=objective, p99_ms=p99, at_least=at_least, against=against,
        faults=command.names_of(faults), instances=command.counts_of(instances), rps=rps, seconds=seconds, runs=runs,
        send=send, each_line=each_line, content_type=content_type, models=target_model or [], quick=quick,
        within_s=within, time_s=time, html=html, out=out, as_json=as_json,
    )  # fmt: skip
    asked = command.check(asked)
    confirmed(yes, command.confirmation(asked))
    command.run(directory, asked)
