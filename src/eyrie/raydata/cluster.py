"""The model asked by a Ray cluster: the objects' portions go through Ray Data, whose actors hold the model, and their
results come back in order, to be written by this process.

`RUN/run.json` says which cluster, under `cluster`. One of the run's own (`EYRIE_COMPUTE=ray`) begins and ends with it.
A worker that dies is replaced by Ray, and its portion sent again; where an execution breaks off all the same, the next
portion goes out alone, so that one whose records end every worker costs its own object and no more.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from eyrie.adapters.transform_runs import CLUSTER_FOLDER, CLUSTER_FOLDER_FILE
from eyrie.decide.transform_plan import agreed
from eyrie.domain.transform import InputObject, Mark, TransformSpec
from eyrie.modelserver.environment import body_bytes_max, payload_mb_told
from eyrie.raydata.answering import Answered, Answering, Errand
from eyrie.raydata.portions import Course, Portion, courses
from eyrie.transform.bad import BadRecord
from eyrie.transform.outputs import Outputs, Work
from eyrie.transform.results import Written
from eyrie.transform.run import Failed, Terms
from eyrie.transform.sink import Restart

log = logging.getLogger("eyrie.transform")

LOCAL_STORE_BYTES = 256 << 20  # of shared memory, of a cluster of the run's own
BLOCK_BYTES = 8 << 20  # of results that one message between nodes holds, about
TASK_RETRIES = 1  # of a portion whose worker died, besides what is done with one alone
DEATHS_MAX = 2  # executions that a portion alone may break off


@dataclass(frozen=True, slots=True)
class ClusterOrder:
    """`cluster` of `run.json`."""

    address: str  # of the cluster, HOST:PORT; "": one of the run's own
    endpoint: str  # http://HOST:PORT of Eyrie, as nodes see it
    actors: int
    package: str  # the folder that has `model`
    environment: Mapping[str, str]
    image: str


@dataclass(frozen=True, slots=True)
class _Order:
    cluster: ClusterOrder


class Broken(Exception):
    """An execution broke off; the message says why."""


class Cluster:
    """The Hands of a run that has a cluster."""

    def __init__(self, folder: Path, spec: TransformSpec) -> None:
        self._box, self._spec = folder / "box", spec
        self._order = msgspec.json.decode((folder / "run.json").read_bytes(), type=_Order).cluster

    def terms(self) -> Terms:
        """What the job says, then what our model server would."""
        most = payload_mb_told(body_bytes_max(self._order.environment))
        return Terms(agreed(self._spec, {"BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": most}), 1, True)

    def share(self, work: Work, number: int, objects: Sequence[InputObject]) -> Spread:
        """All objects: there is one share."""
        return Spread(work, number, list(objects), self._order, self._box)


class Spread:
    """Objects that are worked off by a cluster."""

    def __init__(self, work: Work, number: int, objects: list[InputObject], order: ClusterOrder, box: Path) -> None:
        self._work, self._objects, self._order, self._box = work, objects, order, box
        self._outputs = Outputs(work, number, objects)

    @property
    def mark(self) -> Mark:
        """Where it stands."""
        return self._outputs.mark

    def run(self) -> None:
        """To the end of all objects. Raises BucketError, Failed."""
        if self.mark.index >= len(self._objects):
            return
        with connected(self._order.address, self._box):
            asking = _Asking(self._work, self._objects, self._order)
            try:
                while self.mark.index < len(self._objects):
                    try:
                        self._run(asking)
                    except Restart:
                        self._outputs.begin_again()
            finally:
                self._outputs.close()

    def _run(self, asking: _Asking) -> None:
        planned = list(courses(self._work, self._objects, self.mark))
        try:
            self._take_all(planned, asking.answers([one for course in planned for one in course.portions]))
        except Broken as error:
            log.warning("the work of the cluster broke off: %s", error)
            self._alone(asking)

    def _alone(self, asking: _Asking) -> None:
        """The next portion by itself; the rest of its object and the others come after. An object whose portion breaks
        it off again fails.
        """
        index = self.mark.index
        for _ in range(DEATHS_MAX):
            course = next(courses(self._work, self._objects, self.mark))
            if not course.portions:
                return
            try:
                self._take(index, asking.answers(list(course.portions[:1]), retries=0))
                return
            except Broken as error:
                why = str(error)
        told = f"records from {self.mark.line + 1} on: {DEATHS_MAX} workers ended while they had them: {why}"
        self._outputs.fail(index, told)

    def _take_all(self, planned: Sequence[Course], answers: Iterator[Answered]) -> None:
        for course in planned:
            good = True
            for _ in course.portions:
                good = self._take(course.index, answers, good) and good
            if not good:
                continue
            if course.error:
                self._outputs.fail(course.index, course.error)
            else:
                self._outputs.finish(course.index)

    def _take(self, index: int, answers: Iterator[Answered], good: bool = True) -> bool:
        """The messages of a portion: what they say is written, unless its object has failed. Whether it goes on."""
        for answered in answers:
            if answered.fatal:
                raise Failed(answered.fatal)
            for result in answered.results if good else ():
                good = good and self._write(index, result.written())
            if good:
                self._outputs.note_in_time()
            if answered.last:
                if good and answered.error:
                    self._outputs.fail(index, answered.error)
                return good and not answered.error
        raise Broken("the cluster gave no answer to some portions")

    def _write(self, index: int, found: Written) -> bool:
        """What is written of a payload, unless it has more bad records than the job has room for."""
        room = self._outputs.room
        if len(found.bad) > room:
            first: BadRecord = found.bad[max(room, 0)]
            self._outputs.fail(index, f"record {first.line}: {first}")
            return False
        self._outputs.write(index, found)
        return True


@dataclass(slots=True)
class _Asking:
    """Executions of Ray Data on the cluster that this process is connected to."""

    work: Work
    objects: list[InputObject]
    order: ClusterOrder
    _shared: tuple[bytes, bytes, Any] | None = field(default=None)

    def answers(self, portions: Sequence[Portion], retries: int = TASK_RETRIES) -> Iterator[Answered]:
        """The messages of each portion, in order; one whose worker dies is sent again so often. Raises Broken."""
        if not portions:
            return
        import ray

        rows = [{"portion": msgspec.msgpack.encode(one)} for one in portions]
        try:
            dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
                Answering,
                fn_constructor_args=self._told(),
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(self.order.actors, len(rows))),
                num_cpus=1,
                max_task_retries=retries,
            )
            for row in dataset.iter_rows():
                yield msgspec.msgpack.decode(row["answered"], type=Answered)
        except ray.exceptions.RayError as error:
            raise Broken(_last_line(error)) from None

    def _told(self) -> tuple[bytes, bytes, Any]:
        """What each actor is made of."""
        if self._shared is None:
            import ray

            work, order = self.work, self.order
            key = work.door.key
            errand = Errand(
                spec=work.spec,
                agreed=work.agreed,
                endpoint=order.endpoint,
                access_key_id=key.access_key_id,
                secret_access_key=key.secret_access_key,
                session_token=key.session_token,
                region=work.door.region,
                environment=order.environment,
                image=order.image,
            )
            encode = msgspec.msgpack.encode
            self._shared = (encode(errand), encode(self.objects), ray.put(packed(Path(order.package) / "model")))
        return self._shared


@contextlib.contextmanager
def connected(address: str, box: Path) -> Iterator[None]:
    """Ray, connected to a cluster, or to one of this process's own. Raises Failed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise Failed(f"InternalError: Ray is not installed here ({error}): install eyrie[ray]") from None
    folder = None if address else _folder(box)
    try:
        _connect(ray, address, folder)
        log.info("connected to the Ray cluster %s", address or "of this run")
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _connect(ray: Any, address: str, folder: Path | None) -> None:
    """Raises Failed."""
    given: dict[str, Any] = {"address": address}
    if folder is not None:
        given = {
            "num_cpus": len(os.sched_getaffinity(0)),
            "include_dashboard": False,
            "object_store_memory": LOCAL_STORE_BYTES,
            "_temp_dir": str(folder),
            "_node_ip_address": "127.0.0.1",
        }
    try:
        ray.init(**given, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise Failed(f"InternalError: the Ray cluster {address or 'of this run'} cannot be used: {error}") from None
    _set_up(ray.data.DataContext.get_current())


def _set_up(context: Any) -> None:
    context.execution_options.preserve_order = True
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    context.enable_auto_log_stats = False


def _folder(box: Path) -> Path:
    """A folder for the cluster's sockets, whose paths must be short; that of a run before this one goes."""
    noted = box / CLUSTER_FOLDER_FILE
    with contextlib.suppress(FileNotFoundError):
        before = noted.read_text()
        if CLUSTER_FOLDER.fullmatch(before):
            shutil.rmtree(before, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix="eyrie-ray-", dir="/tmp"))
    noted.write_text(str(made))
    return made


def packed(folder: Path) -> bytes:
    """A tar of a folder, which keeps its name."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.add(folder, folder.name)
    return made.getvalue()


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__
