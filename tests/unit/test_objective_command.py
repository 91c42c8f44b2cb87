"""`eyrie objective remove`, also once its endpoint is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eyrie.cli import availability
from eyrie.cli.errors import CommandError


class Api:
    """What the public API has: an endpoint, or none, and alarms."""

    def __init__(self, endpoint: dict[str, Any] | None, alarms: list[str]) -> None:
        self.there, self.alarms, self.asked = endpoint, alarms, list[tuple[str, dict[str, Any]]]()

    def of(self, data: Path) -> Api:
        return self

    def endpoint(self, name: str) -> dict[str, Any] | None:
        return self.there

    def ask(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        self.asked.append((operation, params))
        return {"MetricAlarms": [{"AlarmName": name} for name in self.alarms if name in params.get("AlarmNames", [])]}


def removed(api: Api, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What was asked of the API to remove the objective of `shop`."""
    monkeypatch.setattr(availability, "Public", api)
    availability.remove_objective(Path(), "shop", as_json=False)
    return dict(api.asked)


def test_alarms_that_a_deleted_endpoint_left_behind_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = removed(Api(None, ["shop-burn-rate-page", "other"]), monkeypatch)
    assert asked["delete_alarms"] == {"AlarmNames": ["shop-burn-rate-page"]}
    assert "delete_tags" not in asked


def test_tags_and_alarms_of_an_endpoint_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = removed(Api({"EndpointArn": "arn:shop"}, []), monkeypatch)
    assert asked["delete_tags"] == {"ResourceArn": "arn:shop", "TagKeys": ["eyrie:objective", "eyrie:probe"]}
    assert "delete_alarms" not in asked


def test_an_endpoint_that_never_was_has_nothing_to_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="there is no endpoint 'shop'"):
        removed(Api(None, []), monkeypatch)
