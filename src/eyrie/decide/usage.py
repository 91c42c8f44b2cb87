"""From two readings of an instance to its utilisation, by SageMaker's names, in percent. Pure.

A core that is busy all the time is 100 of CPUUtilization, so an instance of four vCPUs reaches 400; GPUs likewise. The
others are 0 to 100.
"""

from __future__ import annotations

from eyrie.domain.usage import InstanceUsage

MEBIBYTE = 1_048_576


def cores_used(before: InstanceUsage, after: InstanceUsage) -> float:
    """Cores that were busy on average between two readings; no more than it may use.

    Readings of counters and of the clock are a moment apart, so a busy instance could seem to pass its cap.
    """
    passed_us = after.at_us - before.at_us
    if passed_us <= 0:
        return 0.0
    return min(max(after.cpu_us - before.cpu_us, 0) / passed_us, after.vcpu_milli / 1000)


def utilisation(before: InstanceUsage, after: InstanceUsage) -> dict[str, float]:
    """The instance's metrics between two readings, by name."""
    found = {
        "CPUUtilization": 100 * cores_used(before, after),
        "MemoryUtilization": min(100 * after.memory_bytes / (max(after.memory_mb, 1) * MEBIBYTE), 100.0),
        "DiskUtilization": after.disk_percent,
    }
    if after.gpus:
        found["GPUUtilization"] = sum(gpu.percent for gpu in after.gpus)
        found["GPUMemoryUtilization"] = sum(gpu.memory_percent for gpu in after.gpus)
    return found
