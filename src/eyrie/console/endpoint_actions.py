"""What can be done to an endpoint, each after a question: weights, instances, a roll-back, its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from eyrie.console import endpoint_views
from eyrie.console.client import AWAY, Client, Trouble
from eyrie.console.dialogs import Question
from eyrie.console.frame import Frame, button, field
from eyrie.console.markup import Html, href, join, tag

CANARY = {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 25}, "WaitIntervalInSeconds": 30}
POLICIES: Mapping[str, Mapping[str, Any] | None] = {
    "all at once": None,
    "canary: a quarter first, watched for 30 s": {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": CANARY}},
    "linear: a quarter more every 30 s": {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "LINEAR",
                "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 25},
                "WaitIntervalInSeconds": 30,
            }
        }
    },
}


def buttons(frame: Frame, name: str) -> None:
    """The buttons in the head of an endpoint's page."""
    ui.html(tag("a", "Deploy a new model", href=href("deploy", endpoint=name), class_="button main"), sanitize=False)
    Amounts(frame, name, "DesiredWeight")
    Amounts(frame, name, "DesiredInstanceCount")
    RollBack(frame, name)
    End(frame, name)


class Amounts:
    """Changes the weights, or the numbers of instances, of all variants at once."""

    def __init__(self, frame: Frame, name: str, member: str) -> None:
        self._frame, self._name, self._member = frame, name, member
        weights = member == "DesiredWeight"
        self._title = "Change weights" if weights else "Scale"
        meaning = (
            "Each variant gets its weight's share of the requests, from the next moment on."
            if weights
            else "Instances start or drain until there are so many. A scaling policy may change it again."
        )
        button(self._title, self.ask)
        self._question = Question(frame, self._title, meaning, "Apply", self._apply)
        self._inputs: dict[str, Any] = {}

    async def ask(self) -> None:
        """Fill the fields with how it is now, then ask."""
        client, name = self._frame.client, self._name
        try:
            described = await self._frame.ask(lambda: client.endpoint(name))
        except Trouble as trouble:
            self._frame.tell(str(trouble))
            return
        self._question.fields.clear()
        with self._question.fields:
            self._inputs = {
                v["VariantName"]: field(f"{v['VariantName']}", str(v.get(self._member, 0)), number=True).style(
                    "margin-bottom: 10px"
                )
                for v in described.get("ProductionVariants", ())
            }
        self._question.open()

    async def _apply(self) -> str:
        changes = [
            {"VariantName": variant, self._member: self._number(made.value)} for variant, made in self._inputs.items()
        ]
        client, name = self._frame.client, self._name
        await self._frame.ask(
            lambda: client.call(
                "sagemaker",
                "update_endpoint_weights_and_capacities",
                EndpointName=name,
                DesiredWeightsAndCapacities=changes,
            )
        )
        return "On its way."

    def _number(self, value: Any) -> float | int:
        if value is None:
            raise ValueError("Each variant needs a number.")
        if self._member == "DesiredWeight":
            return float(value)
        if value != int(value):
            raise ValueError("A number of instances is a whole number.")
        return int(value)


class RollBack:
    """Aborts the deployment that is on its way; where there is none, deploys the config before the present one."""

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name = frame, name
        self._to: str | None = None  # None: abort
        button("Roll back", self.ask)
        self._question = Question(frame, "Roll back", "", "Roll back", self._apply)

    async def ask(self) -> None:
        """Find what there is to go back to, then ask."""
        client, name = self._frame.client, self._name
        try:
            described = await self._frame.ask(lambda: client.endpoint(name))
            under_way = "PendingDeploymentSummary" in described
            self._to = None if under_way else await self._frame.ask(lambda: before(client, name))
        except Trouble as trouble:
            self._frame.tell(str(trouble))
            return
        if under_way:
            self._question.open("The deployment is aborted: all traffic goes back to the old fleet, the new one ends.")
        elif self._to is None:
            self._frame.tell(
                "There is nothing to go back to: no deployment is on its way, and no earlier config is left."
            )
        else:
            self._question.open(meaning_of(self._to))

    async def _apply(self) -> str:
        client, name, to = self._frame.client, self._name, self._to
        if to is None:
            await self._frame.ask(lambda: client.steer(name, "abort"))
            return "Going back to the old fleet."
        await self._frame.ask(
            lambda: client.call("sagemaker", "update_endpoint", EndpointName=name, EndpointConfigName=to)
        )
        return f"Going back to {to}."


def meaning_of(config: str) -> Html:
    """What going back to a config means."""
    said = "The endpoint is updated to the config it had before, "
    return join([said, tag("code", config), ", all at once. The present fleet serves until the other is ready."])


class Promote:
    """Takes a deployment's next step now, without waiting for the end of its bake."""

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name = frame, name
        meaning = "The new fleet gets its next share of the traffic now, without waiting any longer."
        self._question = Question(frame, "Promote", meaning, "Promote", self._apply)
        button("Promote", lambda: self._question.open())

    async def _apply(self) -> str:
        client, name = self._frame.client, self._name
        await self._frame.ask(lambda: client.steer(name, "promote"))
        return "Promoted."


def before(client: Client, name: str) -> str | None:
    """The config that an endpoint had before its present one, if it is still there. Raises Trouble."""
    found = endpoint_views.previous_config(client.endpoint(name), client.story(name))
    if found is None:
        return None
    try:
        client.config(found)
    except Trouble as trouble:
        if trouble.code == AWAY:
            raise
        return None
    return found


class End:
    """Deletes the endpoint, after its name was typed."""

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name = frame, name
        button("Delete", self.ask, "risk")
        meaning = "Its instances drain and end; its config and models stay. Type the endpoint's name to delete it."
        self._question = Question(frame, f"Delete {name}", meaning, "Delete", self._apply, risky=True)
        with self._question.fields:
            self._typed = field("Name of the endpoint")

    def ask(self) -> None:
        """Ask."""
        self._typed.value = ""
        self._question.open()

    async def _apply(self) -> str:
        if str(self._typed.value or "").strip() != self._name:
            raise ValueError("That is not the name of this endpoint.")
        client, name = self._frame.client, self._name
        await self._frame.ask(lambda: client.call("sagemaker", "delete_endpoint", EndpointName=name))
        return f"{name} is being deleted."
