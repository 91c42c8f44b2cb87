"""What a deployment does by the verdict on its green fleet: it goes on, waits, pauses for a person, or rolls back.

Part of decide/deployment's steps. A failure counts as soon as it is certain; a pass counts when the bake is over. What
is inconclusive then is paused: later evidence or a person decides, and after the limit it is rolled back (law 6).
"""

from __future__ import annotations

from dataclasses import replace

from eyrie.decide import analysis, rollout
from eyrie.decide.draft import Draft
from eyrie.domain.analysis import Analysis, Pause, PausedBy, Verdict
from eyrie.domain.deployment import Deployment

PERIOD_MS = 1_000  # how often the two fleets are compared


def verdict(draft: Draft, deployment: Deployment) -> Analysis | None:
    """What the numbers say now; None where green has not to prove itself in this step."""
    policy = deployment.policy.analysis
    if policy is None or not rollout.judged(deployment):
        return None
    draft.wake_at(draft.now_ms + PERIOD_MS)
    steps = rollout.judged_steps(deployment.policy, deployment.green)
    return analysis.judge(policy, draft.seen.evidence, deployment.step, steps, draft.now_ms)


def failure(draft: Draft, deployment: Deployment) -> str | None:
    """Why green is worse than is accepted, once that is certain."""
    found = verdict(draft, deployment)
    if found is None or found.verdict is not Verdict.FAIL:
        return None
    _keep(draft, deployment, analysis=found)
    return f"The canary analysis failed at step {deployment.step}: {analysis.told(found)}."


def allows(draft: Draft, deployment: Deployment) -> str | None:
    """Why a step that has baked may go on; None where it may not (yet). Pauses what is not decided."""
    found, policy = verdict(draft, deployment), deployment.policy.analysis
    assert found is not None
    assert policy is not None
    pause, baked_ms = deployment.pause, deployment.phase_ms + deployment.policy.bake_ms
    if pause is not None and pause.by is PausedBy.PERSON:
        return None
    if draft.now_ms < baked_ms:
        draft.wake_at(baked_ms)
        return None
    if found.verdict is Verdict.PASS:
        _keep(draft, deployment, analysis=found)
        return f"its analysis passed: {analysis.told(found)}"
    if pause is None:
        why = f"step {deployment.step} is inconclusive: {analysis.told(found)}"
        _keep(
            draft, deployment, analysis=found, pause=Pause(PausedBy.ANALYSIS, draft.now_ms, policy.pause_limit_ms, why)
        )
        limit_s = policy.pause_limit_ms // 1000
        draft.note("deployment PAUSED", f"{why}; promote or abort it within {limit_s} s, or more requests decide")
    return None


def _keep(draft: Draft, deployment: Deployment, analysis: Analysis, pause: Pause | None = None) -> None:
    current = draft.endpoint.deployment or deployment
    draft.change(deployment=replace(current, analysis=analysis, pause=pause))
