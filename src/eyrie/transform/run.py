"""A whole run: lists the objects, agrees with the container on the size of requests, has each share worked off by a
thread of its own, and tells how far it is. Who asks the model is its `Hands`: instances (`instances.py`), or a cluster.

    RUN/run.json          control's: the job, and where the bucket is
    RUN/seats.json        control's: where the instances are
    RUN/box/work.json     what was found and agreed, once; a run that takes this one up goes by it
    RUN/box/share-N.json  where share N stands (Mark); share-N.out.M, share-N.bad: what it keeps meanwhile
    RUN/box/progress.json for people
    RUN/box/result.json   the reason, where it failed
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from eyrie.adapters.artifacts import bucket_and_key, signing_key
from eyrie.adapters.durable import write_whole
from eyrie.adapters.job_program import ProgramFailed
from eyrie.adapters.s3_client import S3Client, S3Refused
from eyrie.decide.transform_join import sieve
from eyrie.decide.transform_path import PathError
from eyrie.decide.transform_plan import (
    PlanError,
    manifest_urls,
    output_key,
    output_name,
    progress,
    refuse_twins,
    shares,
    verdict,
)
from eyrie.domain.names import Scope
from eyrie.domain.transform import Agreed, InputObject, Mark, TransformSpec
from eyrie.ports import ArtifactError
from eyrie.transform.bucket import BucketError, Door, refused
from eyrie.transform.outputs import Work

log = logging.getLogger("eyrie.transform")

OBJECTS_MAX = 1_000_000
MANIFEST_BYTES_MAX = 16 << 20
TELL_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Order:
    """`run.json`."""

    scope: Scope
    job: str
    objects_socket: str
    keys: str  # path of credentials.json; "" with `--auth off`
    spec: TransformSpec


@dataclass(frozen=True, slots=True)
class Found:
    """`work.json`."""

    objects: tuple[InputObject, ...]
    agreed: Agreed
    concurrent: int
    batches: bool
    resumed: int = 0


class Failed(ProgramFailed):
    """The job has failed; the message is the reason for people."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How requests are made, as the job and the container agree."""

    agreed: Agreed
    concurrent: int  # requests at once, of each instance
    batches: bool  # many in one message


class Worked(Protocol):
    """A share of the objects that is being worked off."""

    @property
    def mark(self) -> Mark:
        """Where it stands."""
        ...

    def run(self) -> None:
        """To its end. Raises BucketError, Failed: nothing more can be done at all."""
        ...


class Hands(Protocol):
    """Who has the model asked."""

    def terms(self) -> Terms:
        """How requests are made. Raises Failed."""
        ...

    def share(self, work: Work, number: int, objects: Sequence[InputObject]) -> Worked:
        """A share, not begun yet."""
        ...


class Run:
    """One run of a job, from its beginning or from where another one left it. Raises Failed."""

    def __init__(self, folder: Path, hands: Callable[[Path, TransformSpec], Hands]) -> None:
        self._box = folder / "box"
        self._order = msgspec.json.decode((folder / "run.json").read_bytes(), type=Order)
        order = self._order
        try:
            key = signing_key(Path(order.keys) if order.keys else None, order.scope)
        except ArtifactError as error:
            raise Failed(str(error)) from None
        self._door = Door(Path(order.objects_socket), key, order.scope.region)
        self._hands = hands(folder, order.spec)
        self._sizes: list[list[int]] = [[] for _ in range(order.spec.instances)]
        self._shares: list[Worked] = []
        self._resumed = 0

    def run(self) -> None:
        """To the end. Raises Failed."""
        try:
            self._run()
        except BucketError as error:
            raise Failed(str(error)) from None
        except (PlanError, PathError, ArtifactError) as error:
            raise Failed(f"ClientError: {error}") from None

    def _run(self) -> None:
        found = self._found()
        spec = self._order.spec
        bucket, prefix = bucket_and_key(spec.output_url)
        work = Work(
            spec=spec,
            agreed=found.agreed,
            sieve=sieve(spec.processing, spec.content_type, spec.accept),
            door=self._door,
            bucket=bucket,
            prefix=prefix,
            box=self._box,
            concurrent=found.concurrent,
            batches=found.batches,
        )
        dealt = shares(found.objects, spec.instances)
        self._sizes = [[one.size for one in objects] for objects in dealt]
        self._shares = [self._hands.share(work, number, objects) for number, objects in enumerate(dealt)]
        self._work_off()
        if why := verdict([share.mark for share in self._shares]):
            raise Failed(why)
        if spec.capture_url:
            self._capture(found.objects)
        self._tell("Done")

    def _work_off(self) -> None:
        """All shares at once. Raises what ended the first of them that did not come to its end."""
        faults: list[BaseException] = []

        def work_off(share: Worked) -> None:
            try:
                share.run()
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=work_off, args=[share], daemon=True) for share in self._shares]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and not faults:
            self._tell("Transforming")
            for thread in threads:
                thread.join(TELL_EVERY_S / len(threads))
        self._tell("Transforming")
        if faults:
            raise faults[0]

    # ------------------------------------------------------------------------------------------------------- beginning
    def _found(self) -> Found:
        """What is to be done; as an earlier run found it, where there was one."""
        path = self._box / "work.json"
        try:
            known = msgspec.json.decode(path.read_bytes(), type=Found)
        except FileNotFoundError:
            known = self._look()
        else:
            known = replace(known, resumed=known.resumed + 1)
            log.info("taken up again, for the %d. time", known.resumed)
        self._resumed = known.resumed
        write_whole(path, msgspec.json.encode(known), 0o644)
        return known

    def _look(self) -> Found:
        self._tell("Starting")
        spec = self._order.spec
        objects = self._listed()
        log.info("%d objects, %d bytes", len(objects), sum(one.size for one in objects))
        terms = self._hands.terms()
        log.info(
            "%s, %d bytes a request, %d requests at once, %d instances",
            *(terms.agreed.strategy.value, terms.agreed.payload_bytes, terms.concurrent, spec.instances),
        )
        return Found(tuple(objects), terms.agreed, terms.concurrent, terms.batches)

    def _listed(self) -> list[InputObject]:
        """The objects of the job. Raises BucketError, PlanError."""
        spec = self._order.spec
        found = self._of_manifest() if spec.manifest else self._of_prefix()
        if not found:
            raise PlanError(
                f'No S3 objects found under S3 URL "{spec.input_url}" given in input data source. Please ensure that '
                "the bucket exists in the selected region and that objects exist under that S3 prefix."
            )
        if len(found) > OBJECTS_MAX:
            raise PlanError(f"there are more than {OBJECTS_MAX} objects under {spec.input_url}")
        refuse_twins(found)
        return found

    def _of_prefix(self) -> list[InputObject]:
        bucket, prefix = bucket_and_key(self._order.spec.input_url)
        try:
            listed = self._door.call(lambda s3: list(s3.objects(bucket, prefix)))
        except S3Refused as error:
            raise refused(error, self._order.spec.input_url) from None
        return [
            InputObject(bucket, key, output_name(key, prefix), size, etag)
            for key, size, etag in listed
            if not key.endswith("/")
        ]

    def _of_manifest(self) -> list[InputObject]:
        url = self._order.spec.input_url
        bucket, key = bucket_and_key(url)
        try:
            size, etag = self._door.call(lambda s3: s3.head(bucket, key))
            if size > MANIFEST_BYTES_MAX:
                raise PlanError(f"the manifest {url} is longer than {MANIFEST_BYTES_MAX} bytes")
            text = self._door.call(lambda s3: s3.get_range(bucket, key, 0, max(size, 1), etag))
        except S3Refused as error:
            raise refused(error, url) from None
        try:
            named = manifest_urls(text)
        except PlanError as error:
            raise PlanError(f"{url}: {error}") from None
        return [self._named(object_url, name) for object_url, name in named]

    def _named(self, url: str, name: str) -> InputObject:
        bucket, key = bucket_and_key(url)
        try:
            size, etag = self._door.call(lambda s3: s3.head(bucket, key))
        except S3Refused as error:
            raise refused(error, url) from None
        return InputObject(bucket, key, name, size, etag)

    # -------------------------------------------------------------------------------------------------------- telling
    def _tell(self, phase: str) -> None:
        sizes = self._sizes if self._shares else []
        told = progress([share.mark for share in self._shares], sizes, phase, self._resumed)
        new = self._box / ".progress.json"
        new.write_bytes(msgspec.json.encode(told))  # for people: not worth waiting for the disk
        new.rename(self._box / "progress.json")

    def _capture(self, objects: Sequence[InputObject]) -> None:
        """DataCaptureConfig: manifests of what was read and of what was written. Raises BucketError."""
        spec, job = self._order.spec, self._order.job
        bucket, prefix = bucket_and_key(spec.capture_url)
        hour = time.strftime("%Y/%m/%d/%H", time.gmtime())
        folder = spec.output_url.rstrip("/") + "/"
        outputs = [{"prefix": folder}, *(one.name + ".out" for one in objects)]
        first = objects[0]
        source = f"s3://{first.bucket}/{first.key.removesuffix(first.name)}"
        inputs = [{"prefix": source}, *(one.url.removeprefix(source) for one in objects)]
        try:
            for kind, listed in (("input", inputs), ("output", outputs)):
                key = output_key(prefix, f"{kind}/{hour}/{job}", ".json")
                put = partial(S3Client.put_bytes, bucket=bucket, key=key, content_type="application/json")
                self._door.call(partial(put, body=json.dumps(listed).encode()))
        except S3Refused as error:
            raise refused(error, spec.capture_url) from None
