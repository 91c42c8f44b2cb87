"""`eyrie env`: export lines that point every AWS client at this Eyrie, and the SageMaker SDK's configuration file."""

from __future__ import annotations

import shlex
from pathlib import Path

from eyrie.cli import data as datadir
from eyrie.cli.documents import print_document


def run(data: Path, as_json: bool) -> None:
    """Print the lines for `eval`, or the variables as an object, and write the SDK's file under the data directory."""
    running = datadir.running_env(data)
    key = datadir.credential(data)
    region = str(running["region"])
    config = data / "sagemaker-config.yaml"
    datadir.write_whole(config, sdk_config(f"sagemaker-{region}-{key.account}"), 0o644)
    exports = {
        "AWS_ENDPOINT_URL": str(running["endpoint"]),
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
    }
    if as_json:
        print_document(exports)
        return
    for name, value in exports.items():
        print(f"export {name}={shlex.quote(value)}")
    print("unset AWS_SESSION_TOKEN AWS_PROFILE")  # either would win over, or spoil, the keys above


def sdk_config(bucket: str) -> str:
    """The SageMaker SDK's configuration: naming the bucket spares it calls to the real STS by a fixed address."""
    return f"""SchemaVersion: '1.0'
SageMaker:
  PythonSDK:
    Modules:
      Session:
        DefaultS3Bucket: {bucket}
      TelemetryOptOut: true
"""
