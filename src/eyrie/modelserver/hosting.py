"""From a claim to loaded models: everything that may take long before the first prediction.

Reached once in an instance's life, from `app` in a thread of its own, or in a process that is forked afterwards: what
comes out knows of no event loop and holds no thread; `opening` binds it to the loop that serves it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from eyrie.modelserver import environment, loader, requirements
from eyrie.modelserver.batcher import SLOW_S, Bounds
from eyrie.modelserver.environment import Claim, Container
from eyrie.modelserver.frameworks.interface import CallModel, RowModel, Source
from eyrie.modelserver.measure import Pace, pace
from eyrie.modelserver.scope import Scope
from eyrie.modelserver.servable import CallServable, Ground, RowServable, Servable
from eyrie.modelserver.threads import Pools, threads_for

log = logging.getLogger("eyrie.modelserver")

LIGHT_BYTES_MAX = 2 << 20  # of a model's files; each worker has a copy of what they hold
ENTRY_BYTES = 4096  # that a file counts for besides
ONE_WORKER = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}  # what each of several workers hosts: one request at a time


@dataclass(frozen=True, slots=True)
class Loaded:
    """One model, loaded and measured."""

    model: RowModel | CallModel
    pace: Pace | None = None  # of a row model
    batch_rows: int = environment.BATCH_ROWS_DEFAULT  # of a row model
    scope: Scope | None = None  # where its user code lives, when it is not alone in the process

    @property
    def on_loop(self) -> bool:
        """Whether the event loop may run it."""
        return self.pace is not None and self.pace.quick(SLOW_S)


@dataclass(frozen=True, slots=True)
class Hosted:
    """An instance's containers, loaded, in their order; without its guests."""

    claim: Claim
    containers: tuple[tuple[Container, Loaded], ...]  # none of a multi-model container, whose models come later
    sources: tuple[Source, ...]

    @property
    def threads(self) -> int:
        """Threads for numeric work, in each worker."""
        return threads_for(self.claim.vcpu_milli, self.claim.workers)


def load(claim: Claim, ml: Path, pools: Pools, guests: frozenset[str] = frozenset()) -> Hosted:
    """Load every container of a claim but the guests, which are programs of the user's own. Raises LoadError, or what a
    framework or user code raises.

    For several workers nothing here may start a thread: they are forked from the process that has loaded.
    """
    containers = [container for container in claim.containers if container.hostname not in guests]
    sets = [environment.variables(claim, container, ml) for container in containers]
    if sets:
        environment.apply(environment.in_common(sets))
    if claim.workers > 1:
        sets = [{**own, **ONE_WORKER} for own in sets]
    else:
        size_pools(claim, pools, 1)
    sources = [
        Source(container.ml(ml), {**os.environ, **own}, container.image)
        for container, own in zip(containers, sets, strict=True)
    ]
    if claim.multi_model:
        loader.warm_up(sources[0])
        return Hosted(claim, (), tuple(sources))
    if len(claim.containers) == 1:
        environment.extend_path(loader.code_paths(sources[0], loader.script_path(sources[0])))
        return Hosted(claim, ((claim.containers[0], load_model(sources[0])),), tuple(sources))
    requirements.check(
        [(container.hostname, source.ml / loader.DEPS) for container, source in zip(containers, sources, strict=True)]
    )
    loaded = [
        _load_one_of_several(number, container.hostname, source, own)
        for number, (container, source, own) in enumerate(zip(containers, sources, sets, strict=True))
    ]
    return Hosted(claim, tuple(zip(containers, loaded, strict=True)), tuple(sources))


def light(claim: Claim, ml: Path) -> bool:
    """Whether a copy for each worker is sooner loaded than a fork made of one that has loaded: small files, read by
    libraries that this process has imported, and no code but ours.
    """
    sources = [Source(container.ml(ml), container.environment, container.image) for container in claim.containers]
    return not claim.multi_model and all(_is_light(source) for source in sources)


def _is_light(source: Source) -> bool:
    framework = loader.of_files(source)
    if framework is None or framework.library not in sys.modules or environment.COMPILE in source.env:
        return False
    if "SAGEMAKER_PROGRAM" in source.env or any((source.ml / name).exists() for name in ("model/code", loader.DEPS)):
        return False
    left = LIGHT_BYTES_MAX
    for folder, _, names in os.walk(source.model_dir):
        for name in names:
            left -= os.stat(os.path.join(folder, name), follow_symlinks=False).st_size + ENTRY_BYTES
            if left < 0:
                return False
    return True


class Unloadable(Exception):
    """One of several containers cannot be loaded; why is its cause."""

    def __init__(self, hostname: str) -> None:
        super().__init__(f"container {hostname} cannot be loaded")
        self.hostname = hostname


def _load_one_of_several(number: int, hostname: str, source: Source, env: Mapping[str, str]) -> Loaded:
    try:
        return load_in_scope(f"_container_{number}", hostname, source, env)
    except Exception as error:
        raise Unloadable(hostname) from error


def load_in_scope(package: str, label: str, source: Source, env: Mapping[str, str]) -> Loaded:
    """Load a model that shares its process with others. Its requirements are for all of them to find."""
    code, deps = _folders(source)
    sys.path += [folder for folder in deps if folder not in sys.path]
    scope = Scope(package, label, code, env)
    with scope.opened():
        return replace(load_model(source), scope=scope)


def load_beside(package: str, source: Source) -> Loaded:
    """Load one of a container's many models, which differ in their files alone. One at a time."""
    return load_in_scope(package, "", source, {}) if _folders(source)[0] else load_model(source)


def _folders(source: Source) -> tuple[list[str], list[str]]:
    """A model's folders of code, and that of its requirements."""
    found = loader.code_paths(source, loader.script_path(source))
    deps = str(source.ml / loader.DEPS)
    return [folder for folder in found if folder != deps], [folder for folder in found if folder == deps]


def size_pools(claim: Claim, pools: Pools, workers: int) -> None:
    """Give the numeric libraries this process's share of the instance's cores."""
    asked = {name: value for container in claim.containers for name, value in container.environment.items()}
    pools.resize(threads_for(claim.vcpu_milli, workers), os.environ, asked)


def load_model(source: Source) -> Loaded:
    """Load one model and measure it."""
    model = loader.load(source)
    if not isinstance(model, RowModel):
        log.info("%s; %d worker thread(s)", model.title, model.workers)
        return Loaded(model)
    rows = environment.batch_rows(source.env)
    loaded = Loaded(model, pace(model.predict, model.shape, time.perf_counter), rows)
    where = "on the event loop" if loaded.on_loop else "in worker threads"
    log.info("%s; %s; predicts %s", model.title, loaded.pace, where)
    return loaded


def open_model(loaded: Loaded, ground: Ground, threads: int, label: str = "", said: bytes = b"") -> Servable:
    """One model's servable; `label` marks its lines in the log, `said` is in every answer of rows."""
    if isinstance(loaded.model, RowModel):
        bounds = Bounds(batch_rows_max=loaded.batch_rows)
        return RowServable(loaded.model, ground, 0 if loaded.on_loop else threads, label, said, bounds)
    return CallServable(loaded.model, ground, loaded.scope, label)
