"""The table of instance types: what it says, what is derived, how a user replaces it."""

from __future__ import annotations

import json
from pathlib import Path

import botocore.session
import pytest

from eyrie.adapters.instance_types import InstanceTypesError, load_instance_types
from eyrie.domain.instance_types import UnknownInstanceType


def test_a_known_type(tmp_path: Path) -> None:
    row = load_instance_types(tmp_path).get("ml.m5.large")
    assert (row.vcpu, row.memory_mb, row.accelerators, row.derived) == (2, 8192, 0, False)
    assert row.vcpu_milli == 2000
    assert row.refusal() is None
    assert row.usd_per_hour == pytest.approx(0.1152)


def test_accelerators_are_refused_with_the_reason(tmp_path: Path) -> None:
    assert "accelerator" in str(load_instance_types(tmp_path).get("ml.g4dn.xlarge").refusal())


def test_every_type_of_the_service_model_is_known_derived_or_refused(tmp_path: Path) -> None:
    model = botocore.session.get_session().get_service_model("sagemaker")
    types = load_instance_types(tmp_path)
    unknown = []
    for name in model.shape_for("ProductionVariantInstanceType").enum:
        try:
            assert types.get(name).memory_mb >= 1024
        except UnknownInstanceType:
            unknown.append(name.split(".")[1].rstrip("0123456789"))
    assert all(family.startswith(("g", "p", "dl", "trn", "inf")) for family in unknown)


@pytest.mark.parametrize(
    ("name", "vcpu", "memory_mb"),
    [("ml.m8g.medium", 1, 4096), ("ml.c8g.24xlarge", 96, 196_608), ("ml.r7gd.xlarge", 4, 32_768)],
)
def test_a_type_of_a_general_family_is_derived(tmp_path: Path, name: str, vcpu: int, memory_mb: int) -> None:
    row = load_instance_types(tmp_path).get(name)
    assert (row.vcpu, row.memory_mb, row.derived, row.usd_per_hour) == (vcpu, memory_mb, True, None)


@pytest.mark.parametrize("name", ["ml.g9.xlarge", "m5.large", "ml.m5.huge", "", "ml.m5.large "])
def test_what_cannot_be_worked_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownInstanceType, match=r"instance_types\.json"):
        load_instance_types(tmp_path).get(name)


def test_a_users_rows_lie_over_the_shipped_ones(tmp_path: Path) -> None:
    rows = {"ml.m5.large": {"vcpu": 1, "memory_mb": 512}, "ml.own.large": {"vcpu": 3, "memory_mb": 1024}}
    (tmp_path / "instance_types.json").write_text(json.dumps({"types": rows}))
    types = load_instance_types(tmp_path)
    assert (types.get("ml.m5.large").vcpu, types.get("ml.own.large").vcpu, types.get("ml.m5.xlarge").vcpu) == (1, 3, 4)


def test_a_vcpu_may_be_a_share_of_a_core(tmp_path: Path) -> None:
    row = {"vcpu": 2, "memory_mb": 4096, "cpu_percent": 6, "cpu_baseline_percent": 20, "launch_credits": 3.6}
    (tmp_path / "instance_types.json").write_text(json.dumps({"types": {"ml.t2.medium": row}}))
    found = load_instance_types(tmp_path).get("ml.t2.medium")
    assert (found.vcpu, found.vcpu_milli) == (2, 120)
    assert found.burst is not None
    assert (found.burst.baseline_milli, round(found.burst.credits_per_hour, 9)) == (24, 1.44)


def test_a_users_table_may_replace_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "instance_types.json").write_text(
        '{"replace": true, "types": {"ml.own": {"vcpu": 3, "memory_mb": 1024}}}'
    )
    assert set(load_instance_types(tmp_path).rows) == {"ml.own"}


BAD = ["{", '{"types": {"ml.x": {"vcpu": 0, "memory_mb": 512}}}', '{"types": {"ml.x": {"cpus": 1}}}']


@pytest.mark.parametrize("text", BAD)
def test_a_bad_file_is_named_with_its_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "instance_types.json").write_text(text)
    with pytest.raises(InstanceTypesError, match=r"instance_types\.json"):
        load_instance_types(tmp_path)
