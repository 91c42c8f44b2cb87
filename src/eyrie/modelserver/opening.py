"""From loaded containers to what answers on an event loop: one servable, a pipeline, a choice, or a shelf of models.

Reached once in the life of each process that serves, after its last fork.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eyrie.modelserver import bulk, environment, shelf
from eyrie.modelserver.environment import Claim
from eyrie.modelserver.frameworks.interface import CallModel, RowModel
from eyrie.modelserver.hosting import Hosted, open_model
from eyrie.modelserver.pipeline import Choice, Pipeline
from eyrie.modelserver.servable import QUEUE_MAX, Ground, Servable
from eyrie.modelserver.shelf import LOADS_WAITING_MAX, Shelf
from eyrie.modelserver.threads import Workers

if TYPE_CHECKING:
    from eyrie.modelserver.guests import Guest

SHELF_THREADS_MIN = 8  # for the user code of many models, each of which runs one request at a time


def open_containers(hosted: Hosted, loop: asyncio.AbstractEventLoop, guests: Sequence[Guest] = ()) -> Servable:
    """What answers /invocations, on this loop; `guests` are containers of the user's own that share the instance."""
    if hosted.claim.multi_model:
        return _open_shelf(hosted, loop)
    models = [loaded.model for _, loaded in hosted.containers]
    ground = Ground(loop, Workers(_threads(models, hosted.threads), QUEUE_MAX, loop.call_soon_threadsafe))
    several = len(hosted.claim.containers) > 1
    if not several:
        return open_model(hosted.containers[0][1], ground, hosted.threads, said=bulk.OFFER)
    opened: dict[str, Servable] = {
        container.hostname: open_model(loaded, ground, hosted.threads, container.hostname)
        for container, loaded in hosted.containers
    }
    if guests:
        from eyrie.modelserver.loopback import LoopbackServable

        opened |= {guest.hostname: LoopbackServable(guest.hostname, guest.port, loop) for guest in guests}
    limits = {one.hostname: environment.body_bytes_max(one.environment) for one in hosted.claim.containers}
    if hosted.claim.direct:
        return Choice({name: (opened[name], limit) for name, limit in limits.items()})
    return Pipeline([(name, opened[name]) for name in limits], max(limits.values()))


def _open_shelf(hosted: Hosted, loop: asyncio.AbstractEventLoop) -> Shelf:
    claim, container = hosted.claim, hosted.claim.containers[0]
    threads = max(SHELF_THREADS_MIN, hosted.threads + 1)
    ground = Ground(loop, Workers(threads, QUEUE_MAX, loop.call_soon_threadsafe))
    loader = Workers(1, LOADS_WAITING_MAX, loop.call_soon_threadsafe, "models")
    limits = shelf.limits(container.environment, claim.memory_mb, claim.workers, body_bytes_max(claim))
    return Shelf(hosted.sources[0], ground, loader, hosted.threads, limits, container.hostname)


def _threads(models: Sequence[RowModel | CallModel], threads: int) -> int:
    """Worker threads: what user code asks for; for rows one more than batches use, since a large body must not wait
    for them.
    """
    calls = sum(model.workers for model in models if not isinstance(model, RowModel))
    rows = threads + 1 if any(isinstance(model, RowModel) for model in models) else 0
    return calls + rows


def body_bytes_max(claim: Claim) -> int:
    """The limit of a request's body: that of the container that reads it, or the widest where requests choose."""
    limits = [environment.body_bytes_max(container.environment) for container in claim.containers]
    return max(limits) if claim.direct else limits[0]
