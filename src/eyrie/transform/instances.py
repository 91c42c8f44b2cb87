"""The model asked by instances of this host: each share has one, at its seat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from eyrie.decide.transform_plan import agreed
from eyrie.domain.transform import InputObject, Mark, TransformSpec
from eyrie.transform.caller import Caller, NoReply, agreed_workers
from eyrie.transform.outputs import Work
from eyrie.transform.run import Failed, Terms
from eyrie.transform.seats import NotReady, Seats
from eyrie.transform.share import Share


class Instances:
    """The Hands of a run with instances of its own."""

    def __init__(self, folder: Path, spec: TransformSpec) -> None:
        self._seats, self._spec = Seats(folder, spec.startup_s), spec

    def terms(self) -> Terms:
        """What the job and the container of the first instance say. Raises Failed."""
        caller = Caller(self._seats, 0, self._spec)
        try:
            seat = caller.seat()
        except NotReady as error:
            raise Failed(str(error)) from None
        holds = agreed(self._spec, _object(caller.execution_parameters(seat)))
        concurrent = agreed_workers(seat, holds, bool(self._spec.max_concurrent))
        return Terms(holds, concurrent, self._spec.in_process and not seat.foreign)

    def share(self, work: Work, number: int, objects: Sequence[InputObject]) -> Seated:
        """The share of the instance at a seat."""
        return Seated(Share(work, number, objects, Caller(self._seats, number, self._spec)))


class Seated:
    """A share whose instance may be gone for good."""

    def __init__(self, share: Share) -> None:
        self._share = share

    @property
    def mark(self) -> Mark:
        """Where it stands."""
        return self._share.mark

    def run(self) -> None:
        """To its end. Raises BucketError, Failed."""
        try:
            self._share.run()
        except (NotReady, NoReply) as error:
            raise Failed(str(error)) from None


def _object(text: bytes) -> dict[str, object]:
    """A JSON object that a container wrote; empty for anything else."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}
