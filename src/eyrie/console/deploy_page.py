"""From a model file to an endpoint in three clicks: choose the file, look at what it was taken for, deploy.

The file goes to S3 as an archive; then a model, a config and the endpoint are created (or an endpoint is updated to
them), all by the public API.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from dataclasses import field as field_of
from pathlib import Path
from typing import Any

from nicegui import ui

from eyrie.adapters.model_pack import Packed, Unpackable, enough_room, pack
from eyrie.console.client import AWAY, Client, Trouble
from eyrie.console.desk import Desk
from eyrie.console.dialogs import Question
from eyrie.console.endpoint_actions import POLICIES
from eyrie.console.frame import Frame, Live, button, field, framed
from eyrie.console.markup import ROOT, Html, facts, href, join, note, tag
from eyrie.console.pages import place

BUCKET = "eyrie-console"
ROLE = "arn:aws:iam::{account}:role/Eyrie"
_TYPES = ("ml.m5.large", "ml.m5.xlarge", "ml.c5.large", "ml.c5.xlarge", "ml.t2.medium", "ml.t3.medium", "ml.r5.large")
_MODEL = ("PrimaryContainer", "Containers", "InferenceExecutionConfig", "ExecutionRoleArn", "VpcConfig")
_TYPE = re.compile(r"ml\.[a-z0-9-]{1,20}\.[a-z0-9-]{1,20}")
_LIMITS = re.compile(r"(\d{1,5}):(\d{1,4})")
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


def register(desk: Desk) -> None:
    """The page at /console/deploy; `endpoint` in the query: update that one."""

    async def page(request: Any) -> None:
        wanted = str(request.query_params.get("endpoint", ""))
        asked = asked_of(request.query_params)
        crumbs = (
            (("Endpoints", ("endpoints",)), (wanted, ("endpoints", wanted)))
            if wanted
            else (("Endpoints", ("endpoints",)),)
        )
        with framed(desk, request, "Deploy a model", ("endpoints",), crumbs) as frame:
            title = f"Deploy a new model to {wanted}" if wanted else "Deploy a model"
            ui.html(tag("div", tag("h1", title), class_="head"), sanitize=False)
            Deploy(frame, wanted, asked)

    place("/deploy", page)


def without_options(trouble: str) -> str:
    """Why a file is not taken; in place of options of `eyrie deploy`, which a page has not, what can be done here."""
    what, is_one, rest = trouble.partition(": ")
    if not is_one or "(--" not in rest:
        return trouble
    return f"{what}. Put it into a model.tar.gz with its code, code/inference.py, and choose that."


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks the page to begin with: a model that is there, and how it is to run."""

    model: str = ""
    kind: str = ""
    count: int = 2
    variables: Mapping[str, str] = field_of(default_factory=dict)
    serverless: Mapping[str, int] | None = None


def asked_of(query: Mapping[str, str]) -> Asked:
    """What an address asks for; what cannot be read in it is left out, and the fields show what is taken."""
    count, limits = query.get("count", ""), query.get("serverless", "")
    try:
        given = json.loads(query.get("env", "{}"))
    except ValueError:
        given = {}
    found = _LIMITS.fullmatch(limits)
    return Asked(
        model=str(query.get("model", "")),
        kind=query.get("type", "") if _TYPE.fullmatch(query.get("type", "")) else "",
        count=int(count) if count.isdecimal() and 0 < int(count) <= 1_000 else 2,
        variables={str(name): str(value) for name, value in given.items()} if isinstance(given, dict) else {},
        serverless={"MemorySizeInMB": int(found[1]), "MaxConcurrency": int(found[2])} if found else None,
    )


def name_of(file: str) -> str:
    """A name for what comes from a file: letters, digits and hyphens, 40 at most."""
    stem = re.sub(r"(\.tar)?\.[A-Za-z0-9]+$", "", Path(file).name)
    return re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:40].strip("-") or "model"


class Deploy:
    """The page's three steps."""

    def __init__(self, frame: Frame, endpoint: str, asked: Asked) -> None:
        self._frame, self._endpoint, self._asked = frame, endpoint, asked
        model = self._model = asked.model
        self._packed: Packed | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="eyrie-console-", ignore_cleanup_errors=True)
        ui.context.client.on_delete(self._folder.cleanup)
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
            self._seen = Live(facts(begun(asked)) if model else Html(""))
        with ui.element("section").classes("card") as self._second:
            ui.html(tag("h2", "2. How it runs"), sanitize=False)
            self._fields()
        with ui.element("section").classes("card") as self._third:
            ui.html(tag("h2", "3. Deploy"), sanitize=False)
            button("Deploy", self._ask, "main")
            self._said = Live()
        self._next_steps(bool(model))
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
        with ui.element("div").classes("inputs"):
            self._name = field("Name of the endpoint", self._endpoint or self._model, classes="grow")
            if self._endpoint:
                self._name.disable()
            kinds = tuple(dict.fromkeys((self._asked.kind or _TYPES[0], *_TYPES)))
            self._type = field("Instance type", kinds[0], options=kinds)
            self._count = field("Instances", str(self._asked.count), number=True)
            if self._asked.serverless:
                self._type.set_visibility(False)
                self._count.set_visibility(False)
            if self._endpoint:
                self._policy = field(
                    "How the traffic moves", next(iter(POLICIES)), options=tuple(POLICIES), classes="grow"
                )

    async def _took(self, event: Any) -> None:
        """A file came."""
        self._seen.show(note("Looking at the file …"))
        name = Path(str(event.file.name)).name or "model"
        self._packed = None
        self._next_steps(False)
        try:
            into = Path(tempfile.mkdtemp(dir=self._folder.name))
            await event.file.save(into / name)
            self._packed = await self._frame.ask(lambda: packed_of(into / name))
        except (Unpackable, OSError) as trouble:
            self._seen.show(note(without_options(str(trouble)), "error"))
            return
        if not self._endpoint and not self._name.value:
            self._name.value = name_of(name)
        self._seen.show(
            facts(
                {"File": name, "Taken for": self._packed.model.what, "Served by": tag("code", self._packed.model.image)}
            )
        )
        self._next_steps(True)

    def _next_steps(self, visible: bool) -> None:
        self._second.set_visibility(visible)
        self._third.set_visibility(visible)

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
        on = f"{int(self._count.value)} × {self._type.value}"
        on = f"serverless, {in_words(self._asked.serverless)}" if self._asked.serverless else f"on {on}"
        self._question.open(join(["The endpoint ", tag("b", self._name.value), f" {verb}, {on}{how}."]))

    async def _do(self) -> str:
        client, update = self._frame.client, bool(self._endpoint)
        wanted = Wanted(
            name=str(self._name.value),
            kind=str(self._type.value),
            count=int(self._count.value),
            packed=self._packed,
            asked=self._asked,
            update=update,
            policy=POLICIES[str(self._policy.value)] if update else None,
        )
        await self._frame.ask(lambda: deploy(client, wanted))
        to = href("endpoints", wanted.name, "deployment") if update else href("endpoints", wanted.name)
        ui.navigate.to(to.removeprefix(ROOT))
        return f"{wanted.name} is on its way."


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be deployed, and how."""

    name: str
    kind: str
    count: int
    packed: Packed | None  # None: the model of `asked`
    asked: Asked
    update: bool
    policy: Any


def begun(asked: Asked) -> dict[str, object]:
    """What the page begins with, in names and values."""
    said: dict[str, object] = {"Model": asked.model}
    if asked.variables:
        said["Environment"] = tag("code", ", ".join(f"{name}={value}" for name, value in asked.variables.items()))
    if asked.serverless:
        said["Serverless"] = in_words(asked.serverless)
    return said


def in_words(limits: Mapping[str, int]) -> str:
    """The limits of a serverless variant."""
    return f"{limits['MemorySizeInMB']} MB an instance, {limits['MaxConcurrency']} requests at once"


def deploy(client: Client, wanted: Wanted) -> None:
    """Upload, CreateModel, CreateEndpointConfig, and CreateEndpoint or UpdateEndpoint; where one of them is refused,
    what those before it have made is taken back. Raises Trouble.
    """
    made = f"{wanted.name[:40].rstrip('-')}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    limits = wanted.asked.serverless
    place_: dict[str, Any] = (
        {"ServerlessConfig": limits}
        if limits
        else {"InstanceType": wanted.kind, "InitialInstanceCount": wanted.count, "InitialVariantWeight": 1.0}
    )
    operation = "update_endpoint" if wanted.update else "create_endpoint"
    how = {"DeploymentConfig": wanted.policy} if wanted.update and wanted.policy else {}
    with taken_back(client) as undo:
        variant = {"VariantName": "AllTraffic", "ModelName": model_of(client, wanted, made, undo), **place_}
        client.call("sagemaker", "create_endpoint_config", EndpointConfigName=made, ProductionVariants=[variant])
        undo.append(("sagemaker", "delete_endpoint_config", {"EndpointConfigName": made}))
        client.call("sagemaker", operation, EndpointName=wanted.name, EndpointConfigName=made, **how)


Undo = list[tuple[str, str, dict[str, str]]]  # service, operation, parameters, of what was made, the oldest first


@contextmanager
def taken_back(client: Client) -> Iterator[Undo]:
    """What is done inside is undone where a call is refused. Not where Eyrie was away: what it did is not known."""
    undo: Undo = []
    try:
        yield undo
    except Trouble as trouble:
        for service, operation, params in reversed(undo if trouble.code != AWAY else []):
            with suppress(Trouble):
                client.call(service, operation, **params)
        raise


def model_of(client: Client, wanted: Wanted, made: str, undo: Undo) -> str:
    """The model that is deployed: made of the file, or of the one that is there where it gets variables of its own."""
    asked = wanted.asked
    if wanted.packed is not None:
        key = f"{made}/model.tar.gz"
        upload(client, key, wanted.packed.archive)
        undo.append(("s3", "delete_object", {"Bucket": BUCKET, "Key": key}))
        container = {"Image": wanted.packed.model.image, "ModelDataUrl": f"s3://{BUCKET}/{key}"}
        role = ROLE.format(account=client.who())
        client.call("sagemaker", "create_model", ModelName=made, PrimaryContainer=container, ExecutionRoleArn=role)
    elif not asked.variables:
        return asked.model
    else:
        described = client.call("sagemaker", "describe_model", ModelName=asked.model)
        kept = {name: described[name] for name in _MODEL if name in described}
        for container in [kept["PrimaryContainer"]] if "PrimaryContainer" in kept else kept.get("Containers", []):
            container["Environment"] = {**container.get("Environment", {}), **asked.variables}
        client.call("sagemaker", "create_model", ModelName=made, **kept)
    undo.append(("sagemaker", "delete_model", {"ModelName": made}))
    return made


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
