"""Several containers in one server: in order, by name, each with code of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hosting_world
import pytest
from hosting_world import Recorder, ask, hosting, until, write

from eyrie.modelserver import requirements
from eyrie.modelserver.frameworks.interface import LoadError
from eyrie.modelserver.pipeline import KINDS_REMEMBERED_MAX, TARGET, Choice, Pipeline
from eyrie.modelserver.replier import Fields, Replier
from eyrie.modelserver.times import Times

Reply = Callable[[Replier, bytes, Fields], None]


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    with hosting_world.unchanged():
        yield


class Stage:
    """A servable that does as it is told, and notes what it was asked."""

    parallel, busy = 1, False

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[tuple[bytes, dict[bytes, bytes]]] = []

    def invoke(self, replier: Replier, body: bytes, fields: Fields) -> None:
        self.asked.append((body, dict(fields)))
        self.reply(replier, body, fields)


def adding(mark: bytes, kind: bytes) -> Stage:
    return Stage(lambda replier, body, fields: replier.reply(200, b"content-type: %b\r\n" % kind, body + mark))


def passed(stages: list[Stage], **headers: str) -> Recorder:
    pipeline = Pipeline([(f"c-{n}", stage) for n, stage in enumerate(stages)], 100)
    client = Recorder("/invocations", **headers)
    pipeline.invoke(client, b"x", client.fields)
    return client


def test_each_answer_is_the_next_request_with_its_content_type() -> None:
    stages = [adding(b"1", b"text/csv; charset=utf-8"), adding(b"2", b"application/json"), adding(b"3", b"a/b")]
    client = passed(stages, content_type="text/plain", accept="x/y", x_custom="kept")
    assert client.replies == [(200, b"content-type: a/b\r\n", b"x123")]
    asked = [
        (body, f[b"content-type"], f.get(b"accept"), f[b"x-custom"]) for stage in stages for body, f in stage.asked
    ]
    assert asked == [
        (b"x", b"text/plain", None, b"kept"),
        (b"x1", b"text/csv; charset=utf-8", None, b"kept"),
        (b"x12", b"application/json", b"x/y", b"kept"),
    ]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_error_names_its_container_and_keeps_its_status(at: int) -> None:
    stages = [adding(b"", b"a/b") for _ in range(3)]
    stages[at] = Stage(lambda replier, body, fields: replier.reply(418, b"content-type: text/plain\r\n", b"no"))
    client = passed(stages)
    assert client.replies == [(418, b"content-type: text/plain\r\nx-eyrie-container: c-%d\r\n" % at, b"no")]
    assert [len(stage.asked) for stage in stages] == [int(n <= at) for n in range(3)]


def test_no_content_ends_the_pipeline_and_a_strange_status_is_handed_out() -> None:
    for status in (204, 302):
        nothing = Stage(lambda replier, body, fields, status=status: replier.reply(status, b"", b""))  # type: ignore[misc]
        last = adding(b"", b"a/b")
        assert passed([nothing, last]).replies == [(status, b"", b"")]
        assert last.asked == []


def test_what_is_handed_on_is_bounded() -> None:
    large = Stage(lambda replier, body, fields: replier.reply(200, b"", b"x" * 101))
    last = adding(b"", b"a/b")
    client = passed([large, last])
    assert (client.status, last.asked) == (500, [])
    assert b"longer than 100 bytes" in client.body
    assert b"x-eyrie-container: c-0" in client.lines

    def drip(replier: Replier, body: bytes, fields: Fields) -> None:
        replier.start(200, b"", None)
        for _ in range(200):
            replier.write(b"x")
        replier.finish()

    client = passed([Stage(drip), last])
    assert (client.status, last.asked) == (500, [])


def test_pieces_are_gathered_between_containers_and_sent_as_they_come_at_the_end() -> None:
    def stream(replier: Replier, body: bytes, fields: Fields) -> None:
        replier.start(200, b"content-type: text/csv\r\n", None)
        replier.write(body)
        replier.write(b"+")
        replier.finish()

    stages = [Stage(stream), Stage(stream)]
    client = passed(stages)
    assert [body for body, _ in stages[1].asked] == [b"x+"]
    assert stages[1].asked[0][1][b"content-type"] == b"text/csv"
    assert (client.pieces, client.finished) == ([b"x+", b"+"], True)

    def breaks(replier: Replier, body: bytes, fields: Fields) -> None:
        replier.start(200, b"", None)
        replier.abort()

    client = passed([Stage(breaks), Stage(stream)])
    assert (client.status, client.aborted) == (500, False)
    client = passed([Stage(stream), Stage(breaks)])
    assert (client.status, client.aborted) == (200, True)


def test_a_client_that_left_is_not_worked_for() -> None:
    last = adding(b"", b"a/b")
    pipeline = Pipeline([("a", adding(b"", b"a/b")), ("b", last)], 100)
    client = Recorder("/invocations")
    client.alive = False
    pipeline.invoke(client, b"x", client.fields)
    assert (client.replies, last.asked) == ([], [])


class Hands:
    """A clock that containers turn while they work."""

    def __init__(self) -> None:
        self.at_s = 5.0

    def __call__(self) -> float:
        return self.at_s

    def working(self, seconds: float, then: Reply) -> Stage:
        def reply(replier: Replier, body: bytes, fields: Fields) -> None:
            self.at_s += seconds
            then(replier, body, fields)

        return Stage(reply)


def answered(replier: Replier, body: bytes, fields: Fields) -> None:
    replier.reply(200, b"content-type: a/b\r\n", body)


def in_pieces(replier: Replier, body: bytes, fields: Fields) -> None:
    replier.start(200, b"content-type: a/b\r\n", None)
    replier.write(body)
    replier.finish()


def refused(replier: Replier, body: bytes, fields: Fields) -> None:
    replier.reply(400, b"", b"no")


def broken(replier: Replier, body: bytes, fields: Fields) -> None:
    replier.start(200, b"", None)
    replier.abort()


def counted(times: Times) -> dict[str, tuple[int, int]]:
    """By container: how often, and microseconds in all."""
    return {name: (sum(told["buckets"].values()), told["us"]) for name, told in times.as_json().items()}


@pytest.mark.parametrize("first", [answered, in_pieces])
@pytest.mark.parametrize("last", [answered, in_pieces, refused, broken])
def test_each_container_of_a_pipeline_is_timed(first: Reply, last: Reply) -> None:
    hands = Hands()
    stages = [("a", hands.working(0.25, first)), ("b", hands.working(0.5, last))]
    pipeline = Pipeline(stages, 100, Times("ab", hands))
    for _ in range(2):
        client = Recorder("/invocations")
        pipeline.invoke(client, b"x", client.fields)
    assert counted(pipeline.times) == {"a": (2, 500_000), "b": (2, 1_000_000)}


def test_a_container_that_was_not_reached_took_no_time() -> None:
    hands = Hands()
    pipeline = Pipeline([("a", hands.working(0.25, refused)), ("b", adding(b"", b"a/b"))], 100, Times("ab", hands))
    client = Recorder("/invocations")
    pipeline.invoke(client, b"x", client.fields)
    assert (client.status, counted(pipeline.times)) == (400, {"a": (1, 250_000), "b": (0, 0)})


@pytest.mark.parametrize("reply", [answered, in_pieces, refused, broken])
def test_a_container_that_is_called_by_name_is_timed(reply: Reply) -> None:
    hands = Hands()
    choice = Choice({"a": (hands.working(0.25, reply), 9), "b": (adding(b"", b"a/b"), 9)}, Times("ab", hands))
    for name, body in ((b"a", b"x"), (b"c", b"x"), (b"a", b"too long a body")):
        client = Recorder("/invocations")
        choice.invoke(client, body, {TARGET: name})
    assert counted(choice.times) == {"a": (1, 250_000), "b": (0, 0)}


def test_content_types_are_remembered_up_to_a_bound() -> None:
    pipeline = Pipeline([("a", adding(b"", b"a/b"))], 100)
    for number in range(2 * KINDS_REMEMBERED_MAX):
        assert pipeline.kind_of(b"x: y\r\nContent-Type: a/%d\r\n" % number) == b"a/%d" % number
    assert pipeline.kind_of(b"x-content-type: no\r\n") is None


SCALE = """
    import json, os
    from utils import factor
    def model_fn(model_dir):
        return factor(model_dir)
    def input_fn(body, content_type):
        return json.loads(body)
    def predict_fn(rows, model):
        from utils import late
        return [[late(value) * model for value in row] for row in rows]
    def output_fn(rows, accept):
        print("scaled by", os.environ["SCALE"])
        return json.dumps(rows), "application/json"
"""
UTILS = """
    import os
    def factor(model_dir):
        return float(os.environ["SCALE"])
    def late(value):
        return value + {plus}
"""


def containers(ml: Path, count: int) -> list[dict[str, Any]]:
    for number in range(count):
        write(ml, f"containers/{number}", inference=SCALE, utils=UTILS.replace("{plus}", str(number)))
    return [
        {"hostname": f"c-{n}", "folder": f"containers/{n}", "environment": {"SCALE": str(10**n)}} for n in range(count)
    ]


def test_user_code_of_each_container_is_its_own(tmp_path: Path) -> None:
    async def run() -> None:
        async with hosting(tmp_path, containers(tmp_path, 3)) as server:
            got = await ask(server, "/invocations", b"[[1, 2]]", content_type="application/json")
            assert (got.status, json.loads(got.body)) == (200, [[2200.0, 3200.0]])
            refused = await ask(server, "/invocations", b"[[1,", content_type="application/json")
            assert refused.status == 500
            assert b"x-eyrie-container: c-0" in refused.lines
            parameters = await ask(server, "/execution-parameters", method="GET")
            assert json.loads(parameters.body)["MaxConcurrentTransforms"] == 1

    asyncio.run(run())


def test_direct_invocation_by_hostname(tmp_path: Path) -> None:
    async def run() -> None:
        async with hosting(tmp_path, containers(tmp_path, 2), execution="Direct") as server:

            async def direct(hostname: str | None, body: bytes = b"[[1]]") -> Recorder:
                named = {} if hostname is None else {"x_amzn_sagemaker_target_container_hostname": hostname}
                return await ask(server, "/invocations", body, content_type="application/json", **named)

            assert json.loads((await direct("c-0")).body) == [[1.0]]
            assert json.loads((await direct("c-1")).body) == [[20.0]]
            unknown, unnamed = await direct("c-2"), await direct(None)
            assert (unknown.status, unknown.body) == (400, b"no such container; there are c-0, c-1")
            assert (unnamed.status, b"c-0, c-1" in unnamed.body) == (400, True)
            metadata = json.loads((await ask(server, "/eyrie/metadata", method="GET")).body)
            assert metadata["execution"] == "Direct"
            assert [(c["hostname"], c["kind"]) for c in metadata["containers"]] == [("c-0", "calls"), ("c-1", "calls")]

    asyncio.run(run())


def test_a_container_that_cannot_be_loaded_is_named(tmp_path: Path, caplog: Any) -> None:
    given = containers(tmp_path, 2)
    write(tmp_path, "containers/1", utils="raise RuntimeError('no utils today')")

    async def run() -> None:
        with pytest.raises(AssertionError):
            async with hosting(tmp_path, given):
                pass

    asyncio.run(run())
    assert caplog.records[-1].getMessage() == "The model could not be loaded: RuntimeError: no utils today"


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("Colours-1.0", "colours-1.0", ""),
        ("colours-1.0", "shapes-2.0", ""),
        ("colours-1.0", "Colours-1.1", "requirements of container a hold colours 1.0, those of b 1.1"),
        ("colours-1.0", "numpy-0.1", "requirements of container b hold numpy 0.1, and the server runs with"),
    ],
)
def test_requirements_that_disagree_are_refused(first: str, second: str, words: str, tmp_path: Path) -> None:
    folders = [("a", tmp_path / "a"), ("b", tmp_path / "b"), ("c", tmp_path / "none")]
    for (_, folder), held in zip(folders, (first, second), strict=False):
        (folder / f"{held}.dist-info").mkdir(parents=True)
    if not words:
        requirements.check(folders)
        return
    with pytest.raises(LoadError, match=words):
        requirements.check(folders)


def test_row_models_hand_on_without_threads(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    joblib = pytest.importorskip("joblib")
    import numpy as np
    from sklearn.linear_model import LinearRegression

    rows = np.random.default_rng(3).normal(size=(50, 4)).astype(np.float32)
    first = LinearRegression().fit(rows, rows[:, :3] * 2)  # three columns out: what the next one takes
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(rows[:, :3] * 2, rows[:, 0]), 5)
    joblib.dump(first, write(tmp_path, "containers/0") / "model.joblib")
    booster.save_model(write(tmp_path, "containers/1") / "xgboost-model.json")
    given = [{"hostname": f"c-{n}", "folder": f"containers/{n}"} for n in range(2)]
    expected = booster.inplace_predict(first.predict(rows[:2].astype(float)).astype(np.float32))

    async def run() -> None:
        async with hosting(tmp_path, given) as server:
            body = "\n".join(",".join(map(repr, row)) for row in rows[:2].tolist()).encode()
            many = [Recorder("/invocations", body, content_type="text/csv") for _ in range(8)]
            for client in many:
                hosting_world.give(server, client)
            await until(lambda: all(client.replies for client in many))
            for client in many:
                assert client.lines.startswith(b"content-type: text/csv")
                assert [float(text) for text in client.body.split(b",")] == pytest.approx(expected.tolist(), rel=1e-6)
            metadata = json.loads((await ask(server, "/eyrie/metadata", method="GET")).body)["containers"]
            assert metadata[0]["inputs"] == [{"name": "input", "dtype": "float64", "shape": [-1, 4], "columns": []}]
            assert metadata[0]["outputs"] == [{"name": "output", "dtype": "float64", "shape": [-1, 3]}]
            assert (metadata[1]["framework"], metadata[1]["outputs"][0]["shape"]) == ("xgboost", [-1])
            assert metadata[1]["version"] == xgboost.__version__

    asyncio.run(run())
