"""What the nouns refuse. Each is one situation; the edge turns it into an AWS code and text, floor 1 only names it."""

from __future__ import annotations

from dataclasses import dataclass


class Refused(Exception):
    """A command that cannot be done as things stand. The message is a sentence for people."""


@dataclass
class EndpointExists(Refused):
    """CreateEndpoint of a name that is taken."""

    arn: str

    def __str__(self) -> str:
        return f'Cannot create already existing endpoint "{self.arn}".'


@dataclass
class EndpointMissing(Refused):
    """A command for an endpoint that is not there."""

    arn: str

    def __str__(self) -> str:
        return f'Could not find endpoint "{self.arn}".'


@dataclass
class EndpointBusy(Refused):
    """A command while the endpoint is being created, changed or deleted."""

    arn: str
    status: str

    def __str__(self) -> str:
        return f'Cannot update in-progress endpoint "{self.arn}".'


@dataclass
class EndpointUnusable(Refused):
    """A change of an endpoint that may only be deleted."""

    arn: str
    status: str

    def __str__(self) -> str:
        return f'Cannot update endpoint "{self.arn}" with status "{self.status}": it can only be deleted.'


@dataclass
class KindChanged(Refused):
    """An update that would make an asynchronous endpoint of a real-time one, or the other way round."""

    arn: str
    config: str
    asynchronous: bool

    def __str__(self) -> str:
        has, kind = ("has an", "a real-time") if self.asynchronous else ("has no", "an asynchronous")
        said = f'Cannot update endpoint "{self.arn}": configuration {self.config} {has} AsyncInferenceConfig'
        return f"{said}, and it is {kind} endpoint."


@dataclass
class VariantMissing(Refused):
    """A change that names a variant which the endpoint does not have."""

    arn: str
    variant: str

    def __str__(self) -> str:
        return f'The variant name(s) "{self.variant}" is/are not present within endpoint "{self.arn}".'


@dataclass
class VariantTwice(Refused):
    """A change that names one variant twice."""

    variant: str

    def __str__(self) -> str:
        return f'Variant name(s) "{self.variant}" specified more than once.'


@dataclass
class BadAmount(Refused):
    """A count or weight that the variant cannot have; `detail` says what and why."""

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass
class NotServerless(Refused):
    """A change between instances and serverless that there is no way for; `detail` says which."""

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass
class CapacityChanged(Refused):
    """A decision on a count that is another one by now."""

    variant: str
    before: int
    now: int

    def __str__(self) -> str:
        return f"Variant {self.variant} has {self.now} instances by now, and not {self.before}."


@dataclass
class NoDeployment(Refused):
    """A command on the deployment of an endpoint that has none on its way."""

    arn: str

    def __str__(self) -> str:
        return f'No deployment of endpoint "{self.arn}" is on its way.'


@dataclass
class NotInThisPhase(Refused):
    """A command on a deployment that has come too far for it, or not far enough."""

    command: str
    phase: str
    why: str

    def __str__(self) -> str:
        return f"The deployment is {self.phase} and cannot be {self.command}: {self.why}."


class IllegalTransition(Exception):
    """A move that the transition table does not have: a defect of ours, never a user's."""

    def __init__(self, subject: str, source: str, destination: str) -> None:
        super().__init__(f"{subject}: no way from {source} to {destination}")
        self.subject = subject
        self.source = source
        self.destination = destination
