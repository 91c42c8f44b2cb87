"""What ties the experiment nouns together: which trial components belong to which trials, and the lists that ask for
it.

The nouns themselves are of the generic family; a component's document also holds the names of its trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eyrie.control.context import Context, Operation, Params
from eyrie.control.family import Record
from eyrie.control.family_table import FAMILY
from eyrie.ports import Commit, Document
from eyrie.wire.model import Service

TRIALS = "Trials"  # of a component's body; no member of its Describe


def operations(service: Service) -> Mapping[str, Operation]:
    """The operations that need two nouns at once."""
    nouns = {noun.kind: Record(noun, service) for noun in FAMILY}
    trials, components = nouns["Trial"], nouns["TrialComponent"]

    def associate(context: Context, params: Params) -> dict[str, Any]:
        return _tie(context, params, trials, components, add=True)

    def disassociate(context: Context, params: Params) -> dict[str, Any]:
        return _tie(context, params, trials, components, add=False)

    def list_trials(context: Context, params: Params) -> dict[str, Any]:
        found = context.store.scan("Trial", context.scope)
        if "ExperimentName" in params:
            nouns["Experiment"].find(context, params)
            found = [d for d in found if d.body["ExperimentName"] == params["ExperimentName"]]
        if "TrialComponentName" in params:
            held = components.find(context, params).body.get(TRIALS, [])
            found = [d for d in found if d.name in held]
        return trials.list_of(context, params, found)

    def list_components(context: Context, params: Params) -> dict[str, Any]:
        found = context.store.scan("TrialComponent", context.scope)
        if "TrialName" in params:
            found = _held_by(found, {trials.find(context, params).name})
        if "ExperimentName" in params:
            nouns["Experiment"].find(context, params)
            every = context.store.scan("Trial", context.scope)
            found = _held_by(found, {d.name for d in every if d.body["ExperimentName"] == params["ExperimentName"]})
        if "SourceArn" in params:
            found = []  # components that a job made: there are none yet
        return components.list_of(context, params, found)

    return {
        "AssociateTrialComponent": associate,
        "DisassociateTrialComponent": disassociate,
        "ListTrials": list_trials,
        "ListTrialComponents": list_components,
    }


def _tie(context: Context, params: Params, trials: Record, components: Record, add: bool) -> dict[str, Any]:
    component, trial = components.find(context, params), trials.find(context, params)
    held = set(component.body.get(TRIALS, [])) - {trial.name}
    body = {**component.body, TRIALS: sorted(held | {trial.name} if add else held)}
    context.store.commit(Commit(puts=[replace(component, body=body)]))
    return {
        "TrialComponentArn": context.arn(components.noun.arn_type, component.name),
        "TrialArn": context.arn(trials.noun.arn_type, trial.name),
    }


def _held_by(components: list[Document], trials: set[str]) -> list[Document]:
    return [d for d in components if trials.intersection(d.body.get(TRIALS, []))]
