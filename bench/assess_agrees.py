"""Whether `eyrie assess` tells what independent tools tell: wrk, and a plain kill -9, on the demo's endpoint.

    python bench/assess_agrees.py [--rounds 9] [--seconds 3]

In turn, each first every other time, so that whatever else the machine does meets both: the users that assess loads
with, and wrk with as many connections; a kill by assess' own fault and watch, the same kill as the route table's file
tells it, and a kill of our own, timed by that file alone. A ratio is the median of the rounds', or one over it where
that is below 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))  # the demo's models

import measure
import world
from demo import processes_of
from demo_models import build_models
from eyrie.cli.assess_load import USERS, Sender
from eyrie.cli.chaos import injected, until_whole
from eyrie.cli.chaos_faults import whole
from eyrie.cli.chaos_place import Place
from eyrie.cli.progress import Progress
from eyrie.cli.public import Public
from eyrie.domain.assessment import Steady
from eyrie.settings import Settings
from frame import Ratio, arguments, finish, machine, versions

ENDPOINT = "breast-cancer"
WITHIN_S = 120.0
LOOK_S = 0.01
CALM_S = 2.0


def main() -> int:
    """Deploy, measure in turn, compare."""
    chosen = arguments(__doc__, rounds=9, seconds=3.0).parse_args()
    print(f"{machine()}; {versions('xgboost-cpu', 'scikit-learn')}", flush=True)
    with world.eyrie() as eyrie:
        row = deployed(eyrie)
        return finish(compared(eyrie, row, chosen.rounds, chosen.seconds), chosen.report)


def compared(eyrie: world.Eyrie, row: str, count: int, seconds: float) -> list[Ratio]:
    """Both sides in turn, so often."""
    sender = Sender(Public.of(eyrie.data), ENDPOINT, [row.encode()], "text/csv", (), Progress(quiet=True))
    loads = [loaded(sender, eyrie, row, seconds, number) for number in range(count)]
    kills = killed(eyrie, row, count)
    ours, same, plain = zip(*kills, strict=True)
    return [
        ratio("assess against wrk, requests/s", [ours.achieved_rps for ours, _ in loads], [w.rate for _, w in loads]),
        ratio("assess against wrk, p50", [ours.p50_ms or 0.0 for ours, _ in loads], [w.p50_ms for _, w in loads]),
        ratio("assess against the route table of the same kills, seconds until whole", ours, same),
        ratio("assess against a plain kill -9, seconds until whole", ours, plain),
    ]


def loaded(
    sender: Sender, eyrie: world.Eyrie, row: str, seconds: float, number: int
) -> tuple[Steady, measure.Load]:
    """The same users by assess and by wrk; each of them first every other time."""
    if number % 2:
        plain = wrk(eyrie, row, seconds, USERS)
        return sender.users(USERS, seconds + 1, "users"), plain
    return sender.users(USERS, seconds + 1, "users"), wrk(eyrie, row, seconds, USERS)


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The median of the rounds' ratios, as a number above 1: which of them is the larger does not matter."""
    middle = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    one, other = statistics.median(ours), statistics.median(theirs)
    each = ", ".join(f"{a:.4g} and {b:.4g}" for a, b in zip(ours, theirs, strict=True))
    return Ratio(name, max(middle, 1 / middle), 1.2, at_most=True, detail=f"{one:.4g} and {other:.4g}: {each}")


def wrk(eyrie: world.Eyrie, row: str, seconds: float, connections: int) -> measure.Load:
    """wrk, its request signed anew: a signature is good for five minutes."""
    requests = measure.signed_requests(eyrie.port, ENDPOINT, [row.encode()], eyrie.signer)
    script = measure.wrk_script(eyrie.data / f"assess-{connections}.lua", requests)
    return measure.wrk(eyrie.port, script, seconds, connections, None)


def deployed(eyrie: world.Eyrie) -> str:
    """The demo's endpoint: two variants, two instances each. A row of its test data."""
    folder = eyrie.data / "demo"
    folder.mkdir()
    models, rows, _ = build_models(folder)
    sagemaker = eyrie.client("sagemaker")
    for model in models:
        url = eyrie.upload(model.archive, f"{model.name}.tar.gz")
        container = {"Image": model.image, "ModelDataUrl": url}
        sagemaker.create_model(ModelName=model.name, PrimaryContainer=container, ExecutionRoleArn=world.ROLE)
    variants = [
        {
            "VariantName": model.name,
            "ModelName": model.name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 2,
            "InitialVariantWeight": 1.0,
        }
        for model in models
    ]
    sagemaker.create_endpoint_config(EndpointConfigName=ENDPOINT, ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=ENDPOINT, WaiterConfig=world.IN_SERVICE)
    return str(rows[0])


def killed(eyrie: world.Eyrie, row: str, count: int) -> list[tuple[float, float, float]]:
    """Seconds until all is whole, of kills in turn, under wrk: as assess sees one, as the route table tells of the very
    same one, and of another that assess knows nothing of.
    """
    over = threading.Event()
    load = threading.Thread(target=keep_loading, args=(eyrie, row, over))
    load.start()
    try:
        return [in_turn(eyrie, number) for number in range(count)]
    finally:
        over.set()
        load.join()


def in_turn(eyrie: world.Eyrie, number: int) -> tuple[float, float, float]:
    """One kill of each side, each of them first every other time."""
    if number % 2:
        plain = one_kill(eyrie)
        return (*assess_kill(eyrie), plain)
    return (*assess_kill(eyrie), one_kill(eyrie))


def keep_loading(eyrie: world.Eyrie, row: str, over: threading.Event) -> None:
    """wrk with one connection, again and again."""
    while not over.is_set():
        wrk(eyrie, row, 2.0, 1)


def calm(eyrie: world.Eyrie) -> Place:
    """Once all is whole and every slot that is kept warm is: a kill that meets none costs seconds more."""
    place = Place(eyrie.data, eyrie.signer.region, ENDPOINT)
    deadline = time.monotonic() + WITHIN_S
    while not whole(place) or place.warm() < Settings().warm_slots:
        if time.monotonic() > deadline:
            raise SystemExit(f"not calm within {WITHIN_S:g} s")
        time.sleep(0.2)
    time.sleep(CALM_S)
    return place


def assess_kill(eyrie: world.Eyrie) -> tuple[float, float]:
    """The fault `kill-instance` of assess and chaos, and their watch; and the file of the same kill."""
    place = calm(eyrie)
    before = targets(eyrie)
    found: list[float] = []
    fault = injected(place, "kill-instance", 1.0, 0.8, "")
    began = time.monotonic()
    victim = next(name for name in before if name in fault.what)
    beside = threading.Thread(target=lambda: found.append(until_routed(eyrie, victim, len(before), began)))
    beside.start()
    _, whole_s = until_whole(place, fault, WITHIN_S, began)
    beside.join()
    if whole_s is None or not found:
        raise SystemExit(f"not whole within {WITHIN_S:g} s")
    return whole_s, found[0]


def one_kill(eyrie: world.Eyrie) -> float:
    """Kill an instance, process by process, and watch the file."""
    calm(eyrie)
    before = targets(eyrie)
    told = eyrie.run("status", "--json")
    instances = [i for e in json.loads(told)["endpoints"] for i in e["instances"] if i["routed"]]
    victim = instances[0]
    for pid in reversed(processes_of(int(victim["pid"]))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return until_routed(eyrie, str(victim["id"]), len(before), time.monotonic())


def until_routed(eyrie: world.Eyrie, victim: str, count: int, began: float) -> float:
    """Seconds until the route table has as many targets without the victim."""
    while victim in (now := targets(eyrie)) or len(now) < count:
        if time.monotonic() - began > WITHIN_S:
            raise SystemExit(f"not whole within {WITHIN_S:g} s")
        time.sleep(LOOK_S)
    return time.monotonic() - began


def targets(eyrie: world.Eyrie) -> set[str]:
    """The instances in the route table's file."""
    return set(_targets(eyrie.data))


def _targets(data: Path) -> Iterator[str]:
    path = next(path for path in (data / "routes").glob("*.json") if path.stem.endswith(f".{ENDPOINT}"))
    for variant in json.loads(path.read_bytes())["variants"]:
        for target in variant["targets"]:
            yield str(target["instance_id"])


if __name__ == "__main__":
    sys.exit(main())
