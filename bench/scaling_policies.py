"""Four ways to scale on three traces in the wind tunnel: AWS-style target tracking, Kubernetes' HPA, Knative's KPA and
eyrie:Fast. Cost in instance-hours against minutes outside the objective.

    python bench/scaling_policies.py [--startup 20] [--seeds 3] [--markdown]

All aim at the same share (70 %) of what an instance can do, on the same instances, traffic and chance. A policy is on
the frontier where no other is better in one of the two and no worse in the other. The line at the end is how often
eyrie:Fast is: the goal is all of them.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import frame
from eyrie.domain.names import EndpointKey
from eyrie.sim import policy_file, report, traffic
from eyrie.sim.ours import Ours
from eyrie.sim.policy import Policy
from eyrie.sim.profile import InstanceProfile
from eyrie.sim.rivals import Hpa, Kpa
from eyrie.sim.run import Experiment, Run, runs
from eyrie.sim.traffic import Traffic
from eyrie.sim.words import Objective

SHARE = 0.7
FAST = "eyrie:Fast"
OBJECTIVE = Objective(99, 300)


def traces() -> list[Traffic]:
    return [
        traffic.diurnal(20, 300, seconds=21_600, period_s=21_600, peak_s=10_800),
        traffic.flash_crowd(50, 500),
        traffic.on_off(300, 30, seconds=14_400, on_s=600, off_s=600),
    ]


def policies(profile: InstanceProfile) -> list[Policy]:
    aws = {"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}
    fast = {
        "CustomizedMetricSpecification": {
            "Namespace": FAST,
            "MetricName": "ConcurrentRequests",
            "Statistic": "Average",
        }
    }
    return [
        tracked("AWS target tracking", SHARE * profile.rate * 60, aws),
        Hpa(),
        Kpa(profile.slots),
        tracked(FAST, SHARE * profile.slots, fast),
    ]


def tracked(name: str, target: float, what: dict[str, Any]) -> Ours:
    policy = {
        "PolicyName": "p",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {"TargetValue": target, **what},
    }
    document = json.dumps({"Name": name, "ScalingPolicies": [policy]})
    return Ours(policy_file.read(name, document, EndpointKey("123456789012", "us-east-1", "simulated"), "AllTraffic"))


def shown(found: list[Run], markdown: bool) -> None:
    rows = report.rows(found)
    if markdown:
        for row, run in zip(rows, found, strict=True):
            name = f"**{row.policy}**" if row.frontier else row.policy
            share = f"{100 * (run.late + run.failed) / max(run.requests, 1):.2f} %"
            where = run.experiment.traffic.name
            print(
                f"| {where} | {name} | {row.instance_hours:.1f} | {row.outside_minutes:.2f} | {share} | {row.actions} |"
            )
        return
    for row in rows:
        print(
            f"  {row.policy:20} {row.instance_hours:7.2f} instance-hours  {row.outside_minutes:6.2f} min outside  "
            f"{row.late:8,} late {row.failed:8,} failed  {row.actions:4} actions  {'frontier' if row.frontier else ''}"
        )


def main() -> int:
    options = frame.arguments(__doc__)
    options.add_argument("--startup", type=float, default=20.0, help="seconds that an instance takes to start")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--markdown", action="store_true", help="print rows of the documentation's table")
    chosen = options.parse_args()
    profile = InstanceProfile(service_ms=50, slots=2, startup_s=chosen.startup, usd_per_hour=0.115)
    kept = total = 0
    for blown in traces():
        for seed in range(1, chosen.seeds + 1):
            experiment = Experiment(blown, profile, OBJECTIVE, minimum=1, maximum=30, initial=3, seed=seed)
            found = runs(experiment, policies(profile))
            if not chosen.markdown:
                print(f"{blown.name}, seed {seed}")
            shown(found, chosen.markdown)
            sys.stdout.flush()
            mine = next(run for run in found if run.policy == FAST)
            kept, total = kept + report.on_frontier(mine, found), total + 1
    detail = f"{kept} of {total} runs; starts of {chosen.startup:g} s"
    return frame.finish(
        [frame.Ratio(f"{FAST} on the frontier of cost and quality", kept / total, 1.0, detail=detail)], chosen.report
    )


if __name__ == "__main__":
    sys.exit(main())
