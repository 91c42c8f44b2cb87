"""The commands about endpoints: deploy, invoke, endpoints, top, tail, delete, load, chaos, assess. Each one's work is
in a module of its own.

All of them ask the public API as any client does, so they reach whatever a client reaches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eyrie.cli.assess_command import assess
from eyrie.cli.options import AsJson, Data, Endpoint, Where, confirmed, settings_of

TRACES = "FILE.csv (seconds,rps), recorded[:1h] of the endpoint, or a shape of `eyrie simulate`."


def add_to(app: typer.Typer) -> None:
    """Make them commands of `eyrie`."""
    for command in (deploy, invoke, endpoints, top, tail, delete, load, chaos, assess):
        app.command()(command)


def deploy(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A model file, a folder, a model.tar.gz, or inference.py.", show_default=False
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Of the endpoint; one that is there is updated. [the file's]")
    ] = None,
    instances: Annotated[int | None, typer.Option(min=1, max=1000, help="How many. [2, or as it has]")] = None,
    zones: Annotated[int | None, typer.Option(min=1, max=26, help="Spread over at least so many zones.")] = None,
    instance_type: Annotated[
        str | None, typer.Option("--type", metavar="ml.X.Y", help="[ml.m5.large, or as it has]")
    ] = None,
    serverless: Annotated[
        bool, typer.Option("--serverless", help="Instances as requests come; none when idle.")
    ] = False,
    asynchronous: Annotated[bool, typer.Option("--async", help="Requests from and replies to a bucket.")] = False,
    image: Annotated[str | None, typer.Option(help="Which image serves it, where the file does not tell.")] = None,
    code: Annotated[Path | None, typer.Option(metavar="PATH", help="inference.py, or a folder with it.")] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable of the model's.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Also an endpoint of several variants.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is in service, or at once.")] = True,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long to wait.")] = 900.0,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Put a model behind an endpoint, in one command: the framework is told by what is in the file.

    eyrie deploy model.joblib

    eyrie deploy booster.ubj --name prices --instances 3 --zones 3

    eyrie deploy weights.pt --code inference.py -e BATCH=8
    """
    from eyrie.cli import deploy as command

    command.run(
        settings_of(data).data,
        command.Asked(
            model=model,
            name=name,
            instances=instances,
            zones=zones,
            instance_type=instance_type,
            serverless=serverless,
            asynchronous=asynchronous,
            image=image,
            code=code,
            environment=environment or [],
            replace=replace,
            wait=wait,
            timeout_s=timeout,
            as_json=as_json,
        ),
    )


def invoke(
    endpoint: Endpoint,
    data: Annotated[str, typer.Option(metavar="FILE|-|TEXT", help="What is sent; - is standard input.")] = "-",
    content_type: Annotated[str | None, typer.Option(help="[by the file's ending, or how it begins]")] = None,
    accept: Annotated[str | None, typer.Option(help="Content type of the reply. [the model's own]")] = None,
    target_variant: Annotated[str | None, typer.Option(metavar="NAME", help="This variant. [by weight]")] = None,
    target_model: Annotated[str | None, typer.Option(metavar="FILE", help="Which of a multi-model endpoint.")] = None,
    as_json: AsJson = False,
    eyrie: Where = None,
) -> None:
    """Ask an endpoint once; the reply goes to standard output as it is.

    eyrie invoke iris --data 5.1,3.5,1.4,0.2

    eyrie invoke iris --data rows.csv --accept application/json

    cat request.json | eyrie invoke iris --content-type application/json
    """
    from eyrie.cli import invoke as command

    command.run(
        settings_of(eyrie).data,
        command.Asked(
            endpoint=endpoint,
            data=data,
            content_type=content_type,
            accept=accept,
            target_variant=target_variant,
            target_model=target_model,
            as_json=as_json,
        ),
    )


def endpoints(
    endpoint: Annotated[str | None, typer.Argument(metavar="[ENDPOINT]", help="[every one]")] = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Show the endpoints: status, variants, instances by zone, requests, latencies, errors, scaling.

    eyrie endpoints

    eyrie endpoints iris --json | jq '.endpoints[0].rps'
    """
    from eyrie.cli import endpoints as command

    command.run(settings_of(data).data, endpoint, as_json)


def top(
    endpoint: Annotated[str | None, typer.Argument(metavar="[ENDPOINT]", help="[every one]")] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one look and return, for a script.")] = False,
    every: Annotated[float, typer.Option(min=0.5, max=60, metavar="SECONDS", help="Between two looks.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one look as JSON.")] = False,
    data: Data = None,
) -> None:
    """Watch the endpoints live: load, latency, errors, CPU and memory; Ctrl-C ends.

    eyrie top

    eyrie top iris --once
    """
    from eyrie.cli import endpoints as command

    command.top(settings_of(data).data, endpoint, once, every, as_json)


def tail(
    endpoint: Endpoint,
    pattern: Annotated[
        str | None, typer.Option("--filter", metavar="PATTERN", help="A filter pattern of CloudWatch Logs.")
    ] = None,
    since: Annotated[str, typer.Option(metavar="SPAN", help="How far back to begin: 30s, 10m, 2h, 1d.")] = "10m",
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on until Ctrl-C.")] = True,
    requests: Annotated[
        bool, typer.Option("--requests", help="What was answered, instead of what was printed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    data: Data = None,
) -> None:
    """Follow the log of an endpoint by the logs API, every instance's.

    eyrie tail iris

    eyrie tail iris --filter ERROR --since 2h --no-follow
    """
    from eyrie.cli import tail as command

    command.run(
        settings_of(data).data,
        command.Asked(
            endpoint=endpoint, pattern=pattern, since=since, follow=follow, as_json=as_json, requests=requests
        ),
    )


def delete(
    endpoint: Endpoint,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the models, configs and archives of `eyrie deploy`.")
    ] = False,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Delete an endpoint, and what `eyrie deploy` made for it; returns when it is gone.

    eyrie delete iris --yes
    """
    from eyrie.cli import delete as command

    command.run(settings_of(data).data, endpoint, yes, keep, as_json)


def load(
    endpoint: Endpoint,
    rps: Annotated[float | None, typer.Option(metavar="N", help="Open loop: so many requests a second.")] = None,
    users: Annotated[int | None, typer.Option(metavar="N", help="Closed loop: so many users, each waiting.")] = None,
    ramp: Annotated[str | None, typer.Option(metavar="A:B:SECONDS", help="From one rate to another.")] = None,
    stairs: Annotated[str | None, typer.Option(metavar="FROM:TO:STEP:SECONDS", help="Finds saturation.")] = None,
    trace: Annotated[str | None, typer.Option(metavar="TRACE", help=TRACES)] = None,
    scale: Annotated[float, typer.Option(min=0.001, max=1000, help="A trace's rates times this.")] = 1.0,
    duration: Annotated[str | None, typer.Option(metavar="SPAN", help="90, 30s, 5m, 1h. [30s; of a trace all]")] = None,
    data: Annotated[str, typer.Option(metavar="FILE|-|TEXT", help="What is sent; a folder: its files in turn.")] = "-",
    each_line: Annotated[bool, typer.Option("--each-line", help="Each line of the file is a request.")] = False,
    content_type: Annotated[str | None, typer.Option(help="[by the file's ending, or how it begins]")] = None,
    accept: Annotated[str | None, typer.Option(help="Content type of the replies. [the model's own]")] = None,
    target_variant: Annotated[str | None, typer.Option(metavar="NAME", help="This variant. [by weight]")] = None,
    target_model: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Of many; repeatable, in turn.")
    ] = None,
    poisson: Annotated[bool, typer.Option("--poisson", help="Requests come at random instead of evenly.")] = False,
    think: Annotated[float, typer.Option(min=0, metavar="MS", help="What a user waits between requests.")] = 0.0,
    processes: Annotated[int | None, typer.Option(min=1, help="That send. [as the load needs]")] = None,
    connections: Annotated[int | None, typer.Option(min=1, help="Of an open loop, at most. [256]")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="Of a request.")] = 60.0,
    objective: Annotated[str | None, typer.Option(metavar="p99=MS", help="What the stairs must keep.")] = None,
    seed: Annotated[int, typer.Option(help="Of --poisson.")] = 1,
    html: Annotated[Path | None, typer.Option(help="Write the report, one page with its drawings.")] = None,
    as_json: AsJson = False,
    eyrie: Where = None,
) -> None:
    """Load an endpoint, by the clock or by users, and say what it did: latencies, throughput, errors, saturation.

    eyrie load iris --rps 500 --duration 1m --data 5.1,3.5,1.4,0.2

    eyrie load iris --users 32 --data rows.csv --each-line

    eyrie load iris --stairs 500:5000:500:10 --objective p99=50ms --data row.csv --html report.html
    """
    from eyrie.cli import load as command

    command.run(
        settings_of(eyrie).data,
        command.Asked(
            endpoint=endpoint,
            rps=rps,
            users=users,
            ramp=ramp,
            stairs=stairs,
            trace=trace,
            scale=scale,
            duration=duration,
            data=data,
            each_line=each_line,
            content_type=content_type,
            accept=accept,
            target_variant=target_variant,
            target_models=target_model or [],
            poisson=poisson,
            think_ms=think,
            processes=processes,
            connections=connections,
            timeout_s=timeout,
            objective=objective,
            seed=seed,
            html=html,
            as_json=as_json,
        ),
    )


def chaos(
    endpoint: Endpoint,
    kill_instance: Annotated[bool, typer.Option("--kill-instance", help="SIGKILL an instance.")] = False,
    hang: Annotated[bool, typer.Option("--hang", help="SIGSTOP an instance.")] = False,
    slow: Annotated[bool, typer.Option("--slow", help="Stop an instance for a share of the time.")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="An instance reaches its memory limit.")] = False,
    crash_loop: Annotated[bool, typer.Option("--crash-loop", help="Its successors crash too.")] = False,
    fill_box: Annotated[bool, typer.Option("--fill-box", help="An instance fills the disk that it may have.")] = False,
    kill_gateway: Annotated[bool, typer.Option("--kill-gateway", help="SIGKILL a gateway worker.")] = False,
    kill_control: Annotated[bool, typer.Option("--kill-control", help="SIGKILL the control process.")] = False,
    stop_control: Annotated[bool, typer.Option("--stop-control", help="SIGSTOP the control process.")] = False,
    lock_store: Annotated[bool, typer.Option("--lock-store", help="Nothing can be written to the store.")] = False,
    full_disk: Annotated[bool, typer.Option("--full-disk", help="Eyrie's own processes can write no file.")] = False,
    zone_outage: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Kill what stands in a zone, and what is started there.")
    ] = None,
    seconds: Annotated[float, typer.Option("--for", min=0.1, max=600, help="How long what lasts is to last.")] = 10.0,
    share: Annotated[float, typer.Option(min=0.05, max=0.95, help="Of the time, with --slow.")] = 0.8,
    rps: Annotated[float, typer.Option(min=1, max=10_000, help="Load meanwhile, requests a second.")] = 100.0,
    send: Annotated[str | None, typer.Option(metavar="FILE|TEXT", help="What is sent. [as the endpoint tells]")] = None,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Of each fault.")] = 1,
    within: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="It must be whole again.")] = 120.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Break one thing of this host's own Eyrie under load; say what failed, and when all was whole again.

    eyrie chaos iris --kill-instance --runs 5 --yes

    eyrie chaos iris --zone-outage a --for 20 --rps 200
    """
    from eyrie.cli import chaos as command

    # in the order of command.FAULTS
    own = (kill_instance, hang, slow, memory, crash_loop, fill_box)
    shared = (kill_gateway, kill_control, stop_control, lock_store, full_disk)
    named = [name for name, wanted in zip(command.FAULTS, (*own, *shared), strict=True) if wanted]
    asked = command.Asked(
        endpoint=endpoint,
        faults=[*named, *(["zone"] if zone_outage is not None else [])],
        zone=zone_outage,
        seconds=seconds,
        share=share,
        rps=rps,
        data=send,
        runs=runs,
        within_s=within,
        as_json=as_json,
    )
    confirmed(yes, f"Break parts of the Eyrie that serves {endpoint}?")
    command.run(settings_of(data).data, asked)
