"""Documents that earlier versions stored still load: `stored/` holds some, written by the versions themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyrie.adapters.slots import Slot
from eyrie.control.endpoints import decode, encode
from eyrie.domain.routing import ContainerMode, EndpointRoute, Execution

STORED = Path(__file__).parent / "stored"


@pytest.fixture(scope="module")
def old() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((STORED / "single_container.json").read_text())
    return found


def test_an_endpoint_of_single_containers_loads_and_is_stored_in_todays_form(old: dict[str, Any]) -> None:
    endpoint = decode(old["endpoint"])
    assert endpoint.deployment is not None
    for fleet in (endpoint.fleet, endpoint.deployment.green):
        model = fleet.variants[0].spec.model
        assert [c.image for c in model.containers] == ["eyrie/xgboost"]
        assert (model.hostname, model.execution) == ("primary", Execution.SERIAL)
        assert model.containers[0].mode is ContainerMode.SINGLE_MODEL
    body = encode(endpoint)
    assert decode(body) == endpoint
    assert "container" not in body["fleet"]["variants"][0]["spec"]["model"]


def test_an_instance_that_an_earlier_version_started_is_known_again(tmp_path: Path, old: dict[str, Any]) -> None:
    (tmp_path / "spec.json").write_bytes(msgspec.json.encode(old["instance"]))
    spec = Slot(tmp_path).spec()
    assert spec is not None
    assert spec.instance_id == old["instance"]["instance_id"]
    assert [c.hostname for c in spec.containers] == ["primary"]


def test_a_file_that_is_no_specification_is_none(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"containers": 3}', "nonsense"):
        (tmp_path / "spec.json").write_text(text)
        assert Slot(tmp_path).spec() is None


def test_a_route_table_of_before_is_read_with_what_it_lacked() -> None:
    target = {"instance_id": "i-1", "socket": "/s", "zone": "a"}
    variant = {"name": "v", "weight": 1.0, "strategy": "RANDOM", "container": "primary", "targets": [target]}
    key = {"account": "123456789012", "region": "us-east-1", "name": "e"}
    route = msgspec.convert({"key": key, "generation": 3, "variants": [variant]}, EndpointRoute)
    read = route.variants[0]
    assert (read.mode, read.execution, read.containers) == (ContainerMode.SINGLE_MODEL, Execution.SERIAL, ())
    assert read.targets[0].workers == 1
