"""The loop of alarms over a store in memory and a real metrics file: states, history, actions, events, suppression, and
stores and metrics that hang.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toyworld import MemoryStore, SeededIdentity, ToyClock

from eyrie.adapters.metric_file import MetricFile
from eyrie.control import alarm_table, announcements, deliveries
from eyrie.control.alarms import Alarms
from eyrie.control.topics import TOPIC, subscription_document
from eyrie.decide.alarm_bands import Training
from eyrie.decide.alarms import Evaluation
from eyrie.domain.alarms import Alarm, AlarmState, Comparison, CompositeRule, MetricStat, MissingData, rule_on_metric
from eyrie.domain.events import Subscription, Topic
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import Scope
from eyrie.ports import Commit, Document

SCOPE = Scope()
MINUTE_MS = 60_000
TOPIC_ARN = "arn:aws:sns:us-east-1:123456789012:people"
STAT = MetricStat("Shop", "Errors", "Sum", 60)


class Rig:
    """The loop and what it works on."""

    def __init__(self, metrics: Any, store: Any = None, deadline_s: float = 10.0) -> None:
        self.clock, self.metrics = ToyClock(), metrics
        self.clock.ms = 1_700_000_040_000  # a whole minute
        self.store = store or MemoryStore()
        self.scaled: list[tuple[str, str]] = []
        actions = {"arn:aws:autoscaling:": self._scale}
        self.alarms = Alarms(
            self.store, metrics, self.clock, SeededIdentity(1), actions, lambda s, m: Training(), deadline_s=deadline_s
        )

    def _scale(self, alarm: Alarm, evaluation: Evaluation) -> None:
        self.scaled.append((alarm.name, str(evaluation.state)))

    def put(self, name: str = "high", threshold: float = 1.0, **more: Any) -> Alarm:
        rule = more.pop("metric", rule_on_metric(STAT, Comparison.ABOVE, threshold, 1))
        if "composite" in more:
            rule = None
        alarm = alarm_table.put(self.store, Alarm(SCOPE, name, rule, **more), self.clock.ms)
        self.alarms.wake()
        return alarm

    def measure(self, value: float, name: str = "Errors") -> None:
        """In the minute that now begins; then that minute goes by."""
        summary = Summary()
        summary.add(value)
        self.metrics.record([Measured(Metric(SCOPE, "Shop", name), self.clock.ms + 1, summary)])
        self.pass_time()

    def pass_time(self, ms: int = MINUTE_MS) -> None:
        self.clock.ms += ms

    def alarm(self, name: str = "high") -> Alarm:
        found = alarm_table.get(self.store, SCOPE, name)
        assert found is not None
        return found

    def in_state(self, state: AlarmState, name: str = "high") -> Callable[[], bool]:
        return lambda: self.alarm(name).state is state

    def history(self, name: str = "high") -> list[str]:
        return [event.what for event in self.store.events("Alarm", SCOPE, name)]


def driven(rig: Rig, script: Callable[[], Awaitable[None]]) -> None:
    """Run a script beside the loop."""

    async def both() -> None:
        task = asyncio.create_task(rig.alarms.run())
        try:
            await asyncio.wait_for(script(), 20)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(both())


async def until(seen: Callable[[], Any]) -> None:
    while not seen():
        await asyncio.sleep(0.005)


def reached(read: Callable[[], int], count: int) -> Callable[[], bool]:
    return lambda: read() >= count


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    clock = ToyClock()
    metrics = MetricFile(tmp_path / "metrics.db", clock)
    rig = Rig(metrics)
    metrics._clock = rig.clock
    yield rig
    metrics.close()


def test_an_alarm_follows_its_metric(rig: Rig) -> None:
    async def script() -> None:
        rig.put()
        rig.measure(5.0)
        await until(rig.in_state(AlarmState.ALARM))
        assert rig.alarm().reason.startswith("Threshold Crossed: 1 out of the last 1 datapoints [5.0 (")
        rig.measure(0.0)
        await until(rig.in_state(AlarmState.OK))
        for _ in range(3):
            rig.pass_time()
        await until(rig.in_state(AlarmState.INSUFFICIENT_DATA))

    driven(rig, script)
    assert [line for line in rig.history() if line.startswith("StateUpdate")][:2] == [
        "StateUpdate: Alarm updated from INSUFFICIENT_DATA to ALARM",
        "StateUpdate: Alarm updated from ALARM to OK",
    ]
    announced = [d.body["event"] for d in rig.store.scan(announcements.KIND)]
    assert {e["detail-type"] for e in announced} == {"CloudWatch Alarm State Change"}
    assert [(e["detail"]["previousState"]["value"], e["detail"]["state"]["value"]) for e in announced][:2] == [
        ("INSUFFICIENT_DATA", "ALARM"),
        ("ALARM", "OK"),
    ]


def test_a_killed_control_leaves_the_values_that_an_alarm_was_decided_on(tmp_path: Path) -> None:
    """What it lost may not let the older, good values decide again: ALARM -> OK -> ALARM, while all goes on failing."""
    metrics = MetricFile(tmp_path / "metrics.db", ToyClock())
    rig = Rig(metrics)
    metrics._clock = rig.clock
    rule = replace(rule_on_metric(STAT, Comparison.ABOVE, 1.0, 2, 1), missing=MissingData.IGNORE)

    async def goes_into_alarm() -> None:
        rig.put(metric=rule)
        rig.measure(0.0)
        rig.measure(0.0)
        await until(rig.in_state(AlarmState.OK))
        metrics.write()
        rig.measure(5.0)
        await until(rig.in_state(AlarmState.ALARM))

    driven(rig, goes_into_alarm)
    metrics._db.close()  # killed: nothing more is written
    after = MetricFile(tmp_path / "metrics.db", rig.clock)
    again = Rig(after, rig.store)
    again.clock.ms = rig.clock.ms + MINUTE_MS  # of which nothing was measured

    async def is_evaluated() -> None:
        await until(reached(lambda: again.alarms.counts["evaluated"], 1))
        again.measure(5.0)
        await until(reached(lambda: again.alarms.counts["evaluated"], 2))
        again.measure(5.0)
        await until(reached(lambda: again.alarms.counts["evaluated"], 3))

    driven(again, is_evaluated)
    after.close()
    assert again.alarms.counts["changed"] == 0
    assert again.alarm().state is AlarmState.ALARM


def subscribe(rig: Rig) -> None:
    topic = Topic(SCOPE, "people")
    rig.store.commit(
        Commit(puts=[Document(TOPIC, SCOPE, "people", 0, 0, 0, {"scope": vars_of(SCOPE), "name": "people"})])
    )
    one = Subscription(SCOPE, topic.name, "s1", "http", "http://somewhere/hook", "t", confirmed=True)
    rig.store.commit(Commit(puts=[subscription_document(rig.store, one, 0)]))


def vars_of(scope: Scope) -> dict[str, str]:
    return {"account": scope.account, "region": scope.region}


def test_the_commit_of_a_change_holds_what_subscribers_are_owed(rig: Rig) -> None:
    subscribe(rig)

    async def script() -> None:
        rig.put(alarm_actions=(TOPIC_ARN, "arn:aws:sns:us-east-1:123456789012:gone"))
        rig.measure(5.0)
        await until(rig.in_state(AlarmState.ALARM))

    driven(rig, script)
    (owed,) = rig.store.scan(deliveries.KIND)
    assert owed.body["to"] == "http://somewhere/hook"
    assert '"Subject": "ALARM: \\"high\\" in US East (N. Virginia)"' in owed.body["body"]
    acted = [line for line in rig.history() if line.startswith("Action")]
    assert acted == [
        f"Action: Successfully executed action {TOPIC_ARN}",
        "Action: Failed to execute action arn:aws:sns:us-east-1:123456789012:gone. Received error: "
        '"Resource: arn:aws:sns:us-east-1:123456789012:gone is not found"',
    ]


def test_scaling_is_asked_at_every_evaluation_while_in_alarm(rig: Rig) -> None:
    async def script() -> None:
        rig.put(alarm_actions=("arn:aws:autoscaling:us-east-1:1:scalingPolicy:p",))
        for count in (1, 2, 3):
            rig.measure(5.0)
            await until(reached(lambda: len(rig.scaled), count))

    driven(rig, script)
    assert set(rig.scaled) == {("high", "ALARM")}


def test_disabled_actions_are_not_done(rig: Rig) -> None:
    subscribe(rig)

    async def script() -> None:
        rig.put(alarm_actions=(TOPIC_ARN, "arn:aws:autoscaling:us-east-1:1:x"), actions_enabled=False)
        rig.measure(5.0)
        await until(rig.in_state(AlarmState.ALARM))

    driven(rig, script)
    assert rig.store.scan(deliveries.KIND) == []
    assert rig.scaled == []


def test_a_composite_follows_its_children_at_once(rig: Rig) -> None:
    async def script() -> None:
        rig.put("a")
        rig.put("b", threshold=100.0)
        rig.put("both", composite=CompositeRule("ALARM(a) AND NOT ALARM(b)"))
        rig.put("over", composite=CompositeRule(f'ALARM("{rig.alarm("both").arn}")'))
        rig.measure(5.0)
        await until(rig.in_state(AlarmState.ALARM, "over"))
        assert rig.alarm("both").reason.startswith(f"{rig.alarm('a').arn} transitioned to ALARM at ")
        rig.measure(500.0)
        await until(rig.in_state(AlarmState.OK, "over"))

    driven(rig, script)


def test_a_suppressor_holds_actions_back_for_its_periods(rig: Rig) -> None:
    subscribe(rig)

    def owed() -> int:
        return len(rig.store.scan(deliveries.KIND))

    async def script() -> None:
        rig.put("a")
        rig.put("works")
        rig.store.commit(Commit(deletes=[rig.store.get("Alarm", SCOPE, "works")]))  # type: ignore[list-item]
        alarm_table.put(
            rig.store,
            replace(
                rig.alarm("a"),
                name="works",
                metric=rule_on_metric(MetricStat("Shop", "Works", "Sum", 60), Comparison.ABOVE, 0.0, 1),
            ),
            rig.clock.ms,
        )
        rule = CompositeRule("ALARM(a)", "works", wait_s=30, extension_s=20)
        rig.put("page", composite=rule, alarm_actions=(TOPIC_ARN,))
        rig.measure(5.0)
        await until(rig.in_state(AlarmState.ALARM, "page"))
        assert (rig.alarm("page").suppression.by, owed()) == ("WaitPeriod", 0)  # type: ignore[union-attr]
        rig.pass_time(31_000)  # the suppressor did not follow
        await until(lambda: owed() == 1)
        assert rig.alarm("page").suppression is None

    driven(rig, script)


class Hanging:
    """A port whose calls hang until they are let go."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.open = threading.Event()
        self.open.set()
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.asked += 1
            assert self.open.wait(15)
            return found(*args, **kwargs)

        return call


def test_a_metrics_file_that_hangs_delays_nobody_for_ever(tmp_path: Path) -> None:
    clock = ToyClock()
    metrics = MetricFile(tmp_path / "metrics.db", clock)
    hanging = Hanging(metrics)
    rig = Rig(hanging, deadline_s=0.05)
    metrics._clock = rig.clock

    async def script() -> None:
        rig.put()
        hanging.open.clear()
        metrics.record([])
        await until(lambda: rig.alarms.counts["evaluated"] == 1)
        for late in (1, 2):
            rig.pass_time()
            await until(reached(lambda: rig.alarms.counts["late"], late))
        assert rig.alarms.counts["evaluated"] == 1  # never twice at once
        await asyncio.sleep(0.06)
        hanging.open.set()
        await until(lambda: rig.alarms.counts["overdue"] == 1)
        rig.measure(5.0)
        await until(rig.in_state(AlarmState.ALARM))

    driven(rig, script)
    metrics.close()


def test_a_store_that_hangs_is_asked_once_and_alarms_are_evaluated_still(tmp_path: Path) -> None:
    clock = ToyClock()
    metrics = MetricFile(tmp_path / "metrics.db", clock)
    memory = MemoryStore()
    store = Hanging(memory)
    rig = Rig(metrics, store)
    metrics._clock = rig.clock

    async def script() -> None:
        rig.put()
        await until(lambda: rig.alarms.counts["evaluated"] >= 1)
        store.open.clear()
        asked = store.asked
        rig.alarms.wake()
        rig.alarms.wake()
        for count in (2, 3, 4):
            rig.pass_time()
            await until(reached(lambda: rig.alarms.counts["evaluated"], count))
        assert store.asked <= asked + 2  # one look, and perhaps one that was on its way
        store.open.set()
        rig.measure(5.0)
        await until(rig.in_state(AlarmState.ALARM))

    driven(rig, script)
    metrics.close()
