"""SageMaker's Model: what an image, an archive and an environment are together. A record; endpoints copy it whole.

A model in use may be deleted: an endpoint holds its whole specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eyrie.control import image_table, images
from eyrie.control.context import Context, Operation, Params, first_duplicate, seconds, without
from eyrie.control.listing import Row, page
from eyrie.control.records import delete_with_tags, put_new
from eyrie.control.unsupported import CONTAINER, MODEL, refuse_unsupported, unsupported
from eyrie.ports import Document
from eyrie.wire.errors import could_not_find, validation

KIND = "Model"
MULTI_MODEL = "MultiModel"
NOUN = "model"


def operations() -> Mapping[str, Operation]:
    """The operations on models."""
    return {
        "CreateModel": create_model,
        "DescribeModel": describe_model,
        "ListModels": list_models,
        "DeleteModel": delete_model,
    }


def model_arn(context: Context, name: str) -> str:
    """A model's ARN."""
    return context.arn("model", name)


def find_model(context: Context, name: str) -> Document:
    """The model, or ValidationException `Could not find model "arn".`"""
    found = context.get(KIND, name)
    if found is None:
        raise could_not_find(NOUN, model_arn(context, name))
    return found


def containers_of(model: Document) -> Sequence[dict[str, Any]]:
    """The containers of a model, in the order of a pipeline."""
    primary = model.body.get("PrimaryContainer")
    several: Sequence[dict[str, Any]] = [primary] if primary is not None else model.body["Containers"]
    return several


def model_data_url(container: Mapping[str, Any]) -> str | None:
    """Where a container's model archive, or the prefix of its files, is: an s3:// URL; None: it has no model data."""
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    return source["S3Uri"] if source else container.get("ModelDataUrl")


def create_model(context: Context, params: Params) -> dict[str, Any]:
    """Store a model whose images there are and whose archives could be some."""
    name = params["ModelName"]
    refuse_unsupported(params, MODEL)
    containers = _containers(params)
    for container in containers:
        _check_container(context, container)
    _check_together(containers, params.get("InferenceExecutionConfig"))
    return {"ModelArn": put_new(context, "model", NOUN, context.new(KIND, name, without(params, "Tags")), params)}


def describe_model(context: Context, params: Params) -> dict[str, Any]:
    """A model as it was created."""
    found = find_model(context, params["ModelName"])
    executed = {"InferenceExecutionConfig": {"Mode": "Serial"}} if len(containers_of(found)) > 1 else {}
    return {
        "EnableNetworkIsolation": False,
        **executed,
        **found.body,
        "ModelArn": model_arn(context, found.name),
        "CreationTime": seconds(found.created_ms),
    }


def list_models(context: Context, params: Params) -> dict[str, Any]:
    """Models, newest first."""
    return page("ListModels", params, [_row(context, d) for d in context.store.scan(KIND, context.scope)]).reply(
        "Models"
    )


def delete_model(context: Context, params: Params) -> dict[str, Any]:
    """Forget a model; endpoints that run it go on."""
    delete_with_tags(context, "model", find_model(context, params["ModelName"]))
    return {}


def _row(context: Context, d: Document) -> Row:
    summary = {"ModelName": d.name, "ModelArn": model_arn(context, d.name), "CreationTime": seconds(d.created_ms)}
    return Row(d.name, d.created_ms, d.modified_ms, summary)


def _containers(params: Params) -> Sequence[dict[str, Any]]:
    primary, several = params.get("PrimaryContainer"), params.get("Containers")
    if primary is not None and several:
        raise validation("A model has either a PrimaryContainer or Containers, not both.")
    if primary is None and not several:
        raise validation("A model needs a PrimaryContainer or Containers.")
    given: Sequence[dict[str, Any]] = several or [primary]
    return given


def _check_together(containers: Sequence[Mapping[str, Any]], execution: Mapping[str, Any] | None) -> None:
    """What holds among the containers of one model: their names, and how they are run."""
    names = [c["ContainerHostname"] for c in containers if "ContainerHostname" in c]
    twice = first_duplicate(names)
    if twice is not None:
        raise validation(f'ContainerHostname must be unique within a model: "{twice}" occurs twice.')
    if len(containers) == 1:
        if execution is not None and execution["Mode"] == "Direct":
            raise validation("InferenceExecutionConfig.Mode Direct needs Containers, 2 to 15 of them.")
        return
    multi = [c for c in containers if c.get("Mode") == MULTI_MODEL]
    if len(multi) > 1:
        raise validation("More than one container in MultiModel mode is not supported with inference pipeline.")
    if multi:
        raise unsupported("Mode MultiModel in one of several Containers", "a pipeline's containers hold one model each")
    if names and len(names) < len(containers):
        raise validation("Either every one of the Containers has a ContainerHostname, or none has.")
    if execution is not None and execution["Mode"] == "Direct" and not names:
        raise validation(
            "InferenceExecutionConfig.Mode Direct needs a ContainerHostname for every one of the Containers."
        )


def _check_container(context: Context, container: Mapping[str, Any]) -> None:
    refuse_unsupported(container, CONTAINER, "the container's ")
    if container.get("ImageConfig", {}).get("RepositoryAccessMode") == "Vpc":
        raise unsupported("ImageConfig.RepositoryAccessMode Vpc", "there are no registries in a VPC here")
    image = container.get("Image")
    if not image:
        raise validation("A container needs an Image.")
    if image_table.resolve(context, image) is None and images.resolve(image) is None:
        raise validation(image_table.refusal(context, image))
    _check_model_data(container)
    if container.get("Mode") == MULTI_MODEL:
        _check_prefix(container)
    elif "MultiModelConfig" in container:
        raise validation("MultiModelConfig is for containers with Mode MultiModel.")


def _check_prefix(container: Mapping[str, Any]) -> None:
    """The models of a multi-model container are archives below a prefix."""
    if "ModelDataSource" in container:
        raise unsupported("ModelDataSource with Mode MultiModel", "its models lie below the prefix in ModelDataUrl")
    url = container.get("ModelDataUrl")
    if url is None:
        raise validation(
            "A container with Mode MultiModel needs a ModelDataUrl: the S3 prefix that its models lie below."
        )
    if url.endswith((".tar.gz", ".tgz")):
        raise validation(f'With Mode MultiModel the ModelDataUrl must be an S3 prefix, and "{url}" names an archive.')


def _check_model_data(container: Mapping[str, Any]) -> None:
    if "ModelDataUrl" in container and "ModelDataSource" in container:
        raise validation("A container has either a ModelDataUrl or a ModelDataSource, not both.")
    if "ModelDataSource" in container:
        _check_source(container["ModelDataSource"].get("S3DataSource"))
    url = model_data_url(container)
    if url is not None and not url.startswith("s3://"):
        raise validation(f'Could not read the model data URL "{url}": it must be an s3:// URL.')


def _check_source(source: Mapping[str, Any] | None) -> None:
    """An archive is one object, compressed; files under a prefix are taken as they are."""
    if source is None:
        raise validation("ModelDataSource needs an S3DataSource.")
    kind, compression = source["S3DataType"], source["CompressionType"]
    if (kind, compression) not in (("S3Object", "Gzip"), ("S3Prefix", "None")):
        why = "an archive is an S3Object with Gzip, uncompressed files are an S3Prefix with None"
        raise unsupported(f"S3DataType {kind} with CompressionType {compression}", why)
    if kind == "S3Prefix" and not source["S3Uri"].endswith("/"):
        raise validation(f'The S3Uri of an S3Prefix must end with "/": "{source["S3Uri"]}" does not.')
