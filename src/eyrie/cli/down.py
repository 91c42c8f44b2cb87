"""`eyrie down`: end the supervisor, which ends everything in order; where it was killed, end what it left behind."""

from __future__ import annotations

from eyrie.adapters import process_lock
from eyrie.adapters.process_lock import Running
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.parts import living
from eyrie.settings import Settings

_MARGIN_S = 45.0  # of the supervisor beyond its drain limit: control, instances, objects


def run(settings: Settings, as_json: bool) -> None:
    """Stop everything under the data directory; what was deployed comes back at the next `eyrie up`. Says so."""
    data = settings.data
    if not (data / "version").exists():
        raise CommandError(f"no Eyrie has run with the data directory {data}")
    drain_s = settings.drain_ms / 1000
    with process_lock.running(data / "eyrie.lock") as supervisor:
        if supervisor is not None:
            supervisor.end(drain_s + _MARGIN_S)
    left = living(data)
    end_parts(left, drain_s)
    end_instances(settings)
    stopped = supervisor is not None or bool(left)
    if as_json:
        print_document({"stopped": stopped, "data": str(data)})
    elif stopped:
        print(f"stopped; what was deployed comes back with the next `eyrie up` (data {data})")
    else:
        print(f"nothing ran with the data directory {data}")


def end_parts(parts: list[Running], drain_s: float) -> None:
    """End processes that have no supervisor any more: gateways first, objects last."""
    order = {"gateway": 0, "dispatch": 1, "control": 2, "objects": 3}
    for part in sorted(parts, key=lambda p: order.get(p.name.partition("-")[0], 4)):
        part.end(drain_s if part.name.startswith("gateway-") else 10.0)
        part.close()


def end_instances(settings: Settings) -> None:
    """End every instance, warm slot and job of this data directory, by whatever compute runs them."""
    from eyrie.adapters import compute_process, job_runs

    compute_process.end_all(settings)
    job_runs.end_all(settings.data)
