"""How many workers an instance has: model server processes, each a target of the gateway. Decided once, when an
endpoint takes its configuration, and kept with the variant: the claim and the route table say the same for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

WORKERS_MAX = 64
ASKED_BY = ("SAGEMAKER_MODEL_SERVER_WORKERS", "MODEL_SERVER_WORKERS")  # the first one that is a number holds


def workers(vcpu_milli: int, cpus: int, environments: Sequence[Mapping[str, str]], foreign: bool = False) -> int:
    """Workers of an instance whose containers have these environments, on a host with `cpus` CPUs.

    As many as the model's environment asks for, else one a vCPU, but no more than the host has CPUs. An image that is
    not ours minds its own processes.
    """
    if foreign:
        return 1
    asked = [count for environment in environments if (count := _asked(environment))]
    return min(max(asked) if asked else max(1, min(vcpu_milli // 1000, cpus)), WORKERS_MAX)


def _asked(environment: Mapping[str, str]) -> int:
    """What one container asks for; 0: nothing that can be read, which the model server refuses in words."""
    for name in ASKED_BY:
        text = environment.get(name, "").strip()
        if text:
            return int(text) if text.isdecimal() and len(text) < 6 else 0
    return 0
