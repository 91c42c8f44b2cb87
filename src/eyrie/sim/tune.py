"""The cheapest policy that keeps the objective: a search over the target and the windows of one kind of policy.

With optuna (the extra `sim`) its sampler chooses; without it a grid does. Either way the same seed gives the same
answer, and every candidate is a whole run through the wind tunnel.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from eyrie.domain.names import EndpointKey
from eyrie.sim import policy_file
from eyrie.sim.ours import Ours
from eyrie.sim.run import Experiment, Run, run

TRIALS_MAX = 500
SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.4, 0.3)  # of what an instance can do
KINDS = ("fast", "aws")


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate and what came of it."""

    policy: dict[str, Any]  # as PutScalingPolicy takes it
    minimum: int
    result: Run

    @property
    def rank(self) -> tuple[float, float]:
        """Lower is better: first the time outside the objective beyond what is allowed, then cost."""
        return self.result.outside_minutes, self.result.instance_hours


@dataclass(frozen=True, slots=True)
class Tuned:
    """The outcome of a search."""

    best: Trial
    trials: tuple[Trial, ...]
    kept: bool  # the best one keeps the objective as long as was asked for
    searched_by: str


def candidate(kind: str, share: float, in_cooldown_s: int, experiment: Experiment) -> dict[str, Any]:
    """A target tracking policy that uses `share` of what an instance can do. Raises ValueError for an unknown kind."""
    profile = experiment.profile
    if kind == "aws":
        predefined = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
        what: dict[str, Any] = {
            "TargetValue": round(share * profile.rate * 60, 3),
            "PredefinedMetricSpecification": predefined,
        }
    elif kind == "fast":
        measured = {"Namespace": "eyrie:Fast", "MetricName": "ConcurrentRequests", "Statistic": "Average"}
        what = {"TargetValue": round(share * profile.slots, 4), "CustomizedMetricSpecification": measured}
    else:
        raise ValueError(f"a kind of policy is one of {', '.join(KINDS)}, not {kind!r}")
    what |= {"ScaleInCooldown": in_cooldown_s}
    return {
        "PolicyName": f"{kind}-{share:.3g}-{in_cooldown_s}s",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": what,
    }


def tune(
    experiment: Experiment, kind: str = "fast", trials: int = 40, allowed_minutes: float = 0.0, plain: bool = False
) -> Tuned:
    """Search. `allowed_minutes` outside the objective are as good as none. `plain`: without optuna even where it is."""
    if not 1 <= trials <= TRIALS_MAX:
        raise ValueError(f"trials must lie between 1 and {TRIALS_MAX}, and is {trials}")
    found: list[Trial] = []

    def attempt(share: float, in_cooldown_s: int) -> Trial:
        policy = candidate(kind, share, in_cooldown_s, experiment)
        known = next((t for t in found if t.policy == policy), None)
        if known is not None:
            return known
        key = EndpointKey("123456789012", "us-east-1", "simulated")
        setup = policy_file.read(policy["PolicyName"], json.dumps(policy), key, "AllTraffic")
        found.append(Trial(policy, experiment.minimum, run(experiment, Ours(setup))))
        return found[-1]

    searched_by = "a grid" if plain or not _optuna(attempt, trials, experiment.seed, allowed_minutes) else "optuna"
    if searched_by == "a grid":
        for share, in_cooldown_s in _grid(trials):
            attempt(share, in_cooldown_s)
    best = min(found, key=lambda t: _rank(t, allowed_minutes))
    kept = best.result.outside_minutes <= allowed_minutes
    return Tuned(best, tuple(found), kept, searched_by)


def _rank(trial: Trial, allowed_minutes: float) -> tuple[float, float]:
    return max(0.0, trial.result.outside_minutes - allowed_minutes), trial.result.instance_hours


def _grid(trials: int) -> Iterator[tuple[float, int]]:
    """The most telling ones first."""
    pairs = [(share, cooldown) for cooldown in (60, 20, 180, 300) for share in SHARES]
    yield from pairs[:trials]


def _optuna(attempt: Callable[[float, int], Trial], trials: int, seed: int, allowed_minutes: float) -> bool:
    """Let optuna search; False where it is not installed."""
    try:
        import optuna
    except ImportError:
        return False
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def judged(trial: Any) -> float:
        share = trial.suggest_float("share", 0.3, 0.95, step=0.01)
        outcome = attempt(share, trial.suggest_int("in_cooldown_s", 20, 300, step=20))
        beyond, hours = _rank(outcome, allowed_minutes)
        return beyond * 1e4 + hours

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    for share in (0.9, 0.7, 0.5):
        study.enqueue_trial({"share": share, "in_cooldown_s": 60})
    study.optimize(judged, n_trials=trials)
    return True
