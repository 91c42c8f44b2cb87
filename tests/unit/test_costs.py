"""What things cost: the arithmetic, and that no death of control counts anything twice or leaves more than it says."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from toyworld import KEY, MemoryStore, ToyClock, fresh, wish

from eyrie.adapters.instance_types import load_instance_types
from eyrie.adapters.metric_file import MetricFile
from eyrie.control.cost_meter import CostMeter, Standing
from eyrie.control.jobs import encode
from eyrie.decide import costs
from eyrie.domain.costs import Life, Payer, Served, ServerlessPrice
from eyrie.domain.endpoint import Endpoint, EndpointStatus
from eyrie.domain.jobs import Job, JobKey, JobSpec, JobState
from eyrie.domain.metrics import Measured, Metric, Summary, merged
from eyrie.domain.names import Scope
from eyrie.domain.serverless import Serverless
from eyrie.ports import Commit, Document

OWN = Scope("123456789012", "us-east-1")
PAYER = Payer(KEY.scope, KEY.name, "A")
M, H = costs.MINUTE_MS, costs.HOUR_MS


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_steps_cover_the_time_without_gap_or_overlap_and_end_with_minutes() -> None:
    cursor, now = 7 * M, 50 * H + 12_345
    made = list(costs.steps(cursor, now))
    assert made[0][0] == cursor
    assert all(a[1] == b[0] for a, b in pairwise(made))
    assert now - M < made[-1][1] <= now
    assert {end - start for start, end in made} == {M, H}
    assert made[-1][1] - made[-1][0] == M
    assert len(made) < 300


def test_steps_have_a_bound() -> None:
    made = list(costs.steps(0, 400 * 24 * H))
    assert made[0][0] == 400 * 24 * H - costs.AWAY_MAX_MS
    assert len(made) < 14 * 24 + 240


def test_a_life_costs_for_the_part_of_a_step_that_it_was_there() -> None:
    lives = [Life(PAYER, 0.6, 30_000, 2 * M), Life(PAYER, 0.6, 0, 10_000), Life(replace(PAYER, variant="B"), 1, 5, 5)]
    assert costs.by_the_hour(lives, (0, M)) == {PAYER: pytest.approx(0.6 * 40_000 / H)}
    assert costs.by_the_hour(lives, (M, 2 * M)) == {PAYER: pytest.approx(0.01)}
    assert costs.by_the_hour(lives, (2 * M, 3 * M)) == {}


def test_serverless_costs_by_gigabytes_and_seconds() -> None:
    price = ServerlessPrice(0.000_02, 0.000_005)
    assert costs.by_the_second(3_000_000, 2048, price) == pytest.approx(0.000_12)
    assert costs.provisioned_per_hour(2, 1024, price) == pytest.approx(0.036)


def test_what_a_step_is_told_as() -> None:
    step = (M, 2 * M)
    made = list(costs.measurements({PAYER: 0.5, Payer(KEY.scope, job="j"): 0.25}, {PAYER: Served(10.0)}, step, OWN))
    told = {(m.metric.name, m.metric.dimensions): m.summary for m in made}
    endpoint = ("EndpointName", KEY.name)
    assert told[costs.COST, (endpoint, ("VariantName", "A"))].total == 0.5
    assert told[costs.COST, (endpoint,)].total == 0.5
    assert told[costs.COST, (("TransformJobName", "j"),)].total == 0.25
    assert told[costs.COST, ()].total == 0.75
    assert told[costs.RATE, ()].total == pytest.approx(45.0)
    each = told[costs.PER_REQUEST, (endpoint, ("VariantName", "A"))]
    assert each.count == 10.0
    assert each.total == pytest.approx(0.5)
    assert made[-1].metric == Metric(OWN, costs.NAMESPACE, costs.COST)  # the cursor is written last


# --- the meter --------------------------------------------------------------------------------------------------------


class House:
    """An endpoint whose instances run, a metrics file, and control, which may die."""

    def __init__(self, tmp_path: Path, **spec: Any) -> None:
        rig = fresh()
        rig.endpoints.create(KEY, wish(("A", 2), **spec))
        rig.run_until(lambda: rig.endpoint().status is EndpointStatus.IN_SERVICE)
        self.endpoint: Endpoint = rig.endpoint()
        self.clock = ToyClock()
        self.clock.ms = 1_700_000_000_000 // H * H
        self.born(self.clock.ms)
        self.store = MemoryStore()
        self.path = tmp_path / "metrics.db"
        self.types = load_instance_types(tmp_path)
        self.alive = frozenset(i.instance_id for i in self.endpoint.instances)
        self.up = True
        self.start()

    def born(self, at_ms: int) -> None:
        instances = tuple(replace(i, ready_ms=at_ms) for i in self.endpoint.instances)
        self.endpoint = replace(self.endpoint, instances=instances)

    def start(self) -> None:
        """Control begins, on what the disk has."""
        self.metrics = MetricFile(self.path, self.clock)
        self.meter = CostMeter(self.metrics, self.store, self.clock, lambda: self.standing(), self.types, OWN)

    def standing(self) -> list[Standing]:
        return [(self.endpoint, self.alive)]

    def look(self, after_ms: int = 5_000) -> None:
        self.clock.ms += after_ms
        self.meter.look(self.standing())

    def kill(self, away_ms: int = 0) -> None:
        """Control dies at once: what was not written is lost; and is back after a while."""
        self.metrics._db.close()
        self.clock.ms += away_ms
        self.start()

    def total(self, *dimensions: tuple[str, str], name: str = costs.COST) -> Summary:
        metric = Metric(OWN, costs.NAMESPACE, name, dimensions)
        return merged(self.metrics.summaries(metric, 0, self.clock.ms // M * M + M, M).values())


def price(house: House) -> float:
    found = house.types.get(house.endpoint.fleet.variants[0].spec.instance_type).usd_per_hour
    assert found is not None
    return found


def test_instances_cost_by_the_hour(tmp_path: Path) -> None:
    house = House(tmp_path)
    for _ in range(12 * 60):
        house.look()
    assert house.total().total == pytest.approx(2 * price(house))
    assert house.total(("EndpointName", KEY.name), ("VariantName", "A")).total == pytest.approx(2 * price(house))
    assert house.total(name=costs.RATE).highest == pytest.approx(2 * price(house))
    house.metrics.close()


def test_whatever_dies_whenever_an_hour_costs_an_hour(tmp_path: Path) -> None:
    house, chance = House(tmp_path), random.Random(7)
    began_ms = house.clock.ms
    while house.clock.ms < began_ms + 2 * H:
        house.look(chance.choice((1_000, 5_000, 70_000)))
        if chance.random() < 0.3:
            house.metrics.write()
        if chance.random() < 0.05:
            house.kill(away_ms=chance.choice((0, 3_000, 400_000)))
    house.look(M)
    settled_ms = house.clock.ms // M * M - began_ms
    assert house.total().total == pytest.approx(2 * price(house) * settled_ms / H)
    house.metrics.close()


def test_an_instance_that_went_while_nobody_looked_costs_up_to_the_last_record(tmp_path: Path) -> None:
    house = House(tmp_path)
    for _ in range(13):
        house.look()
    house.metrics.write()
    house.kill(away_ms=10 * M)
    house.alive = frozenset()
    house.look()
    assert house.total().total == pytest.approx(2 * price(house) / 60)
    house.metrics.close()


def test_instances_that_are_dead_cost_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.alive = frozenset()
    house.look(0)
    house.look(10 * M)
    assert (house.total().total, house.total().count) == (0.0, 10.0)  # the cursor moves on
    house.metrics.close()


def test_a_serverless_variant_costs_while_its_model_works(tmp_path: Path) -> None:
    house = House(tmp_path, may_be_empty=True, serverless=Serverless(2048, 20, provisioned=1))
    house.look()
    dimensions = (("EndpointName", KEY.name), ("VariantName", "A"))
    for name, value, times in (("ModelLatency", 500_000.0, 40), ("Invocations", 1.0, 40)):
        summary = Summary()
        summary.add(value, times)
        house.metrics.record([Measured(Metric(OWN, "AWS/SageMaker", name, dimensions), house.clock.ms, summary)])
    for _ in range(12):
        house.look()
    kept = 60 * 2 * 0.000_005  # the first look saw it five seconds after the minute began
    assert house.total(*dimensions).total == pytest.approx(20 * 2 * 0.000_02 + kept * 55 / 60)
    assert house.total(*dimensions, name=costs.PER_REQUEST).count == 40
    house.metrics.close()


def test_a_transform_job_costs_from_its_start_to_its_end(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.alive = frozenset()
    at_ms = house.clock.ms
    spec = JobSpec("transform", {}, {}, "s3://b/o", 1, 1, 1)
    asked = {"TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 3}}
    key = JobKey("TransformJob", OWN.account, OWN.region, "t")
    job = Job(key, "t-1", spec, JobState.COMPLETED, "", at_ms, at_ms, at_ms + 20_000, at_ms + 110_000, request=asked)
    house.store.commit(Commit(puts=[Document("TransformJob", OWN, "t", 0, at_ms, at_ms, encode(job))]))
    for _ in range(60):
        house.look()
    assert house.total(("TransformJobName", "t")).total == pytest.approx(3 * price(house) * 90 / 3600)
    house.metrics.close()


def test_a_type_without_a_price_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    house = House(tmp_path)
    variant = house.endpoint.fleet.variants[0]
    dear = replace(variant, spec=replace(variant.spec, instance_type="ml.m99.large"))
    house.endpoint = replace(house.endpoint, fleet=replace(house.endpoint.fleet, variants=(dear,)))
    for _ in range(3):
        house.look(5 * M)
    assert house.total().total == 0.0
    assert caplog.text.count("ml.m99.large has no price") == 1
    house.metrics.close()
