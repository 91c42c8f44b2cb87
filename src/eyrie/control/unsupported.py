"""What a request may ask for that this Eyrie cannot do: refused with the reason, never silently ignored.

Data: the member (a dotted path within the request or the variant), and why. A member whose value asks for nothing
(false, or a switch that is off) passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eyrie.control.coverage_lists import PAGE
from eyrie.wire.errors import ApiError, validation

MODEL = {
    "EnableNetworkIsolation": "the sandbox of an instance cannot promise it yet",
}
CONTAINER = {
    "ModelPackageName": "there is no model registry yet",
    "InferenceSpecificationName": "there is no model registry yet",
    "AdditionalModelDataSources": "an instance gets one model archive only",
    "ContainerMetricsConfig": "metrics of containers are not collected yet",
    "ModelDataSource.S3DataSource.ManifestS3Uri": "manifests are not read yet",
    "ModelDataSource.S3DataSource.HubAccessConfig": "there are no hubs",
}
CONFIG = {
    "AsyncInferenceConfig.OutputConfig.KmsKeyId": "results are not encrypted, and there are no keys",
    "ExplainerConfig": "explanations are not computed yet",
    "EnableNetworkIsolation": "the sandbox of an instance cannot promise it yet",
    "CrossRegionTrafficConfig": "an Eyrie serves one place",
    "KmsKeyId": "volumes are not encrypted, and there are no keys",
}
VARIANT = {
    "InstancePools": "a variant has one instance type",
    "VariantInstanceProvisionTimeoutInSeconds": "a variant has one instance type, and no pools",
    "AcceleratorType": "there are no accelerators here",
    "AcceleratorPartitionLayouts": "there are no accelerators here",
    "CoreDumpConfig": "core dumps are not collected",
    "EnableSSMAccess": "instances are not reachable by SSM",
    "ManagedInstanceScaling": "inference components and managed scaling are not there yet",
    "CapacityReservationConfig": "there are no capacity reservations",
    "RoutingConfig.PrefixAwareRoutingConfig": "prefix-aware routing is not there yet",
}
VALUES = {
    "Mode MultiModel in one of several Containers": "a pipeline's containers hold one model each",
    "S3DataSource with S3Object and None, or S3Prefix and Gzip": "an archive is one object, files are a prefix",
    "ImageConfig.RepositoryAccessMode Vpc": "there are no registries in a VPC here",
    "DataCaptureConfig.DestinationS3Uri https://": "captured data goes to an s3:// URI",
    "RoutingStrategy PREFIX_AWARE, KV_AWARE": "it is not there yet",
    "InstanceType with accelerators": "this host offers none",
}  # said where these are checked; here for the coverage page


def refuse_unsupported(given: Mapping[str, Any], table: Mapping[str, str], where: str = "") -> None:
    """Raise ValidationException for the first member of `table` that asks for something."""
    for path, why in table.items():
        if _asks(_value(given, path)):
            raise unsupported(f"{where}{path}", why)


def unsupported(member: str, why: str) -> ApiError:
    """The refusal of one member."""
    return validation(f"{member} is not supported by this Eyrie: {why}. What it does is listed in {PAGE}.")


def _value(given: Mapping[str, Any], path: str) -> Any:
    value: Any = given
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _asks(value: Any) -> bool:
    """False for what is absent, off or empty; a structure asks unless all that it holds is switched off."""
    if isinstance(value, Mapping):
        return not value or any(inner is not False for inner in value.values())
    if isinstance(value, list):
        return bool(value)
    return value is not None and value is not False
