"""A public experiment of 2019, played again on Eyrie: two burstable instances under a load that one could not bear, CPU
credits that run out, an instance that is lost, its replacement; then the same with a scaling policy that avoids it.

    .venv/bin/python examples/endpoint_experiment/run.py --factor 60

Two hours take 120 s at factor 60: Eyrie's clock, and with it credits, alarms, scaling and metrics, runs so many times
as fast. Requests are not sped up: a second of load is a real one. It starts an Eyrie of its own and leaves nothing
behind but a page of graphs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import graphs
import model
import questions
from findings import Run, table
from footprint import footprint
from own_eyrie import BASELINE, CREDITS_A_VCPU, INSTANCES, TYPE, VCPU, OwnEyrie, running
from questions import MINUTE_MS, Window

from eyrie.cli.chaos import until_whole
from eyrie.cli.chaos_faults import kill_instance
from eyrie.cli.chaos_place import Place

ROLE = "arn:aws:iam::123456789012:role/experiment"
VARIANT = "AllTraffic"
INSTANCES_MAX = 16
MEASURED_S = 5.0  # of load, to know what a request costs
USERS = 4  # of it
REQUEST_S = 5.0  # after which the load gives a request up
OF_BASELINE = 0.85  # of what the baseline bears, what the policy lets an instance have
UTILISATION = 0.9  # of both instances, at the height of the load; published: all of them
PUBLISHED_RPS = 125.0  # an instance, in the middle of what the account tells, at all of its CPU
LOSS_AFTER_MINUTES = 8.0  # without credits
RECENT_MINUTES = 15.0  # a busy host tells its metrics some seconds late
LOSS_AT_LATEST = 0.8  # of the load's time
SERVED_WELL = 0.9  # of the requests before the credits are spent; below it the host has no room for the load
LOOK_S = 0.25
WHOLE_WITHIN_S = 120.0
ENDED_WITHIN_S = 60.0
FACTOR_MAX = 120  # beyond it the longest start-up time that an endpoint may have is less than 30 real seconds


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    factor: float
    minutes: float
    ramp_minutes: float
    html: Path
    policy: bool
    credits: float  # CPU credits a vCPU that an instance begins with
    work_ms: float | None  # of CPU, that the model spends on a request; None: by what is measured


def main() -> int:
    """Play it once as it was, once with a policy; print what was found beside what was published. The exit code."""
    asked = arguments()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="eyrie-experiment-model-") as folder,
        running(asked.factor, asked.credits) as eyrie,
    ):
        say(
            f"Eyrie runs, {asked.factor:g} times as fast; {eyrie.free:.1f} of this host's {os.cpu_count()} cores "
            f"are free; an {TYPE} is {VCPU} vCPU, each {eyrie.share:.2f} of a core, with {asked.credits:g} credits"
        )
        made = model.make(Path(folder))
        upload(made)
        plain, cost = calibrated(eyrie, asked, made.rows, say)
        rate = UTILISATION * cost.most
        say(f"at {rate:,.0f} requests/s both instances use {100 * UTILISATION:.0f} % of their CPU: the load's height")
        runs = [
            play(eyrie, asked, made.rows, Run("two instances", **terms(eyrie, asked, rate, plain, cost)), None, say)
        ]
        if asked.policy:
            sustained = OF_BASELINE * BASELINE * eyrie.cores / cost.cpu_s
            say(
                f"the baseline bears {sustained / OF_BASELINE:,.0f} requests/s an instance: "
                f"the policy tracks {sustained:,.0f}"
            )
            second = Run("with a policy", **terms(eyrie, asked, rate, plain, cost), lost_minute=runs[0].lost_minute)
            runs.append(play(eyrie, asked, made.rows, second, sustained, say))
    told = table(runs)
    asked.html.write_text(graphs.page("The endpoint experiment", told, drawn(runs)))
    print(f"\n{told}\n\ngraphs: {asked.html}")
    return conclude(runs)


def arguments() -> Asked:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--factor", type=float, default=60.0, help="how many times as fast time passes [60]")
    parser.add_argument("--minutes", type=float, default=120.0, help="of load, compressed [120]")
    parser.add_argument("--ramp", type=float, default=15.0, help="minutes of them in which the load grows [15]")
    parser.add_argument("--work", type=float, help="ms of CPU that the model spends on a request [by what is measured]")
    parser.add_argument("--credits", type=float, default=CREDITS_A_VCPU, help="CPU credits a vCPU, at the start [30]")
    parser.add_argument("--html", type=Path, default=Path("endpoint-experiment.html"), help="the page of graphs")
    parser.add_argument("--no-policy", action="store_true", help="only as it was, without the second play")
    given = parser.parse_args()
    if not 1 <= given.factor <= FACTOR_MAX or not 0 < given.ramp < given.minutes <= 1440:
        parser.error(f"--factor lies between 1 and {FACTOR_MAX}, and 0 < --ramp < --minutes <= 1440")
    if given.minutes * 60 / given.factor < 20:
        parser.error("that leaves less than 20 s of real load, too little to measure anything: a smaller --factor")
    if not 0 < given.credits <= 1440:
        parser.error("--credits is more than 0, and at most 1440")
    return Asked(given.factor, given.minutes, given.ramp, given.html, not given.no_policy, given.credits, given.work)


def terms(eyrie: OwnEyrie, asked: Asked, rate: float, plain: Cost, cost: Cost) -> dict[str, Any]:
    """What both plays have in common."""
    common = {"factor": asked.factor, "cores": eyrie.cores, "rate": rate, "cost_s": cost.cpu_s, "plain_s": plain.cpu_s}
    return {**common, "ramp_minutes": asked.ramp_minutes, "minutes": asked.minutes}


# ------------------------------------------------------------------------------------------------- model and endpoint
def upload(made: model.Made) -> None:
    """The archive to S3."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="experiment")
    s3.upload_file(str(made.archive), "experiment", "model.tar.gz")


def create_model(name: str, work_ms: float) -> None:
    """A model that spends so much CPU on a request, milliseconds; 0: what one prediction takes."""
    environment = {"EXPERIMENT_WORK_MS": f"{work_ms:.3f}"}
    container = {"Image": "eyrie/xgboost", "ModelDataUrl": "s3://experiment/model.tar.gz", "Environment": environment}
    boto3.client("sagemaker").create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)


def create(endpoint: str, instances: int, of: str = "worked") -> None:
    """An endpoint on so many burstable instances; returns when it is InService."""
    sagemaker = boto3.client("sagemaker")
    variant = {
        "VariantName": VARIANT,
        "ModelName": of,
        "InstanceType": TYPE,
        "InitialInstanceCount": instances,
        "ContainerStartupHealthCheckTimeoutInSeconds": 3600,  # of Eyrie's time, which is compressed
    }
    sagemaker.create_endpoint_config(EndpointConfigName=endpoint, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
    wait = {"Delay": 1, "MaxAttempts": 120}
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=endpoint, WaiterConfig=wait)


def delete(endpoint: str) -> None:
    """The endpoint's end; returns when it is gone."""
    sagemaker = boto3.client("sagemaker")
    sagemaker.delete_endpoint(EndpointName=endpoint)
    wait = {"Delay": 1, "MaxAttempts": 120}
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=endpoint, WaiterConfig=wait)
    sagemaker.delete_endpoint_config(EndpointConfigName=endpoint)


def scale_by_requests(endpoint: str, per_minute: float) -> None:
    """Two instances or more, so many that each gets at most this: what it can do for ever, on its baseline.

    CPUUtilization would be the wrong metric here: an instance without credits uses little CPU, and is scaled in.
    """
    scaling = boto3.client("application-autoscaling")
    which: dict[str, Any] = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**which, MinCapacity=INSTANCES, MaxCapacity=INSTANCES_MAX)
    tracked = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    scaling.put_scaling_policy(
        **which,
        PolicyName="within-the-baseline",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": per_minute,
            "PredefinedMetricSpecification": tracked,
            "ScaleOutCooldown": 60,
            "ScaleInCooldown": 600,
        },
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a model's requests, on one instance that was given as many as it took."""

    cpu_s: float  # of a core, one request
    seen_rps: float  # answered
    cores: float  # what an instance may use

    @property
    def most(self) -> float:
        """Requests a second that all instances together bear by their CPU."""
        return INSTANCES * self.cores / self.cpu_s


def calibrated(eyrie: OwnEyrie, asked: Asked, rows: Path, say: Any) -> tuple[Cost, Cost]:
    """What a plain request costs here, and what it costs with as much work as lets an instance of this host bear the
    published requests a second, unless the command line says how much.
    """
    create_model("plain", 0.0)
    plain = cost_of_a_request(eyrie, "plain", rows)
    say(
        f"a request costs {1000 * plain.cpu_s:.2f} ms of a core: an instance bears {plain.most / INSTANCES:,.0f} "
        f"requests/s, where the published one bore {PUBLISHED_RPS:g}"
    )
    wanted_s = eyrie.cores / PUBLISHED_RPS
    work_ms = 1000 * max(0.0, wanted_s - plain.cpu_s / 2) if asked.work_ms is None else asked.work_ms
    create_model("worked", work_ms)
    cost = cost_of_a_request(eyrie, "worked", rows)
    say(
        f"with {work_ms:.1f} ms of work a request costs {1000 * cost.cpu_s:.2f} ms of a core: an instance bears "
        f"{cost.most / INSTANCES:,.0f} requests/s by its CPU, and answered {cost.seen_rps:,.0f}"
    )
    return plain, cost


def cost_of_a_request(eyrie: OwnEyrie, model_name: str, rows: Path) -> Cost:
    """Credits spent by one instance under a short load, by requests answered."""
    endpoint = f"measured-{model_name}"
    create(endpoint, 1, model_name)
    begin_ms = eyrie.clock.now_ms()
    command = eyrie.command("load", endpoint, "--users", str(USERS), "--duration", f"{MEASURED_S:g}s", "--json")
    done = subprocess.run([*command, "--data", str(rows), "--each-line"], capture_output=True, text=True, check=True)
    answered = int(json.loads(done.stdout)["answered"])
    window = Window(begin_ms, eyrie.clock.now_ms() + MINUTE_MS)
    of = {"EndpointName": endpoint, "VariantName": VARIANT}
    used = questions.metric("/aws/sagemaker/Endpoints", "CPUCreditUsage", "Sum", window, **of)
    delete(endpoint)
    credits = sum(value for _, value in used)
    if not answered or not credits:
        raise SystemExit(f"{answered} requests were answered, for {credits:g} credits: nothing can be told from that")
    return Cost(credits * 60 / eyrie.factor / answered, answered / MEASURED_S, eyrie.cores)


# ------------------------------------------------------------------------------------------------------------ one play
def play(eyrie: OwnEyrie, asked: Asked, rows: Path, run: Run, sustained: float | None, say: Any) -> Run:
    """Ramp, sustained load, the loss of an instance; `sustained`: requests/s an instance that the policy tracks."""
    endpoint = "two" if sustained is None else "scaled"
    create(endpoint, INSTANCES)
    if sustained is not None:
        scale_by_requests(endpoint, sustained * 60 / eyrie.factor)
    place = Place(eyrie.data, boto3.session.Session().region_name or "us-east-1", endpoint)
    begin_ms = eyrie.clock.now_ms()
    load = start_load(eyrie, asked, endpoint, rows, run.rate)
    try:
        watch(eyrie, place, run, load, say)
        told = json.loads(load.communicate(timeout=ENDED_WITHIN_S)[0])
    finally:
        load.kill()
        load.wait()
    gather(run, endpoint, told, Window(begin_ms, eyrie.clock.now_ms()))
    delete(endpoint)
    return run


def start_load(eyrie: OwnEyrie, asked: Asked, endpoint: str, rows: Path, rate: float) -> subprocess.Popen[str]:
    """`eyrie load` along a line of rates: up for the ramp, then level."""
    seconds = 60 / eyrie.factor
    trace = rows.with_name("trace.csv")
    corners = [(0, 0.05 * rate), (asked.ramp_minutes * seconds, rate), (asked.minutes * seconds, rate)]
    trace.write_text("".join(f"{at:g},{high:g}\n" for at, high in corners))
    command = eyrie.command("load", endpoint, "--trace", str(trace), "--data", str(rows), "--each-line", "--json")
    command += ["--timeout", f"{REQUEST_S:g}", "--processes", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def watch(eyrie: OwnEyrie, place: Place, run: Run, load: subprocess.Popen[str], say: Any) -> None:
    """Look until the load is over; note when credits are spent, and break an instance when it is time."""
    window_ms = eyrie.clock.now_ms()  # the load itself begins a moment later
    broken = False
    while load.poll() is None:
        time.sleep(LOOK_S)
        now_ms = eyrie.clock.now_ms()
        minute = (now_ms - window_ms) / MINUTE_MS
        found = place.instances() or []
        run.instances.append(sum(instance.serving for instance in found))
        if run.footprint is None and found and found[0].pid:
            run.footprint = footprint(found[0].pid)
        if minute > run.minutes:
            load.wait(ENDED_WITHIN_S + run.minutes * 60 / eyrie.factor)
            return
        note_credits(run, place.endpoint, Window(window_ms, now_ms), minute, say)
        if not broken and minute >= loss_minute(run):
            broken = True
            run.lost_minute = minute
            run.lost_s = lose_one(place, say)


def note_credits(run: Run, endpoint: str, window: Window, minute: float, say: Any) -> None:
    """The first minute in which an instance has less left than lets it go on at full speed for half of one."""
    if run.spent_minute is not None:
        return
    recent = Window(window.end_ms - RECENT_MINUTES * MINUTE_MS, window.end_ms)
    if run.spent_in(questions.lowest_credits(endpoint, recent)) is not None:
        run.spent_minute = minute
        say(f"{run.name}: after {minute:.0f} minutes an instance has spent its CPU credits")


def loss_minute(run: Run) -> float:
    """When an instance is lost: some minutes after the first had no credits left, and before the end in any case."""
    latest = run.lost_minute if run.lost_minute is not None else LOSS_AT_LATEST * run.minutes
    return latest if run.spent_minute is None else min(latest, run.spent_minute + LOSS_AFTER_MINUTES)


def lose_one(place: Place, say: Any) -> float | None:
    """kill -9 of an instance; real seconds until as many serve again as are wanted, without it."""
    fault = kill_instance(place)
    _, took_s = until_whole(place, fault, WHOLE_WITHIN_S, time.monotonic())
    if took_s is None:
        say(f"{fault.what}: not whole again within {WHOLE_WITHIN_S:g} s")
    else:
        say(f"{fault.what}: all whole again after {took_s:.2f} s")
    return took_s


def gather(run: Run, endpoint: str, told: dict[str, Any], window: Window) -> None:
    """Everything that was seen: by the load, by CloudWatch, by one query over the logs."""
    of = {"EndpointName": endpoint, "VariantName": VARIANT}
    whole = questions.metric("AWS/SageMaker", "Invocations", "Sum", window, **of)
    began = whole[0][0] if whole else 0.0  # minutes from creation until the load itself
    window = Window(window.begin_ms + began * MINUTE_MS, window.end_ms)
    run.requests, run.answered = told["requests"], told["answered"]
    run.errors, run.p99_ms = told["errors"], told["response_ms"]["p99"]
    run.second = [(row["second"] * run.factor / 60, row["intended"], row["answered"]) for row in told["timeline"]]
    run.invocations = [(minute - began, count) for minute, count in whole]
    run.cpu = questions.total_cpu(endpoint, window)
    run.credits = questions.lowest_credits(endpoint, window)
    if run.spent_minute is None:  # what was told too late to be seen while the load went on
        run.spent_minute = run.spent_in(run.credits)
    run.by_instance = questions.by_instance(endpoint, window)


# ------------------------------------------------------------------------------------------------------- what is shown
def drawn(runs: list[Run]) -> list[graphs.Graph]:
    """The metrics graphs of every play."""
    found = []
    for run in runs:
        real = 60 / run.factor  # seconds of requests that a minute of metrics holds
        rates = {name: [(minute, count / real) for minute, count in each] for name, each in run.by_instance.items()}
        of = {"lost": run.lost_minute}
        found += [
            graphs.Graph(f"{run.name}: CPUUtilization, sum", "percent of a core", {"all instances": run.cpu}, **of),
            graphs.Graph(f"{run.name}: Invocations", "a compressed minute", {"endpoint": run.invocations}, **of),
            graphs.Graph(f"{run.name}: requests by instance (the log query)", "requests/s", rates, **of),
            graphs.Graph(f"{run.name}: CPUCreditBalance, lowest", "credits", {"of any instance": run.credits}, **of),
        ]
    return found


def conclude(runs: list[Run]) -> int:
    """What must have happened; the exit code."""
    broken = [f"{run.name}: the lost instance was not replaced" for run in runs if run.lost_s is None]
    if runs[0].spent_minute is None:
        broken.append(f"two instances: the CPU credits were never spent{too_busy(runs[0])}")
    if len(runs) > 1 and runs[1].spent_minute is not None:
        broken.append("with a policy: the CPU credits were spent all the same")
    for promise in broken:
        print(f"BROKEN: {promise}")
    return 1 if broken else 0


def too_busy(run: Run) -> str:
    """Why, where it shows: the instances got less CPU than the load asked of them."""
    served, cpu = run.served(*run.full_minutes), run.between(run.cpu, *run.full_minutes)
    if served is None or cpu is None or served > SERVED_WELL:
        return ""
    used = cpu / 100 / INSTANCES / run.cores
    return (
        f": with {100 * served:.0f} % of the requests answered, they used {100 * used:.0f} % of their CPU where "
        f"{100 * UTILISATION:.0f} % were asked of them. This host is busy with other things: repeat it when it is quiet"
    )


if __name__ == "__main__":
    sys.exit(main())
