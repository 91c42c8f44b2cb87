"""Load an endpoint with Locust (pip install locust), each request signed as boto3 signs it.

eval "$(eyrie env)"
export EYRIE_ENDPOINT=iris EYRIE_ROW=5.1,3.5,1.4,0.2
locust -f examples/load/locustfile.py --headless -u 16 -t 30s --host "$AWS_ENDPOINT_URL"
"""

import os

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from locust import FastHttpUser, task

ENDPOINT = os.environ["EYRIE_ENDPOINT"]
ROW = os.environ.get("EYRIE_ROW", "0").encode()
KEY = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
SIGNER = SigV4Auth(KEY, "sagemaker", os.environ["AWS_REGION"])


class Caller(FastHttpUser):
    """A user who asks again as soon as he is answered."""

    @task
    def invoke(self) -> None:
        """One InvokeEndpoint."""
        path = f"/endpoints/{ENDPOINT}/invocations"
        request = AWSRequest("POST", f"{self.host}{path}", headers={"Content-Type": "text/csv"}, data=ROW)
        SIGNER.add_auth(request)
        self.client.post(path, data=ROW, headers=dict(request.headers.items()), name=ENDPOINT)
