"""Constraints as AWS words them, deep inside and several at once."""

from __future__ import annotations

import json
from typing import Any

import peer
import pytest

from eyrie.wire.errors import ApiError, constraint_violations
from eyrie.wire.messages import HttpRequest
from eyrie.wire.model import Models
from eyrie.wire.validate import REPORTED_MAX


def send(models: Models, operation: str, body: Any) -> dict[str, Any]:
    headers = {"x-amz-target": f"SageMaker.{operation}", "content-type": "application/x-amz-json-1.1"}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return peer.wire(models).decode(HttpRequest("POST", "/", "", headers, raw)).params


def refused(models: Models, operation: str, body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        send(models, operation, body)
    return caught.value


VARIANT = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
CONFIG = {"EndpointConfigName": "c", "ProductionVariants": [VARIANT]}


def test_a_good_request_passes(models: Models) -> None:
    assert send(models, "CreateEndpointConfig", CONFIG) == CONFIG


@pytest.mark.parametrize(
    ("variant", "text"),
    [
        (
            {"VariantName": "-"},
            "1 validation error detected: Value '-' at 'productionVariants.1.member.variantName' failed to satisfy "
            "constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}",
        ),
        (
            {"VariantName": None},
            "1 validation error detected: Value null at 'productionVariants.1.member.variantName' failed to satisfy "
            "constraint: Member must not be null",
        ),
        (
            {"InitialInstanceCount": 0},
            "1 validation error detected: Value '0' at 'productionVariants.1.member.initialInstanceCount' failed to "
            "satisfy constraint: Member must have value greater than or equal to 1",
        ),
        (
            {"ModelName": "m" * 64},
            f"1 validation error detected: Value '{'m' * 64}' at 'productionVariants.1.member.modelName' failed to "
            "satisfy constraint: Member must have length less than or equal to 63",
        ),
        (
            {"RoutingConfig": {"RoutingStrategy": "ROUND"}},
            "1 validation error detected: Value 'ROUND' at "
            "'productionVariants.1.member.routingConfig.routingStrategy' failed to satisfy constraint: Member must "
            "satisfy enum value set: [LEAST_OUTSTANDING_REQUESTS, RANDOM, PREFIX_AWARE, KV_AWARE]",
        ),
    ],
)
def test_the_texts_are_awss(models: Models, variant: dict[str, Any], text: str) -> None:
    error = refused(models, "CreateEndpointConfig", {**CONFIG, "ProductionVariants": [{**VARIANT, **variant}]})
    assert (error.code, error.status) == ("ValidationException", 400)
    assert error.message == text


def test_several_errors_are_told_at_once(models: Models) -> None:
    error = refused(models, "CreateEndpointConfig", {"EndpointConfigName": "-", "ProductionVariants": []})
    assert error.message.startswith("2 validation errors detected: Value ")
    assert error.message.count("failed to satisfy constraint") == 2
    assert "; Value '[]' at 'productionVariants' failed" in error.message
    rebuilt = constraint_violations(error.message.partition(": ")[2].split("; "))
    assert rebuilt.message == error.message


def test_an_instance_type_that_does_not_exist(models: Models) -> None:
    variant = {**VARIANT, "InstanceType": "ml.x9.huge"}
    error = refused(models, "CreateEndpointConfig", {**CONFIG, "ProductionVariants": [variant]})
    where = "1 validation error detected: Value 'ml.x9.huge' at 'productionVariants.1.member.instanceType'"
    assert error.message.startswith(f"{where} failed to satisfy constraint: Member must satisfy enum value set: [ml.")
    assert len(error.message) < 400


def test_of_many_values_the_nearest_are_named(models: Models) -> None:
    variant = {**VARIANT, "InstanceType": "ml.m5.lrage"}
    told = refused(models, "CreateEndpointConfig", {**CONFIG, "ProductionVariants": [variant]}).message
    assert "enum value set: [ml.m5.large, " in told
    assert "others]" in told


def test_lists_and_maps_of_scalars_are_told_whole(models: Models) -> None:
    model = {"ModelName": "m", "PrimaryContainer": {"Image": "i", "Environment": {"a b": "c"}}}
    text = refused(models, "CreateModel", model).message
    assert "at 'primaryContainer.environment' failed to satisfy constraint: Map keys must satisfy constraint: [" in text
    model["PrimaryContainer"] = {"Image": "i", "Environment": {"A": "c" * 200_000}}
    text = refused(models, "CreateModel", model).message
    assert "Map value must satisfy constraint: [Member must have length less than or equal to" in text
    assert len(text) < 2000
    vpc = {"SecurityGroupIds": ["sg-1", "!"], "Subnets": ["subnet-1"]}
    text = refused(models, "CreateModel", {"ModelName": "m", "VpcConfig": vpc}).message
    assert "Value '[sg-1, !]' at 'vpcConfig.securityGroupIds' failed to satisfy constraint: Member must satisfy" in text


def test_reports_are_bounded(models: Models) -> None:
    tags = [{"Key": "", "Value": "!"} for _ in range(1000)]
    text = refused(models, "AddTags", {"ResourceArn": "arn:aws:sagemaker:us-east-1:123456789012:model/m", "Tags": tags})
    assert text.message.count("failed to satisfy") <= REPORTED_MAX


@pytest.mark.parametrize(
    ("operation", "body", "text"),
    [
        ("DescribeModel", {"ModelName": 5}, "NUMBER_VALUE can not be converted to a String at 'modelName'"),
        ("DescribeModel", [], "START_ARRAY can not be converted to a Structure"),
        ("ListModels", {"MaxResults": "5"}, "STRING_VALUE can not be converted to an Integer at 'maxResults'"),
        ("ListModels", {"MaxResults": 1.5}, "DECIMAL_VALUE can not be converted to an Integer at 'maxResults'"),
        ("ListModels", {"MaxResults": True}, "TRUE_VALUE can not be converted to an Integer at 'maxResults'"),
        ("ListModels", {"MaxResults": 2**31}, "Number out of the range of an Integer at 'maxResults'"),
        ("ListModels", {"CreationTimeAfter": "now"}, "STRING_VALUE can not be converted to milliseconds since epoch"),
        ("ListModels", {"CreationTimeAfter": 1e300}, "Timestamp out of range at 'creationTimeAfter'"),
        (
            "CreateEndpointConfig",
            {**CONFIG, "ProductionVariants": [{**VARIANT, "InitialVariantWeight": "x"}]},
            "STRING_VALUE can not be converted to a Float at 'productionVariants.1.member.initialVariantWeight'",
        ),
        (
            "CreateModel",
            {"ModelName": "m", "PrimaryContainer": {"Environment": {"A": 1}}},
            "NUMBER_VALUE can not be converted to a String at 'primaryContainer.environment.A.member'",
        ),
    ],
)
def test_wrong_types_are_serialization_errors(models: Models, operation: str, body: Any, text: str) -> None:
    error = refused(models, operation, body)
    assert (error.code, error.status) == ("SerializationException", 400)
    assert error.message.startswith(text)


def test_what_the_json_of_other_languages_does_is_read(models: Models) -> None:
    assert send(models, "ListModels", {"MaxResults": 5.0}) == {"MaxResults": 5}
    assert send(models, "ListModels", {"NextToken": None}) == {}
    assert send(models, "ListModels", b"") == {}
    assert send(models, "DescribeModel", {"ModelName": "m", "__type": "x"}) == {"ModelName": "m"}


def test_an_unknown_parameter_is_named(models: Models) -> None:
    error = refused(models, "DescribeModel", {"ModelName": "m", "Modelname": "m", "x": 1})
    assert error.message == "DescribeModel has no parameter 'Modelname', 'x'."
    nested = {**VARIANT, "FromTheFuture": 1}
    assert send(models, "CreateEndpointConfig", {**CONFIG, "ProductionVariants": [nested]}) == CONFIG


def test_a_union_holds_one(models: Models) -> None:
    shape = next(
        (operation, name)
        for operation in models.service("sagemaker").operations()
        if operation.input is not None
        for name, member in operation.input.members.items()
        if member.union
    )
    operation, name = shape
    error = refused(models, operation.name, {operation.input.members[name].wire_name or name: {}})  # type: ignore[union-attr]
    assert "Member must have exactly one of its members set" in error.message


def test_secrets_are_not_repeated(models: Models) -> None:
    secret = "s" * 5000
    form = f"Action=ChangePassword&Version=2010-05-08&OldPassword={secret}&NewPassword={secret}".encode()
    with pytest.raises(ApiError) as caught:
        peer.wire(models).decode(
            HttpRequest("POST", "/", "", {"content-type": "application/x-www-form-urlencoded"}, form)
        )
    assert "Value at 'oldPassword' failed to satisfy constraint" in caught.value.message
    assert "sss" not in caught.value.message


@pytest.mark.parametrize("depth", [40, 200, 20_000])
def test_nesting_is_bounded(models: Models, depth: int) -> None:
    inner = '{"SubExpressions": [' * depth + "{}" + "]}" * depth
    error = refused(models, "Search", f'{{"Resource": "Endpoint", "SearchExpression": {inner}}}'.encode())
    assert error.code == "SerializationException"
    assert "ested" in error.message


@pytest.mark.parametrize("weight", ["Infinity", 1e39])
def test_a_float_has_32_bits(models: Models, weight: object) -> None:
    variant = {"VariantName": "v", "InitialVariantWeight": weight}
    error = refused(models, "CreateEndpointConfig", {"EndpointConfigName": "c", "ProductionVariants": [variant]})
    assert "at 'productionVariants.1.member.initialVariantWeight' failed to satisfy constraint" in error.message
    assert "Member must have value less than or equal to 3.4028235e+38" in error.message
