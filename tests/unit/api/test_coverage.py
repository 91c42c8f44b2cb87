"""The lists of what acts, is stored and is refused: complete, true, and the page that shows them fresh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eyrie.control import coverage, dispatch, unsupported
from eyrie.control.coverage_lists import ACTS, COMPANIONS, REFUSED, STORED
from eyrie.control.family import operations as family_operations
from eyrie.control.family_table import FAMILY
from eyrie.settings import Settings
from eyrie.wire.model import Models, Shape

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def models() -> Models:
    return Models()


def test_every_operation_of_sagemaker_is_in_exactly_one_list(models: Models) -> None:
    lists = [ACTS, STORED, *(area.operations for area in REFUSED)]
    every = set(models.service("sagemaker").operation_names)
    assert len(every) == 425
    assert set().union(*lists) == every
    assert sum(len(names) for names in lists) == len(every)


def test_the_lists_say_what_the_table_does(models: Models) -> None:
    service = models.service("sagemaker")
    table = dispatch.sagemaker(service)
    assert set(table) == set(service.operation_names)
    refusing = {name for name, operation in table.items() if operation.__name__ == "refuse"}
    assert refusing == set().union(*(area.operations for area in REFUSED))
    stored = set(family_operations(service)) | {"AssociateTrialComponent", "DisassociateTrialComponent"}
    assert stored == STORED


def test_no_noun_is_stored_whose_sisters_are_refused() -> None:
    refused = set().union(*(area.operations for area in REFUSED))
    for noun in FAMILY:
        for verb in ("Create", "Describe", "Delete", "Update", "Stop", "Start"):
            assert f"{verb}{noun.kind}" not in refused


def test_the_companions_are_those_that_the_table_has(models: Models) -> None:
    table = dispatch.table(models, Settings())
    for service in ("sts", "iam", "logs"):
        assert {name for s, name in table if s == service} == set(COMPANIONS[service])
        assert set(COMPANIONS[service]) <= set(models.service(service).operation_names)


def test_the_page_is_fresh() -> None:
    assert (ROOT / "docs" / "reference" / "coverage.md").read_text() == coverage.page()


def test_the_page_is_written_by_the_module() -> None:
    done = subprocess.run([sys.executable, "-m", "eyrie.control.coverage"], capture_output=True, text=True, check=True)
    assert done.stdout == coverage.page()


@pytest.mark.parametrize(
    ("operation", "path", "table"),
    [
        ("CreateModel", "", unsupported.MODEL),
        ("CreateModel", "PrimaryContainer", unsupported.CONTAINER),
        ("CreateEndpointConfig", "", unsupported.CONFIG),
        ("CreateEndpointConfig", "ProductionVariants", unsupported.VARIANT),
    ],
)
def test_the_members_that_are_refused_exist(models: Models, operation: str, path: str, table: dict[str, str]) -> None:
    shape = models.operation("sagemaker", operation).input
    assert shape is not None
    shape = shape.members[path] if path else shape
    shape = shape.element or shape
    for member in table:
        assert _follow(shape, member), member


def _follow(shape: Shape, path: str) -> bool:
    for part in path.split("."):
        if part not in shape.members:
            return False
        shape = shape.members[part]
    return True


def test_every_member_of_a_create_is_used_kept_or_refused(models: Models) -> None:
    """A member that a newer botocore brings must be decided on, not ignored."""
    used = {
        "CreateModel": {"ModelName", "PrimaryContainer", "Containers", "InferenceExecutionConfig", "Tags"},
        "CreateEndpointConfig": {"EndpointConfigName", "ProductionVariants", "ShadowProductionVariants", "Tags"},
        "CreateEndpoint": {"EndpointName", "EndpointConfigName", "DeploymentConfig", "Tags"},
        "UpdateEndpoint": {
            "EndpointName", "EndpointConfigName", "RetainAllVariantProperties", "ExcludeRetainedVariantProperties",
            "DeploymentConfig", "RetainDeploymentConfig",
        },
        "ContainerDefinition": {
            "ContainerHostname", "Image", "ImageConfig", "Mode", "ModelDataUrl", "ModelDataSource",
                "Environment", "MultiModelConfig",
        },
        "ProductionVariant": {
            "VariantName", "ModelName", "InitialInstanceCount", "InstanceType", "InitialVariantWeight", "RoutingConfig",
            "ContainerStartupHealthCheckTimeoutInSeconds", "ServerlessConfig",
        },
    }  # fmt: skip
    service = models.service("sagemaker")
    kept = {name.split()[0] for name in coverage.KEPT}
    refused = {
        p.split(".")[0]
        for t in (unsupported.MODEL, unsupported.CONTAINER, unsupported.CONFIG, unsupported.VARIANT)
        for p in t
    }
    for name, members in used.items():
        assert _members(service, name) - members - kept - refused == set(), name


def _members(service: Any, name: str) -> set[str]:
    if name == "ContainerDefinition":
        return set(service.operation("CreateModel").input.members["PrimaryContainer"].members)
    if name == "ProductionVariant":
        return set(service.operation("CreateEndpointConfig").input.members["ProductionVariants"].element.members)
    return set(service.operation(name).input.members)
