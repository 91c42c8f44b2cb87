"""Loads a multi-model endpoint's models into its running instances, when a gateway worker says that one is needed.

The archive below the container's prefix -> this host (`TargetModels`) -> the instance's files (`ModelRooms`) -> POST
/models on the worker. A container without room (507) is told to unload what it loaded first, until there is some. A
model that is loaded stays as it is until it is unloaded, also when its archive is overwritten: the service's rule.

Plain and synchronous: `control/model_door` runs it in threads, one load a model and worker at a time.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from eyrie.control.endpoints import Endpoints
from eyrie.decide.fleet import variant_of
from eyrie.domain import target_models
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.fleet import ContainerSpec, Instance
from eyrie.domain.names import EndpointKey
from eyrie.ports import ArtifactError, ArtifactMissing, ModelRooms, NoAnswer, TargetModels

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 360.0  # SageMaker's: so long a load goes on, whoever still waits for it
LIST_TIMEOUT_S = 5.0
UNLOAD_TIMEOUT_S = 30.0
EVICTIONS_MAX = 64  # to make room for one model
SLACK = 8  # folders of models that were unloaded, before they are looked for
MESSAGE_BYTES_MAX = 65_536
_LOCKS = 256
_KEY = re.compile(r"[0-9a-f]{32}")


class LoadRefused(Exception):
    """A model that is not there for a request now. `code` is InvokeEndpoint's; `status` the container's, 0: none."""

    def __init__(self, code: str, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class InstanceGone(Exception):
    """The instance does not run, or does not answer: another one may."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model, and the worker of the instance that is to have it."""

    endpoint: EndpointKey
    instance_id: str
    worker: int
    model: str  # TargetModel

    @property
    def key(self) -> str:
        """The model's name inside the instance."""
        return target_models.key_of(self.model)


@dataclass(slots=True)
class Loaded:
    """What a load came to. Times are microseconds."""

    key: str
    already: bool = False  # it was loaded before
    download_us: int = 0  # 0: the archive was on this host
    load_us: int = 0
    unload_us: list[int] = field(default_factory=list)  # of each model that had to make room
    models: int = 0  # how many the worker holds now
    room: bool | None = None  # whether it has room for one more like this; None: it did not say


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a load goes."""

    socket: str
    container: ContainerSpec


class ModelLoads:
    """Loads and unloads. Safe from threads."""

    def __init__(
        self,
        endpoints: Endpoints,
        targets: TargetModels,
        rooms: ModelRooms,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoints = endpoints
        self._targets = targets
        self._rooms = rooms
        self._monotonic = monotonic
        self._models = [threading.Lock() for _ in range(_LOCKS)]  # by (socket, key): one load or unload at a time
        self._lock = threading.Lock()  # guards the four below
        self._placing: Counter[tuple[str, str]] = Counter()  # (socket, key): a load is under way
        self._settled_s: dict[tuple[str, str], float] = {}  # when the newest load ended
        self._order: dict[tuple[str, int], dict[str, None]] = {}  # what a worker loaded, the oldest load first
        self._counts: dict[tuple[str, int], int] = {}  # how many models a worker holds

    def load(self, wanted: Wanted) -> Loaded:
        """Have a model loaded in a worker. Raises LoadRefused, InstanceGone; OSError for what may be tried again."""
        place = self._place(wanted)
        here = place.socket, wanted.key
        with self._lock:
            self._placing[here] += 1
        try:
            with self._one(here):
                return self._load(wanted, place)
        except NoAnswer as silent:
            raise InstanceGone(str(silent)) from None
        finally:
            with self._lock:
                self._placing[here] -= 1
                if not self._placing[here]:
                    del self._placing[here]
                self._settled_s[here] = self._monotonic()
            self._tidy_soon(place.socket)

    def unload(self, wanted: Wanted) -> int:
        """Have a worker forget a model, if it holds it; how long that took in microseconds. Raises as `load`."""
        place = self._place(wanted)
        try:
            with self._one((place.socket, wanted.key)):
                took_us = self._unload(place.socket, wanted.worker, wanted.key)
                if not self._held_by_others(place.socket, wanted.worker, wanted.key):
                    self._rooms.remove(place.socket, wanted.key)
        except NoAnswer as silent:
            raise InstanceGone(str(silent)) from None
        return took_us

    def count(self, socket: str) -> int:
        """How many models the workers of an instance hold, as far as is known."""
        with self._lock:
            return sum(count for (where, _), count in self._counts.items() if where == socket)

    def survey(self) -> None:
        """Look at every instance of multi-model endpoints: count its models, remove the files of those unloaded."""
        sockets = {
            i.socket for e in self._endpoints.list() for i in e.instances if i.socket and _container(e, i) is not None
        }
        for socket in sorted(sockets):
            self.tidy(socket)
        with self._lock:
            for known in (self._order, self._counts):
                for where in [where for where in known if where[0] not in sockets]:
                    del known[where]
            for here in [here for here in self._settled_s if here[0] not in sockets]:
                del self._settled_s[here]

    def tidy(self, socket: str) -> None:
        """Remove the files of models that no worker of an instance holds any more, and count the others."""
        began_s = self._monotonic()
        placed = self._rooms.placed(socket)
        held: set[str] = set()
        try:
            for worker in self._rooms.workers(socket):
                listed = self._list(socket, worker)
                held.update(listed)
                with self._lock:
                    self._counts[socket, worker] = len(listed)
        except NoAnswer:
            return  # unknown is not unloaded
        for key in placed - held:
            here = socket, key
            with self._lock:
                if here in self._placing or self._settled_s.get(here, -1.0) >= began_s:
                    continue
                self._settled_s.pop(here, None)
                self._rooms.remove(socket, key)

    # --- one load ---------------------------------------------------------------------------------------------------

    def _place(self, wanted: Wanted) -> _Place:
        """Where it goes, if it may be asked for at all."""
        why = target_models.refusal(wanted.model)
        if why is not None:
            raise LoadRefused("ValidationError", f'The TargetModel "{wanted.model[:200]}" is not valid: {why}.')
        endpoint = self._endpoints.get(wanted.endpoint)
        instances = endpoint.instances if endpoint is not None else ()
        instance = next((i for i in instances if i.instance_id == wanted.instance_id), None)
        if endpoint is None or instance is None or not instance.socket:
            raise InstanceGone(f"{wanted.instance_id} is not an instance of {wanted.endpoint.slug}")
        container = _container(endpoint, instance)
        if container is None or container.model_data_url is None:
            raise LoadRefused("ValidationError", not_multi_model(wanted.endpoint.name))
        return _Place(instance.socket, container)

    def _load(self, wanted: Wanted, place: _Place) -> Loaded:
        socket, worker, key = place.socket, wanted.worker, wanted.key
        loaded = Loaded(key)
        if self._rooms.ask(socket, worker, "GET", f"/models/{key}", timeout_s=LIST_TIMEOUT_S)[0] == 200:
            loaded.already = True
        else:
            loaded.download_us = self._put(wanted, place)
            self._tell(wanted, place, loaded)
        with self._lock:
            order = self._order.setdefault((socket, worker), {})
            if not loaded.already:
                self._counts[socket, worker] = self._counts.get((socket, worker), 0) + 1
            order.setdefault(key)
            loaded.models = self._counts.get((socket, worker), 1)
        return loaded

    def _put(self, wanted: Wanted, place: _Place) -> int:
        """The model's files into the instance, unless another of its workers holds the model; the download's time."""
        if self._held_by_others(place.socket, wanted.worker, wanted.key):
            return 0
        url = target_models.url_of(str(place.container.model_data_url), wanted.model)
        try:
            with self._targets.hold(wanted.endpoint.scope, url) as archive:
                self._rooms.place(place.socket, wanted.key, archive.path)
                return archive.fetched_us
        except ArtifactMissing:
            bucket, _, path = url.removeprefix("s3://").partition("/")
            raise LoadRefused(
                "ValidationError",
                f"Failed to download model data(bucket: {bucket}, key: {path}). Please ensure that there is an object "
                "located at the URL and that the role passed to CreateModel has permissions to download the model.",
            ) from None
        except ArtifactError as error:
            raise LoadRefused("ValidationError", str(error)) from None

    def _tell(self, wanted: Wanted, place: _Place, loaded: Loaded) -> None:
        """POST /models, making room while the container says that it has none."""
        told = json.dumps({"model_name": loaded.key, "url": f"/opt/ml/models/{loaded.key}/model"}).encode()
        for _ in range(EVICTIONS_MAX):
            began_s = self._monotonic()
            status, said = self._rooms.ask(place.socket, wanted.worker, "POST", "/models", told, LOAD_TIMEOUT_S)
            loaded.load_us = self._since(began_s)
            loaded.already = status == 409
            if status in (200, 409):
                loaded.room = _read_room(said) if status == 200 else None
                return
            victim = self._victim(place.socket, wanted.worker, loaded.key) if status == 507 else None
            if victim is None:
                break
            log.info("%s worker %d has no room: unloads %s", wanted.instance_id, wanted.worker, victim)
            loaded.unload_us.append(self._unload(place.socket, wanted.worker, victim))
        self._rooms.remove(place.socket, loaded.key)
        raise LoadRefused("ModelError", said[:MESSAGE_BYTES_MAX].decode("utf-8", "replace"), status)

    def _victim(self, socket: str, worker: int, spared: str) -> str | None:
        """The model that the worker loaded least recently; those that were loaded before anybody counted come first."""
        held = [key for key in self._list(socket, worker) if key != spared]
        with self._lock:
            order = list(self._order.get((socket, worker), ()))
        places = {key: place for place, key in enumerate(order)}
        return min(held, key=lambda key: places.get(key, -1), default=None)

    def _unload(self, socket: str, worker: int, key: str) -> int:
        began_s = self._monotonic()
        status, _ = self._rooms.ask(socket, worker, "DELETE", f"/models/{key}", timeout_s=UNLOAD_TIMEOUT_S)
        with self._lock:
            self._order.get((socket, worker), {}).pop(key, None)
            if status == 200:
                self._counts[socket, worker] = max(0, self._counts.get((socket, worker), 0) - 1)
        return self._since(began_s)

    def _held_by_others(self, socket: str, worker: int, key: str) -> bool:
        """Whether another worker of the instance holds the model: its files are in use, and both are to be the same."""
        others = [other for other in self._rooms.workers(socket) if other != worker]
        return any(self._rooms.ask(socket, other, "GET", f"/models/{key}")[0] == 200 for other in others)

    def _list(self, socket: str, worker: int) -> list[str]:
        """Keys of the models that a worker holds. Raises NoAnswer."""
        found: list[str] = []
        page = ""
        for _ in range(EVICTIONS_MAX):
            status, body = self._rooms.ask(socket, worker, "GET", f"/models{page}", timeout_s=LIST_TIMEOUT_S)
            names, token = _read_list(status, body)
            found += names
            if not token:
                return found
            page = f"?next_page_token={token}"
        return found

    def _tidy_soon(self, socket: str) -> None:
        """Models that the container itself unloaded leave files behind: look when there are many more than models."""
        with self._lock:
            known = sum(count for (where, _), count in self._counts.items() if where == socket)
            coming = sum(1 for where, _ in self._placing if where == socket)
        if len(self._rooms.placed(socket)) > known + coming + SLACK:
            self.tidy(socket)

    def _one(self, here: tuple[str, str]) -> threading.Lock:
        return self._models[hash(here) % _LOCKS]

    def _since(self, began_s: float) -> int:
        return max(1, int((self._monotonic() - began_s) * 1e6))


def not_multi_model(name: str) -> str:
    """SageMaker's sentence for a TargetModel that an endpoint has no use for."""
    return f"Endpoint {name} is not a multi-model endpoint and does not support target model header."


def _container(endpoint: Endpoint, instance: Instance) -> ContainerSpec | None:
    """The multi-model container of an instance, or None."""
    variant = variant_of(endpoint, instance)
    containers: Sequence[ContainerSpec] = variant.spec.model.containers if variant is not None else ()
    return next((container for container in containers if container.multi_model), None)


def _read_room(body: bytes) -> bool | None:
    """What our model server adds to its answer to POST /models; None for what a user's own container says."""
    try:
        told = json.loads(body)
    except ValueError:
        return None
    room = told.get("room") if isinstance(told, dict) else None
    return room if isinstance(room, bool) else None


def _read_list(status: int, body: bytes) -> tuple[list[str], str]:
    """A page of GET /models: our keys in it, and the token of the next page. Raises NoAnswer for anything else."""
    try:
        if status != 200:
            raise ValueError(f"status {status}")
        told = json.loads(body)
        names = [str(entry["modelName"]) for entry in told["models"]]
        token = told.get("nextPageToken") or ""
    except (ValueError, TypeError, KeyError, AttributeError) as fault:
        raise NoAnswer(f"GET /models was not answered with a list: {fault}") from None
    safe = str(token) if re.fullmatch(r"[A-Za-z0-9_.~=-]{1,256}", str(token)) else ""
    return [name for name in names if _KEY.fullmatch(name)], safe
