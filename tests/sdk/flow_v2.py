"""The SageMaker Python SDK v2's own deployment flows, unchanged, against the Eyrie that the environment names.

Run by test_sdk_flows.py with the interpreter of an environment that holds `sagemaker<3`. Arguments: a folder with
`rows.csv`, `xgboost.tar.gz`, `sklearn.tar.gz` and `inference.py`. Prints one JSON object: predictions by flow.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import sagemaker
from sagemaker import image_uris
from sagemaker.deserializers import CSVDeserializer
from sagemaker.model import Model
from sagemaker.model_monitor import DataCaptureConfig
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer
from sagemaker.sklearn import SKLearnModel
from sagemaker.xgboost import XGBoostModel

ROLE = "arn:aws:iam::123456789012:role/Eyrie"


def upload(session: sagemaker.Session, archive: Path) -> str:
    """The s3:// URL of an archive, put there by the SDK's own uploader."""
    return str(session.upload_data(str(archive), key_prefix=f"models/{archive.stem}"))


def generic(folder: Path, rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Model.deploy with an image URI, Predictor.predict, update_endpoint to another instance count, delete."""
    session = sagemaker.Session()
    image = image_uris.retrieve("xgboost", session.boto_region_name, version="1.7-1")
    model = Model(
        image,
        model_data=upload(session, folder / "xgboost.tar.gz"),
        role=ROLE,
        sagemaker_session=session,
        predictor_cls=Predictor,
    )
    predictor = model.deploy(1, "ml.m5.large", serializer=CSVSerializer(), deserializer=CSVDeserializer())
    first = predictor.predict(rows)
    predictor.update_endpoint(initial_instance_count=2, instance_type="ml.m5.large")
    second = predictor.predict(rows)
    count = session.sagemaker_client.describe_endpoint(EndpointName=predictor.endpoint_name)["ProductionVariants"]
    predictor.delete_endpoint()
    model.delete_model()
    return {"first": first, "second": second, "instances": count[0]["CurrentInstanceCount"]}


def captured(folder: Path, rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    """deploy with a DataCaptureConfig, then disabled by the predictor; CaptureStatus at each step."""
    session = sagemaker.Session()
    image = image_uris.retrieve("xgboost", session.boto_region_name, version="1.7-1")
    url = upload(session, folder / "xgboost.tar.gz")
    model = Model(image, model_data=url, role=ROLE, sagemaker_session=session, predictor_cls=Predictor)
    config = DataCaptureConfig(enable_capture=True, sampling_percentage=100, sagemaker_session=session)
    predictor = model.deploy(
        1, "ml.m5.large", serializer=CSVSerializer(), deserializer=CSVDeserializer(), data_capture_config=config
    )
    first = predictor.predict(rows, inference_id="captured-1")

    def described() -> dict[str, Any]:
        found = session.sagemaker_client.describe_endpoint(EndpointName=predictor.endpoint_name)
        return dict(found["DataCaptureConfig"])

    told = [described()]
    predictor.disable_data_capture()
    told.append(described())
    predictor.predict(rows, inference_id="not-captured")
    predictor.delete_endpoint()
    statuses = [one["CaptureStatus"] for one in told]
    return {"first": first, "statuses": statuses, "destination": told[0]["DestinationS3Uri"]}


def sklearn(folder: Path, rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    """SKLearnModel.deploy with an entry point: x-npy both ways, the SDK's default."""
    session = sagemaker.Session()
    model = SKLearnModel(
        upload(session, folder / "sklearn.tar.gz"),
        role=ROLE,
        entry_point=str(folder / "inference.py"),
        framework_version="1.2-1",
        sagemaker_session=session,
    )
    predictor = model.deploy(1, "ml.m5.large")
    answer = predictor.predict(rows)
    predictor.delete_model()  # first: the SDK finds the models through the endpoint's config
    predictor.delete_endpoint()
    return {"first": np.asarray(answer).tolist()}


def xgboost(folder: Path, rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    """XGBoostModel.deploy with an entry point that defines model_fn, CSV in and out."""
    session = sagemaker.Session()
    model = XGBoostModel(
        upload(session, folder / "xgboost.tar.gz"),
        role=ROLE,
        entry_point=str(folder / "xgb_inference.py"),
        framework_version="1.7-1",
        sagemaker_session=session,
    )
    predictor = model.deploy(1, "ml.m5.large", serializer=CSVSerializer(), deserializer=CSVDeserializer())
    answer = predictor.predict(rows)
    predictor.delete_endpoint()
    return {"first": answer}


def main() -> None:
    """Run the flows side by side: the SDK waits 30 s before it first asks how an endpoint is."""
    folder = Path(sys.argv[1])
    rows = np.loadtxt(folder / "rows.csv", delimiter=",", ndmin=2)
    flows = {"generic": generic, "captured": captured, "sklearn": sklearn, "xgboost": xgboost}
    with ThreadPoolExecutor(len(flows)) as pool:
        pending = {name: pool.submit(flow, folder, rows) for name, flow in flows.items()}
        print(json.dumps({name: future.result() for name, future in pending.items()}))


if __name__ == "__main__":
    main()
