"""Data of the generic family: the nouns that are mere records, whose Create has nothing to start.

What follows from botocore's shapes (members, error styles, the ARN's member) is not said here; only what the shapes
do not tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from eyrie.control.listing import NEWEST_FIRST, Order

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Noun:
    """One noun of the family. Paths are dotted member names within what Create was given."""

    kind: str  # "Experiment"; the operations are CreateExperiment, DescribeExperiment, ...
    arn_type: str
    words: str  # in messages
    plural: str = ""  # in ListPLURAL, where it is not KINDs
    name_member: str = ""  # where it is not KINDName
    by_arn: bool = False  # the name is drawn; calls name it by its ARN
    order: Order = NEWEST_FIRST
    constants: Mapping[str, str] = field(default_factory=lambda: _NOTHING)  # members of Describe that never change
    filters: Mapping[str, str] = field(default_factory=lambda: _NOTHING)  # parameter of List -> path that it must equal
    summary: Mapping[str, str] = field(default_factory=lambda: _NOTHING)  # member of the list's items -> path or member
    merged: frozenset[str] = frozenset()  # structures that an update merges into; others are replaced
    parent: tuple[str, str] = ("", "")  # member that names another noun, which must exist, and that noun
    taken: str = "{kind} {name} already exists."  # the text for a name that is taken

    @property
    def member(self) -> str:
        """The member that holds the name."""
        return self.name_member or f"{self.kind}Name"

    @property
    def list_operation(self) -> str:
        """The List operation's name."""
        return f"List{self.plural or self.kind + 's'}"


_UNIQUE = "{kind} names must be unique within an AWS account and region. {kind} with name ({name}) already exists."
_BY_NAME = Order("Name", descending=False)


def _lineage(kind: str, by_arn: bool = False) -> Noun:
    filters = {"SourceUri": "Source.SourceUri", f"{kind}Type": f"{kind}Type"}
    return Noun(kind, kind.lower(), kind.lower(), by_arn=by_arn, filters=filters)


def _job_definition(kind: str, arn_type: str) -> Noun:
    path = f"{kind}JobInput.EndpointInput.EndpointName"
    summary = {
        "MonitoringJobDefinitionName": "JobDefinitionName",
        "MonitoringJobDefinitionArn": "JobDefinitionArn",
        "EndpointName": path,
    }
    return Noun(
        f"{kind}JobDefinition",
        f"{arn_type}-job-definition",
        f"{arn_type.replace('-', ' ')} job definition",
        name_member="JobDefinitionName",
        filters={"EndpointName": path},
        summary=summary,
    )


FAMILY: tuple[Noun, ...] = (
    _lineage("Action"),
    _lineage("Artifact", by_arn=True),
    _lineage("Context"),
    Noun("Experiment", "experiment", "experiment", taken=_UNIQUE),
    Noun("Trial", "experiment-trial", "trial", parent=("ExperimentName", "Experiment"), taken=_UNIQUE),
    Noun("TrialComponent", "experiment-trial-component", "trial component", taken=_UNIQUE),
    Noun(
        "ModelPackageGroup",
        "model-package-group",
        "model package group",
        order=Order(descending=False),
        constants={"ModelPackageGroupStatus": "Completed"},
        taken='ModelPackage already exists: there is a model package group "{name}".',  # words that the SDK looks for
    ),
    Noun(
        "CodeRepository",
        "code-repository",
        "code repository",
        plural="CodeRepositories",
        order=_BY_NAME,
        merged=frozenset({"GitConfig"}),
        taken='Cannot create already existing code repository "{name}".',
    ),
    Noun(
        "NotebookInstanceLifecycleConfig",
        "notebook-instance-lifecycle-config",
        "notebook instance lifecycle configuration",
        taken='Cannot create already existing notebook instance lifecycle configuration "{name}".',
    ),
    Noun(
        "StudioLifecycleConfig",
        "studio-lifecycle-config",
        "studio lifecycle configuration",
        filters={"AppTypeEquals": "StudioLifecycleConfigAppType"},
    ),
    Noun("AppImageConfig", "app-image-config", "app image configuration"),
    Noun("AIWorkloadConfig", "ai-workload-config", "AI workload configuration"),
    _job_definition("DataQuality", "data-quality"),
    _job_definition("ModelQuality", "model-quality"),
    _job_definition("ModelBias", "model-bias"),
    _job_definition("ModelExplainability", "model-explainability"),
)
