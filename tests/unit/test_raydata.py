"""The parts of the Ray runner without a cluster: portions are cut, answered by themselves, written, taken up again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.adapters.s3_client import SigningKey
from eyrie.domain.cluster import Cluster, cluster_of
from eyrie.domain.transform import Agreed, Assemble, InputObject, Mark, Split, Strategy, TransformSpec
from eyrie.modelserver.codecs import BadPayload
from eyrie.modelserver.replier import refusal_of
from eyrie.raydata import cluster, portions
from eyrie.raydata.answering import Answered, Answerer
from eyrie.raydata.portions import Portion, courses
from eyrie.transform import outputs, source
from eyrie.transform.bucket import Door
from eyrie.transform.outputs import Work

LINES = TransformSpec("s3://b/in/", "s3://b/out", content_type="text/csv", split=Split.LINE, assemble=Assemble.LINE)
DOOR = Door("http://127.0.0.1:9", SigningKey("a", "b"), "us-east-1")
HOLDS = Agreed(Strategy.MULTI_RECORD, 24, 1)


class Lengths:
    """Answers each line with its length; refuses what says so."""

    def answers(self, bodies: Sequence[bytes], content_type: str, accept: str) -> list[tuple[int, bytes]]:
        return [
            (400, b"no")
            if b"bad" in body
            else (200, b"".join(b"%d\n" % len(line) for line in body.split(b"\n") if line))
            for body in bodies
        ]


class Sink:
    """What is written, by key."""

    whole: dict[str, bytes]

    def __init__(self, door: Door, bucket: str, key: str, kind: str, folder: Path, name: str) -> None:
        self.key, self.data, self.url = key, b"", f"s3://{bucket}/{key}"

    def open(self, mark: Mark) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def noted(self, mark: Mark) -> Mark:
        return mark

    def finish(self) -> None:
        self.whole[self.key] = self.data

    def tidy(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...

    def remove(self) -> None: ...


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Objects by key, and what is written."""
    return patched(monkeypatch)


def patched(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    held: dict[str, bytes] = {}

    def raw(door: Door, one: InputObject, start: int) -> Iterator[bytes]:
        data = held[one.key][: one.size]
        yield from (data[at : at + 7] for at in range(start, len(data), 7))

    Sink.whole = held
    monkeypatch.setattr(source, "raw", raw)
    monkeypatch.setattr(outputs, "Sink", Sink)
    return held


def made(spec: TransformSpec, holds: Agreed, box: Path, held: dict[str, bytes]) -> tuple[Work, list[InputObject]]:
    objects = [InputObject("b", key, key, len(data)) for key, data in sorted(held.items())]
    return Work(spec, holds, None, DOOR, "b", "out", box, 1, True), objects


class Asking:
    """A cluster of this process; `breaks` says before which message it breaks off."""

    def __init__(self, work: Work, objects: list[InputObject], breaks: Callable[[Portion], bool]) -> None:
        self.answerer = Answerer(work.spec, work.agreed, objects, DOOR, Lengths())
        self.breaks = breaks

    def answers(self, asked: Sequence[Portion], retries: int = 1) -> Iterator[Answered]:
        for portion in asked:
            for answered in self.answerer.answer(portion):
                if self.breaks(portion):
                    raise cluster.Broken("the actor died")
                yield answered


def work_off(box: Path, work: Work, objects: list[InputObject], breaks: Callable[[Portion], bool]) -> Mark:
    order = cluster.ClusterOrder("", "http://127.0.0.1:9", 2, "", {}, "")
    spread = cluster.Spread(work, 0, objects, order, box)
    asking: Any = Asking(work, objects, breaks)
    while spread.mark.index < len(objects):
        spread._run(asking)
    return spread.mark


@settings(max_examples=30, deadline=None)
@given(
    lines=st.lists(st.sampled_from([b"1,2", b"", b"33,4", b"x" * 20]), max_size=30),
    strategy=st.sampled_from(list(Strategy)),
    size=st.integers(1, 60),
    seed=st.integers(0, 3),
)
def test_portions_together_are_the_object(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], strategy: Strategy, size: int, seed: int
) -> None:
    box, chance = tmp_path_factory.mktemp("box"), random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "PORTION_BYTES", size)
        held = patched(patch)
        held |= {"a": b"\n".join(lines), "b/c": b"12345\n", "d": b""}
        work, objects = made(LINES, replace(HOLDS, strategy=strategy), box, held)
        mark = work_off(box, work, objects, lambda portion: seed > 0 and chance.random() < 0.2)
    if not mark.failed_count:
        assert held["out/a.out"] == b"".join(b"%d\n" % len(line) for line in lines if line)
        assert held["out/b/c.out"] == b"5\n"
        assert held["out/d.out"] == b""
        assert mark.records == 1 + sum(map(bool, lines))
    else:
        assert seed > 0
        assert "workers ended while they had them" in mark.failed[0]


def test_a_bad_record_costs_its_object_or_itself(bucket: dict[str, bytes], tmp_path: Path) -> None:
    bucket |= {"a": b"good\nbad\ngood\nbad\n", "b": b"fine\n"}
    work, objects = made(LINES, HOLDS, tmp_path, bucket)
    strict = work_off(tmp_path, work, objects, lambda _: False)
    assert strict.failed == ('s3://b/a, record 2: Received client error (400) from primary with message "no"',)
    assert "out/a.out" not in bucket
    assert bucket["out/b.out"] == b"4\n"
    (tmp_path / "one").mkdir()
    work, objects = made(replace(LINES, bad_records_max=1), HOLDS, tmp_path / "one", bucket)
    one = work_off(tmp_path / "one", work, objects[:1], lambda _: False)
    assert one.failed[0].startswith("s3://b/a, record 4: ")


def test_a_record_that_ends_every_worker_costs_its_object_alone(bucket: dict[str, bytes], tmp_path: Path) -> None:
    bucket |= {"a": b"1\n", "b": b"poison\n" * 3, "c": b"22\n"}
    work, objects = made(LINES, HOLDS, tmp_path, bucket)
    mark = work_off(tmp_path, work, objects, lambda portion: portion.index == 1)
    assert mark.failed == ("s3://b/b, records from 1 on: 2 workers ended while they had them: the actor died",)
    assert (bucket["out/a.out"], bucket["out/c.out"]) == (b"1\n", b"2\n")


def test_a_record_that_is_too_long_is_told_after_what_came_before_it(bucket: dict[str, bytes], tmp_path: Path) -> None:
    bucket |= {"a": b"1\n" + b"x" * 40 + b"\n"}
    (course,) = courses(*made(LINES, HOLDS, tmp_path, bucket), Mark())
    assert course.error.startswith("record 2: the record is longer than")
    mark = work_off(tmp_path, *made(LINES, HOLDS, tmp_path, bucket), lambda _: False)
    assert mark.failed[0].startswith("s3://b/a, record 2: the record is longer than")


def test_an_error_reads_as_the_model_server_tells_it() -> None:
    assert refusal_of(ValueError("x")) == (500, b"ValueError: x")
    assert refusal_of(BadPayload("row 1")) == (400, b"row 1")


def test_what_names_a_cluster() -> None:
    assert cluster_of("process") is None
    assert cluster_of("docker://") is None
    assert cluster_of("ray") == Cluster("ray")
    url = "ray://10.0.0.1:6379?endpoint=http://10.0.0.5:7777"
    assert cluster_of(url) == Cluster(url, "10.0.0.1:6379", "http://10.0.0.5:7777")
