"""The `eyrie` command. Each command's work is in a module of its own, imported only when it runs."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from eyrie import __version__
from eyrie.cli import account_commands, endpoint_commands, examples, printing
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.options import AsJson, Data
from eyrie.cli.options import settings_of as _settings
from eyrie.settings import variable

app = typer.Typer(
    name="eyrie",
    help="A machine-learning production environment that speaks the Amazon SageMaker API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

keys = typer.Typer(help="Make, list and revoke API keys of the Open Inference Protocol (/v2).", no_args_is_help=True)
app.add_typer(keys, name="key")


class Switch(StrEnum):
    """on or off."""

    ON = "on"
    OFF = "off"


@app.command()
def up(
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes any free one. [the last one, else 7777]")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    data: Data = None,
    zones: Annotated[
        str | None, typer.Option(metavar="a,b,c", help="Names of the zones that instances spread over. [a,b,c]")
    ] = None,
    auth: Annotated[Switch | None, typer.Option(help="Whether requests must be signed by a known key. [on]")] = None,
    gateways: Annotated[int | None, typer.Option(help="Gateway worker processes on the one port. [2]")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it is ready, and leave it running.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the line that says it is ready as JSON.")] = False,
) -> None:
    """Start Eyrie and keep it running; Ctrl-C stops it, as `eyrie down` does."""
    from eyrie.cli import up as command

    settings = _settings(data)
    if port is None and variable("port") not in os.environ:
        port = command.last_port(settings.data)
    settings = settings.with_flags(
        port=port,
        host=host,
        zones=None if zones is None else tuple(zone.strip() for zone in zones.split(",")),
        auth=None if auth is None else auth is Switch.ON,
        gateways=gateways,
    )
    command.run(settings, detach, as_json)


@app.command()
def down(data: Data = None, as_json: AsJson = False) -> None:
    """Stop Eyrie: its processes and every instance. What was deployed comes back with the next `eyrie up`."""
    from eyrie.cli import data as datadir
    from eyrie.cli import down as command

    settings = _settings(data)
    command.run(datadir.running_settings(settings), as_json)


@app.command()
def status(
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what control tells, as JSON.")] = False,
) -> None:
    """Show the processes, the endpoints, and the instances by zone."""
    from eyrie.cli import status as command

    command.run(_settings(data).data, as_json)


@app.command()
def env(data: Data = None, as_json: AsJson = False) -> None:
    """Print `export` lines that point boto3, the AWS CLI and the SageMaker SDK at this Eyrie: eval "$(eyrie env)"."""
    from eyrie.cli import env as command

    command.run(_settings(data).data, as_json)


@app.command()
def logs(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    data: Data = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what is new.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=100_000, help="How many of the last lines to begin with.")
    ] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Print what the instances of an endpoint say, those that are gone included."""
    from eyrie.cli import logs as command

    command.run(_settings(data).data, endpoint, follow, lines, as_json)


@app.command()
def advise(
    payload: Annotated[str, typer.Option(help="Size of one request, as 500MB.")],
    processing: Annotated[
        str | None, typer.Option(help="Time that one request takes, as 3min or 20ms. [--endpoint's]")
    ] = None,
    requests: Annotated[float, typer.Option("--requests-per-day", help="How many come in a day.")] = 1_000.0,
    active: Annotated[str, typer.Option(help="How long of a day requests come at all, as 10min. [24h]")] = "24h",
    latency: Annotated[str | None, typer.Option(help="By when a client needs its answer, as 100ms.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Whether a client waits for the answer.")] = True,
    whole_set: Annotated[bool, typer.Option("--whole-set", help="All inputs are there at once.")] = False,
    memory: Annotated[str, typer.Option(help="Memory that the model needs. [2GB]")] = "2GB",
    instance_type: Annotated[str, typer.Option(help="Instance type to reckon with. [ml.m5.large]")] = "ml.m5.large",
    traffic: Annotated[
        str | None,
        typer.Option(metavar="FILE.csv|recorded:24h", help="When requests come: time, and rate or requests."),
    ] = None,
    throughput: Annotated[
        float | None, typer.Option(min=0.0001, help="Requests a second that one instance bears, where it was measured.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="A running endpoint of the model: as it was measured.")] = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the advice as JSON.")] = False,
) -> None:
    """Advise which way to infer fits: real-time, serverless, asynchronous or batch; why, and at what cost."""
    from eyrie.cli import advise as command

    command.run(
        command.Asked(
            data=_settings(data).data,
            payload=payload,
            processing=processing,
            requests=requests,
            active=active,
            latency=latency,
            waits=wait,
            whole_set=whole_set,
            memory=memory,
            instance_type=instance_type,
            traffic=traffic,
            throughput=throughput,
            endpoint=endpoint,
            as_json=as_json,
        )
    )


@app.command()
def story(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint.")], data: Data = None, as_json: AsJson = False
) -> None:
    """Tell the life of an endpoint: each decision, when, and why."""
    from eyrie.cli import story as command

    command.run(_settings(data).data, endpoint, as_json)


@app.command()
def insights(
    name: Annotated[str | None, typer.Argument(metavar="[ENDPOINT|ALARM]", help="[every endpoint]")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Say what is unusual, and what probably explains it: anomalies, changes and new log lines joined in time."""
    from eyrie.cli import insights as command

    command.run(_settings(data).data, name, as_json)


@app.command()
def compare(
    endpoint: str,
    baseline: Annotated[str | None, typer.Option(metavar="VARIANT", help="[the config's first variant]")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Compare an endpoint's variants by what is measured of them: differences, intervals, what is decided."""
    from eyrie.cli import compare as command

    command.run(_settings(data).data, endpoint, baseline, as_json)


shadow = typer.Typer(help="Shadow variants: what their answers come to beside production's.", no_args_is_help=True)
app.add_typer(shadow, name="shadow")


@shadow.command("report")
def shadow_report(
    endpoint: str,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="An inference experiment. [the shadow of now, else the last]")
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Say how a shadow's latency, errors and predictions differ from production's, and for which requests."""
    from eyrie.cli import shadow as command

    command.report(_settings(data).data, endpoint, experiment, as_json)


@app.command()
def transform(
    what: Annotated[
        list[str], typer.Argument(metavar="NAME | MODEL INPUT OUTPUT", help="A job; or what to start: s3:// prefixes.")
    ],
    follow: Annotated[bool, typer.Option("--follow", help="Show a job until it is over.")] = False,
    content_type: Annotated[str, typer.Option(help="ContentType of the input.")] = "text/csv",
    split: Annotated[str, typer.Option(help="SplitType: None, Line, RecordIO or TFRecord.")] = "Line",
    strategy: Annotated[str, typer.Option(help="BatchStrategy: MultiRecord or SingleRecord. [the model's]")] = "",
    join: Annotated[bool, typer.Option("--join", help="Write each record with its prediction.")] = False,
    gzip: Annotated[bool, typer.Option("--gzip", help="The input is compressed by gzip.")] = False,
    instance_type: Annotated[str, typer.Option(help="InstanceType.")] = "ml.m5.large",
    instances: Annotated[int, typer.Option(help="InstanceCount.")] = 1,
    bad_records: Annotated[str, typer.Option(help="How many records may be bad: a number, or all. [none]")] = "",
    name: Annotated[str, typer.Option(help="Name of the new job. [made of the model's]")] = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Start a batch transform job, or follow one that there is."""
    from eyrie.cli import transform as command

    if len(what) not in (1, 3):
        raise CommandError("name a job, or a model, an input and an output", code=2)
    directory = _settings(data).data
    if len(what) == 1:
        command.follow(directory, what[0], as_json)
        return
    wish = command.Wish(
        model=what[0],
        input=what[1],
        output=what[2],
        content_type=content_type,
        split=split,
        strategy=strategy,
        join=join,
        gzip=gzip,
        instance_type=instance_type,
        instances=instances,
        bad_records=bad_records,
        name=name,
    )
    command.run(directory, wish, follow, as_json)


@app.command()
def recommend(
    model: Annotated[str, typer.Argument(help="Name of the model (CreateModel).")],
    payload: Annotated[str, typer.Option(help="A request's body: a file, or a folder of them.")],
    minutes: Annotated[float, typer.Option(help="How long it may take in all.")] = 5.0,
    each_line: Annotated[bool, typer.Option("--each-line", help="Each line of the file is a body.")] = False,
    content_type: Annotated[str | None, typer.Option(help="[told by the file]")] = None,
    instance_type: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="An instance type to test. [usual ones]")
    ] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=A,B", help="Values of a variable to test.")
    ] = None,
    latency: Annotated[int | None, typer.Option("--p95", metavar="MS", help="The latency that is to be kept.")] = None,
    rps: Annotated[float | None, typer.Option(help="Requests a second that are expected at the most.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job. [made of the model's]")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Deploy, load and measure ways to host a model, and propose one: type, settings, instances, scaling."""
    from eyrie.cli import recommend as command

    command.run(
        _settings(data).data,
        command.Asked(
            model=model,
            payload=payload,
            each_line=each_line,
            content_type=content_type,
            minutes=minutes,
            types=instance_type or [],
            environment=environment or [],
            latency=latency,
            rps=rps,
            name=name,
            as_json=as_json,
        ),
    )


@app.command()
def doctor(data: Data = None, as_json: AsJson = False) -> None:
    """Say what isolation, limits and extras this machine offers."""
    from eyrie.cli import doctor as command

    command.run(_settings(data), as_json)


@keys.command("create")
def key_create(
    endpoint: Annotated[
        list[str] | None, typer.Option("--endpoint", metavar="NAME", help="An endpoint that it opens. [every one]")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="SPAN|DATE", help="Its end: 12h, 90d, or 2027-01-31 (UTC). [never]")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Region of the endpoints. [that of `eyrie env`]")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key for /v2 and print it: `Authorization: Bearer KEY`. It is shown this once."""
    from eyrie.cli import data as datadir
    from eyrie.cli import key as command

    settings = datadir.running_settings(_settings(data))
    command.create(settings.data, region or settings.region, endpoint or [], expires, as_json)


@keys.command("list")
def key_list(data: Data = None, as_json: AsJson = False) -> None:
    """Show the API keys: ids, endpoints, and when they end."""
    from eyrie.cli import key as command

    command.show(_settings(data).data, as_json)


@keys.command("revoke")
def key_revoke(
    key: Annotated[str, typer.Argument(help="Id of the key, or the key itself.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Revoke an API key: within a second it opens nothing any more."""
    from eyrie.cli import key as command

    command.revoke(_settings(data).data, key, as_json)


capture = typer.Typer(help="Captured requests and replies.", no_args_is_help=True)
app.add_typer(capture, name="capture")


@capture.command("cat")
def capture_cat(
    source: Annotated[
        list[str],
        typer.Argument(metavar="s3://BUCKET/PREFIX|FILE...", help="Objects by key or prefix, or downloaded files."),
    ],
    data: Data = None,
) -> None:
    """Print captured records, a line of JSON each, decrypted where a KmsKeyId encrypted them."""
    from eyrie.cli import capture as command
    from eyrie.cli import data as datadir

    command.cat(datadir.running_settings(_settings(data)), source)


image = typer.Typer(help="Containers of your own: the images that models may name.", no_args_is_help=True)
app.add_typer(image, name="image")


@image.command("add")
def image_add(
    name: Annotated[
        str,
        typer.Argument(help="NAME[:TAG], or the whole 123456789012.dkr.ecr.REGION.amazonaws.com/NAME:TAG."),
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH|IMAGE",
            help="A directory with a root file system, a virtual environment or folder with a `serve` program; or an "
            "image that the container engine of EYRIE_COMPUTE holds.",
        ),
    ],
    entrypoint: Annotated[
        str | None, typer.Option(metavar="WORDS", help="What stands before `serve`, where no program is called so.")
    ] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable of the image's own.")
    ] = None,
    workdir: Annotated[str | None, typer.Option(metavar="DIR", help="Folder in the image to start in.")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Take in an image of your own under a name; what it is now is kept, whatever becomes of PATH."""
    from eyrie.cli import image as command

    command.add(
        _settings(data),
        name,
        source,
        entrypoint=entrypoint or "",
        environment=environment or [],
        workdir=workdir or "",
        as_json=as_json,
    )


@image.command("list")
def image_list(data: Data = None, as_json: AsJson = False) -> None:
    """Show the images of your own."""
    from eyrie.cli import image as command

    command.list_all(_settings(data).data, as_json)


@image.command("remove")
def image_remove(
    name: Annotated[str, typer.Argument(help="As it was added, or NAME@sha256:DIGEST.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Forget a name. Endpoints that run the image go on, and heal from it."""
    from eyrie.cli import image as command

    command.remove(_settings(data).data, name, as_json)


deployments = typer.Typer(
    help="The deployment of an endpoint: plan, watch, promote, abort, pause.", no_args_is_help=True
)
app.add_typer(deployments, name="deployment")
Endpoint = Annotated[str, typer.Argument(help="Name of the endpoint.")]
Why = Annotated[str, typer.Option("--why", metavar="WORDS", help="Your reason, for the story.")]


@deployments.command("plan")
def deployment_plan(
    endpoint: Endpoint,
    config: Annotated[str, typer.Argument(help="Name of the EndpointConfig that would be deployed.")],
    deployment_config: Annotated[
        str | None,
        typer.Option("--deployment-config", metavar="JSON|file://FILE", help="As UpdateEndpoint has it. [all at once]"),
    ] = None,
    retain: Annotated[
        bool, typer.Option("--retain-deployment-config", help="That of the last deployment, as UpdateEndpoint has it.")
    ] = False,
    retain_all: Annotated[
        bool, typer.Option("--retain-all-variant-properties", help="Counts and weights as they are now.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Print what UpdateEndpoint would do, step by step: shares, instances, time, the capacity at the peak."""
    from eyrie.cli import deployment as command

    command.plan(_settings(data).data, endpoint, config, deployment_config, retain, retain_all, as_json)


@deployments.command("show")
def deployment_show(endpoint: Endpoint, data: Data = None, as_json: AsJson = False) -> None:
    """Show the deployment that is on its way, with the verdict of its analysis as it is now."""
    from eyrie.cli import deployment as command

    command.show_now(_settings(data).data, endpoint, as_json)


@deployments.command("promote")
def deployment_promote(endpoint: Endpoint, why: Why = "", data: Data = None, as_json: AsJson = False) -> None:
    """Let the present step pass, whatever its analysis says; or let a paused deployment go on."""
    from eyrie.cli import deployment as command

    command.steer(_settings(data).data, endpoint, "promote", why, as_json)


@deployments.command("abort")
def deployment_abort(endpoint: Endpoint, why: Why = "", data: Data = None, as_json: AsJson = False) -> None:
    """Roll it back."""
    from eyrie.cli import deployment as command

    command.steer(_settings(data).data, endpoint, "abort", why, as_json)


@deployments.command("pause")
def deployment_pause(endpoint: Endpoint, why: Why = "", data: Data = None, as_json: AsJson = False) -> None:
    """Stop it where it stands: green gets no more traffic than it has, until somebody decides."""
    from eyrie.cli import deployment as command

    command.steer(_settings(data).data, endpoint, "pause", why, as_json)


@app.command()
def simulate(
    traffic: Annotated[
        str,
        typer.Option(
            metavar="TRACE",
            help="FILE.csv, recorded[:24h] of the endpoint, or a shape: constant:RATE, poisson:RATE, "
            "diurnal:low=,high=, flash:base=,peak=, onoff:high=,low=; each takes duration=.",
        ),
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="policy.json; or hpa, kpa, fixed:N to compare with. Repeatable."),
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="A running endpoint: its instances are simulated.")] = None,
    variant: Annotated[str | None, typer.Option(help="Which variant of it. [the first]")] = None,
    profile: Annotated[
        str | None,
        typer.Option(metavar="FILE|A=1,B=2", help="Instances: service_ms, slots, startup_s ... as JSON or in place."),
    ] = None,
    objective: Annotated[str, typer.Option(metavar="p99=MS", help="What is to be kept.")] = "p99=500ms",
    minimum: Annotated[int | None, typer.Option("--min", min=1, help="Fewest instances. [the policy's, or 1]")] = None,
    maximum: Annotated[int | None, typer.Option("--max", min=1, help="Most instances. [the policy's, or 20]")] = None,
    seed: Annotated[int, typer.Option(help="Of all chance: the same seed gives the same run.")] = 1,
    faults: Annotated[
        str | None, typer.Option(metavar="kill@600,hang@900:60", help="What goes wrong: KIND@SECOND[:SECONDS].")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with drawings and every action.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw capacity, demand and latency (needs the extra `sim`).")] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Search the cheapest policy that keeps the objective.")] = False,
    kind: Annotated[str, typer.Option(help="What --tune searches: fast (eyrie:Fast) or aws.")] = "fast",
    trials: Annotated[int, typer.Option(min=1, max=500, help="Candidates that --tune tries.")] = 40,
    rollout: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A deployment instead of a scaling policy: DeploymentConfig and more."),
    ] = None,
    green: Annotated[
        str, typer.Option(metavar="latency=1.2,errors=0.05,shift=0.1", help="How --rollout's new fleet differs.")
    ] = "",
    replays: Annotated[int, typer.Option("--runs", help="How often --rollout is run, each with another seed.")] = 1,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Try scaling policies, or a deployment, in virtual time: capacity, latency, cost and reasons, side by side."""
    from eyrie.cli import simulate as command

    command.run(
        command.Asked(
            data=_settings(data).data,
            endpoint=endpoint,
            variant=variant,
            policies=policy or [],
            traffic=traffic,
            profile=profile,
            objective=objective,
            minimum=minimum,
            maximum=maximum,
            seed=seed,
            faults=faults,
            png=png,
            page=html,
            tune=kind if tune else None,
            trials=trials,
            rollout=rollout,
            green=green,
            runs=replays,
            as_json=as_json,
        )
    )


endpoint_commands.add_to(app)
account_commands.add_to(app)


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version."""
    if as_json:
        print_document({"version": __version__})
    else:
        print(f"eyrie {__version__}")


examples.show(app)


def main() -> None:
    """The entry point: a CommandError, or a file that cannot be used, becomes one line and an exit code."""
    printing.tolerate(sys.stdout)
    try:
        with printing.flushed():
            app()
    except CommandError as error:
        print(f"eyrie: {error}", file=sys.stderr)
        sys.exit(error.code)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        printing.give_up()
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in printing.NO_ROOM:  # nobody foresaw it
            raise
        if error.filename is None:
            printing.give_up()
            sys.exit(f"eyrie: cannot write: {error.strerror}")
        print(f"eyrie: cannot use {os.fsdecode(error.filename)}: {error.strerror}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
