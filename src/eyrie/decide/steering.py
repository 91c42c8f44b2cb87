"""What a person may do to a deployment on its way: let it pass, stop it where it stands, or send it back.

Pure commands, as those of decide/endpoint; decide/deployment acts by them at its next look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum

from eyrie.domain.analysis import PAUSE_LIMIT_MS, Pause, PausedBy
from eyrie.domain.deployment import MAY_ROLL_BACK, Deployment, DeploymentPhase
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.errors import NoDeployment, NotInThisPhase
from eyrie.domain.plan import Decision, Note

_Phase = DeploymentPhase
_BEFORE_THE_END = frozenset({_Phase.PENDING, _Phase.PROVISIONING, _Phase.SHIFTING, _Phase.BAKING})
WORDS_MAX = 256  # of the reason that a person gives


class Steer(StrEnum):
    """What is asked."""

    PROMOTE = "promote"
    ABORT = "abort"
    PAUSE = "pause"


def steer(endpoint: Endpoint, how: Steer, now_ms: int, why: str = "") -> Decision:
    """Do it. `why` is the person's own reason, for the story. Raises NoDeployment or NotInThisPhase."""
    deployment = endpoint.deployment
    if deployment is None:
        raise NoDeployment(endpoint.arn)
    said = f": {why[:WORDS_MAX]}" if why else ""
    changed, note = _WAYS[how](deployment, now_ms, said)
    after = replace(endpoint, deployment=changed, generation=endpoint.generation + 1)
    return Decision(after, (note,))


def _promote(deployment: Deployment, now_ms: int, said: str) -> tuple[Deployment, Note]:
    """The present step passes, whatever its analysis says and however long it has baked."""
    phase, step = deployment.phase, deployment.step
    if phase is _Phase.BAKING:
        note = Note("deployment promoted", f"a person lets step {step} pass{said}")
        return replace(deployment, promoted=step, pause=None), note
    if deployment.pause is None:
        raise NotInThisPhase("promoted", phase, "nothing waits for it; it can be while it bakes or is paused")
    return replace(deployment, pause=None), Note("deployment resumed", f"a person lets it go on{said}")


def _pause(deployment: Deployment, now_ms: int, said: str) -> tuple[Deployment, Note]:
    if deployment.phase not in _BEFORE_THE_END:
        raise NotInThisPhase("paused", deployment.phase, "all traffic has been moved already")
    policy = deployment.policy.analysis
    limit_ms = policy.pause_limit_ms if policy is not None else PAUSE_LIMIT_MS
    before = deployment.pause
    pause = Pause(PausedBy.PERSON, now_ms, limit_ms, f"by a person{said}")
    if before is not None and before.by is PausedBy.PERSON and not said:
        pause = replace(pause, why=before.why)  # for longer, for the reason that was given
    changed = replace(deployment, pause=pause, promoted=0)
    return changed, Note("deployment PAUSED", f"by a person, for {limit_ms // 1000} s at the most{said}")


def _abort(deployment: Deployment, now_ms: int, said: str) -> tuple[Deployment, Note]:
    if deployment.phase not in MAY_ROLL_BACK:
        raise NotInThisPhase("aborted", deployment.phase, "it ends already")
    aborted = f"A person aborted it{said}."
    return replace(deployment, aborted=aborted, pause=None), Note("deployment aborted", f"by a person{said}")


_WAYS: Mapping[Steer, Callable[[Deployment, int, str], tuple[Deployment, Note]]] = {
    Steer.PROMOTE: _promote,
    Steer.ABORT: _abort,
    Steer.PAUSE: _pause,
}
