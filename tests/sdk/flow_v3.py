"""The SageMaker Python SDK v3's own build, deploy and invoke, unchanged, against the Eyrie that the environment names.

Run by test_sdk_flows.py with the interpreter of an environment that holds `sagemaker>=3`. Arguments: the same folder as
flow_v2.py, and the s3:// URL of `xgboost.tar.gz`. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sagemaker.core.helper.session_helper import Session
from sagemaker.serve import ModelBuilder

ROLE = "arn:aws:iam::123456789012:role/Eyrie"
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"


def main() -> None:
    """ModelBuilder.build, .deploy, Endpoint.invoke, then delete."""
    folder, archive = Path(sys.argv[1]), sys.argv[2]
    builder = ModelBuilder(
        image_uri=IMAGE,
        s3_model_data_url=archive,
        role_arn=ROLE,
        sagemaker_session=Session(),
        instance_type="ml.m5.large",
    )
    model = builder.build(model_name="sdk-v3-model")
    endpoint = builder.deploy(endpoint_name="sdk-v3-endpoint", initial_instance_count=1, instance_type="ml.m5.large")
    reply = endpoint.invoke(body=(folder / "rows.csv").read_bytes(), content_type="text/csv", accept="text/csv")
    answer = [float(x) for x in reply.body.read().decode().replace("\n", ",").strip(",").split(",")]
    status = endpoint.endpoint_status
    endpoint.delete()
    model.delete()
    print("\n" + json.dumps({"first": answer, "status": status}))


if __name__ == "__main__":
    main()
