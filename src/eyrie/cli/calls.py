"""How an endpoint is called: its addresses, and the lines for curl, boto3 and the command line that a user may paste.

What a request may look like is asked of the endpoint itself: GET /v2/models/NAME, with an API key that lives a minute.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eyrie.cli import data as datadir
from eyrie.cli import key as api_keys
from eyrie.cli.errors import CommandError
from eyrie.cli.public import Where

KEY_SEEN_WITHIN_S = 1.5
FEATURES_MAX = 64
_NUMBERS = re.compile(r"(FP|BF|U?INT)\d+|BOOL")


def addresses(where: Where, endpoint: str) -> dict[str, str]:
    """The URLs of an endpoint's two faces."""
    return {
        "url": f"{where.url}/endpoints/{endpoint}/invocations",
        "v2": f"{where.url}/v2/models/{endpoint}/infer",
        "region": where.region,
    }


def sample(where: Where, endpoint: str) -> dict[str, Any] | None:
    """A request that fits, as far as the endpoint tells: {"csv", "v2"}; None where it does not, or is not reachable."""
    if where.data is None:
        return None
    try:
        described = _described(where, where.data, endpoint)
    except (CommandError, OSError, http.client.HTTPException, ValueError):
        return None
    return request_for(described.get("inputs", []))


def request_for(inputs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """A row of zeros for an input that is a matrix of known width, or columns of numbers; None for anything else."""
    if not inputs or not all(_NUMBERS.fullmatch(str(one.get("datatype", ""))) for one in inputs):
        return None
    shapes = [one.get("shape", []) for one in inputs]
    if len(inputs) == 1 and len(shapes[0]) == 2 and 0 < int(shapes[0][1]) <= FEATURES_MAX:
        width = int(shapes[0][1])
        zeros = [0.0] * width if str(inputs[0]["datatype"]).startswith(("FP", "BF")) else [0] * width
        tensor = {"name": inputs[0]["name"], "datatype": inputs[0]["datatype"], "shape": [1, width], "data": zeros}
        return {"csv": ",".join("0" for _ in range(width)), "v2": {"inputs": [tensor]}}
    return None


def lines(where: Where, told: Mapping[str, Any]) -> list[str]:
    """What a person reads after a deployment."""
    name, sampled = str(told["endpoint"]), told.get("sample")
    row = sampled["csv"] if sampled else "..."
    word = "updated" if told["updated"] else "in service" if told["status"] == "InService" else told["status"]
    count = int(told["instances"])
    fleet = "" if told["type"] == "serverless" else f", {count} instance{'' if count == 1 else 's'}"
    shown = [
        f"{name} is {word} ({told['image']}, {told['type']}{fleet}, {told['seconds']:g} s)",
        f"  URL    {told['url']}",
    ]
    if told["type"] == "async":
        return [*shown, f"  boto3  {boto3_line(name, row, asynchronous=True)}"]
    body = f" -d {shlex.quote(json.dumps(sampled['v2']))}" if sampled else " -d @request.json"
    return [
        *shown,
        f"  eyrie  eyrie invoke {name} --data {shlex.quote(row)}{datadir.flag(where.data, '--eyrie')}",
        f"  boto3  {boto3_line(name, row)}",
        f"  curl   {curl_line(told['url'], row)}",
        f"  v2     KEY=$(eyrie key create --endpoint {name}{datadir.flag(where.data)}) && sleep 1 && "
        f'curl --fail-with-body -sS -H "Authorization: Bearer $KEY" {told["v2"]}{body}',
        f'         (boto3 and curl need the keys first: eval "$(eyrie env{datadir.flag(where.data)})")',
    ]


def boto3_line(name: str, row: str, asynchronous: bool = False) -> str:
    """One Python expression that invokes."""
    client = 'boto3.client("sagemaker-runtime")'
    if asynchronous:
        return f'{client}.invoke_endpoint_async(EndpointName="{name}", InputLocation="s3://BUCKET/KEY")'
    return f'{client}.invoke_endpoint(EndpointName="{name}", ContentType="text/csv", Body="{row}")["Body"].read()'


def curl_line(url: str, row: str) -> str:
    """curl signing with the variables of `eyrie env`."""
    return (
        'curl --fail-with-body -sS --aws-sigv4 "aws:amz:$AWS_REGION:sagemaker" '
        '--user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" '
        f"-H 'Content-Type: text/csv' --data-binary {shlex.quote(row)} {url}"
    )


def _described(where: Where, data: Path, endpoint: str) -> dict[str, Any]:
    """GET /v2/models/NAME with a key made for it and revoked afterwards."""
    said, aside = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(aside):
        api_keys.create(data, where.region, [endpoint], "60s")
    text = said.getvalue().strip()
    try:
        deadline = time.monotonic() + KEY_SEEN_WITHIN_S
        while True:
            status, body = _get(where.url, f"/v2/models/{endpoint}", text)
            if status not in (401, 403) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        found = json.loads(body) if status == 200 else {}
        return found if isinstance(found, dict) else {}
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            api_keys.revoke(data, text)


def _get(url: str, path: str, api_key: str) -> tuple[int, bytes]:
    address = urlsplit(url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.hostname or "127.0.0.1", address.port, timeout=5.0)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {api_key}"})
        reply = connection.getresponse()
        return reply.status, reply.read(1_048_576)
    finally:
        connection.close()
