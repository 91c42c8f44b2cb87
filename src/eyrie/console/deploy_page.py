"""From a model file to an endpoint in three clicks: choose the file, look at what it was taken for, deploy.

The file goes to S3 as an archive; then a model, a config and the endpoint are created (or an endpoint is updated to
them), all by the public API.
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any

from nicegui import ui

from eyrie.adapters.model_pack import Packed, Unpackable, enough_room, pack
from eyrie.console.client import Client, Trouble
from eyrie.console.desk import Desk
from eyrie.console.dialogs import Question
from eyrie.console.endpoint_actions import POLICIES
from eyrie.console.frame import Frame, Live, button, field, framed
from eyrie.console.markup import ROOT, Html, facts, href, join, note, tag
from eyrie.console.pages import place

BUCKET = "eyrie-console"
ROLE = "arn:aws:iam::{account}:role/Eyrie"
_TYPES = ("ml.m5.large", "ml.m5.xlarge", "ml.c5.large", "ml.c5.xlarge", "ml.t2.medium", "ml.t3.medium", "ml.r5.large")
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


def register(desk: Desk) -> None:
    """The page at /console/deploy; `endpoint` in the query: update that one."""

    async def page(request: Any) -> None:
        wanted = str(request.query_params.get("endpoint", ""))
        model = str(request.query_params.get("model", ""))
        crumbs = (
            (("Endpoints", ("endpoints",)), (wanted, ("endpoints", wanted)))
            if wanted
            else (("Endpoints", ("endpoints",)),)
        )
        with framed(desk, request, "Deploy a model", ("endpoints",), crumbs) as frame:
            title = f"Deploy a new model to {wanted}" if wanted else "Deploy a model"
            ui.html(tag("div", tag("h1", title), class_="head"), sanitize=False)
            Deploy(frame, wanted, model)

    place("/deploy", page)


def name_of(file: str) -> str:
    """A name for what comes from a file: letters, digits and hyphens, 40 at most."""
    stem = re.sub(r"(\.tar)?\.[A-Za-z0-9]+$", "", Path(file).name)
    return re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:40].strip("-") or "model"


class Deploy:
    """The page's three steps."""

    def __init__(self, frame: Frame, endpoint: str, model: str) -> None:
        self._frame, self._endpoint, self._model = frame, endpoint, model
        self._packed: Packed | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="eyrie-console-", ignore_cleanup_errors=True)
        ui.context.client.on_disconnect(self._folder.cleanup)
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "1. The model"), sanitize=False)
            ui.html(
                tag(
                    "p",
                    "A file of XGBoost, scikit-learn, LightGBM, ONNX, PyTorch, or a model.tar.gz as SageMaker has it.",
                    class_="hint",
                ),
                sanitize=False,
            )
            if not model:
                self._take_files()
            self._seen = Live(facts({"Model": model}) if model else Html(""))
        with ui.element("section").classes("card") as self._second:
            ui.html(tag("h2", "2. How it runs"), sanitize=False)
            self._fields()
        with ui.element("section").classes("card") as self._third:
            ui.html(tag("h2", "3. Deploy"), sanitize=False)
            button("Deploy", self._ask, "main")
            self._said = Live()
        if not model:
            self._second.set_visibility(False)
            self._third.set_visibility(False)
        self._question = Question(frame, "Deploy", "", "Yes, deploy", self._do)

    def _take_files(self) -> None:
        """A file input of the browser's own; what it sends goes to the library's upload, which is not shown."""
        taking = ui.upload(auto_upload=True, on_upload=self._took).classes("hidden-upload")
        to = f"{ROOT}{taking.props['url']}"
        ui.html(
            tag(
                "div",
                tag("label", tag("span", "Model file"), tag("input", type="file", data_sends_to=to), class_="field"),
                tag("p", "", class_="hint", role="status"),
                class_="drop",
            ),
            sanitize=False,
        )

    def _fields(self) -> None:
        with ui.element("div").classes("row"):
            self._name = field("Name of the endpoint", self._endpoint or self._model, classes="grow")
            if self._endpoint:
                self._name.disable()
            self._type = field("Instance type", _TYPES[0], options=_TYPES)
            self._count = field("Instances", "2", number=True)
            if self._endpoint:
                self._policy = field(
                    "How the traffic moves", next(iter(POLICIES)), options=tuple(POLICIES), classes="grow"
                )

    async def _took(self, event: Any) -> None:
        """A file came."""
        self._seen.show(note("Looking at the file …"))
        name = Path(str(event.file.name)).name or "model"
        into = Path(tempfile.mkdtemp(dir=self._folder.name))
        try:
            await event.file.save(into / name)
            self._packed = await self._frame.ask(lambda: packed_of(into / name))
        except (Unpackable, OSError) as trouble:
            self._packed = None
            self._seen.show(note(str(trouble), "error"))
            return
        if not self._endpoint and not self._name.value:
            self._name.value = name_of(name)
        self._seen.show(
            facts(
                {"File": name, "Taken for": self._packed.model.what, "Served by": tag("code", self._packed.model.image)}
            )
        )
        self._second.set_visibility(True)
        self._third.set_visibility(True)

    def _ask(self) -> None:
        if not _NAME.fullmatch(str(self._name.value or "")):
            self._said.show(note("The name of an endpoint is letters, digits and hyphens, 63 at most.", "error"))
            return
        if not self._count.value or self._count.value != int(self._count.value):
            self._said.show(note("A number of instances is a whole number above 0.", "error"))
            return
        self._said.show(Html(""))
        verb = "is updated to it" if self._endpoint else "is created with it"
        how = f", {self._policy.value}" if self._endpoint else ""
        self._question.open(
            join(
                [
                    "The endpoint ",
                    tag("b", self._name.value),
                    f" {verb}, on {int(self._count.value)} × {self._type.value}{how}.",
                ]
            )
        )

    async def _do(self) -> str:
        client, name = self._frame.client, str(self._name.value)
        policy = POLICIES[str(self._policy.value)] if self._endpoint else None
        kind, count, packed, model, update = (
            str(self._type.value),
            int(self._count.value),
            self._packed,
            self._model,
            bool(self._endpoint),
        )
        await self._frame.ask(lambda: deploy(client, name, kind, count, packed, model, update, policy))
        ui.navigate.to(
            href("endpoints", name, "deployment").removeprefix("/console")
            if update
            else href("endpoints", name).removeprefix("/console")
        )
        return f"{name} is on its way."


def deploy(
    client: Client, name: str, kind: str, count: int, packed: Packed | None, model: str, update: bool, policy: Any
) -> None:
    """Upload, CreateModel, CreateEndpointConfig, and CreateEndpoint or UpdateEndpoint. Raises Trouble."""
    made = f"{name[:40].rstrip('-')}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    if packed is not None:
        model = made
        upload(client, f"{made}/model.tar.gz", packed.archive)
        container = {"Image": packed.model.image, "ModelDataUrl": f"s3://{BUCKET}/{made}/model.tar.gz"}
        client.call(
            "sagemaker",
            "create_model",
            ModelName=made,
            PrimaryContainer=container,
            ExecutionRoleArn=ROLE.format(account=client.who()),
        )
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": model,
        "InstanceType": kind,
        "InitialInstanceCount": count,
        "InitialVariantWeight": 1.0,
    }
    client.call("sagemaker", "create_endpoint_config", EndpointConfigName=made, ProductionVariants=[variant])
    if update:
        how = {"DeploymentConfig": policy} if policy else {}
        client.call("sagemaker", "update_endpoint", EndpointName=name, EndpointConfigName=made, **how)
    else:
        client.call("sagemaker", "create_endpoint", EndpointName=name, EndpointConfigName=made)


def packed_of(path: Path) -> Packed:
    """What a file was taken for, and its archive beside it. Raises Unpackable."""
    enough_room(path.parent, path)
    return pack(path, None, None, path.parent)


def upload(client: Client, key: str, archive: Path) -> None:
    """Put an archive into the console's bucket, which is made at its first use. Raises Trouble."""
    try:
        client.call("s3", "create_bucket", Bucket=BUCKET)
    except Trouble as trouble:
        if trouble.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
    with archive.open("rb") as content:
        client.call("s3", "put_object", Bucket=BUCKET, Key=key, Body=content)
