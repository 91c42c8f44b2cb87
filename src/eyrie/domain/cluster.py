"""The Ray cluster that a value of EYRIE_COMPUTE names.

ray                                   one of each job's own, on this host
ray://10.0.0.1:6379                   the one whose head `ray start --head` has started there
ray://10.0.0.1:6379?endpoint=http://10.0.0.5:7777     ... whose nodes reach Eyrie there
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LOCAL = "ray"
_URL = re.compile(
    r"ray://(?P<address>[A-Za-z0-9.\-]+:\d{1,5})(\?endpoint=(?P<endpoint>http://[A-Za-z0-9.\-]+(:\d{1,5})?))?/?"
)


class ClusterError(ValueError):
    """A value that names no cluster; the message is for people."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster."""

    url: str
    address: str = ""  # HOST:PORT of its head; "": one of each job's own
    endpoint: str = ""  # http://HOST:PORT of Eyrie, as its nodes see it; "": as this host sees it

    @staticmethod
    def of(compute: str) -> Cluster:
        """The cluster of a value of EYRIE_COMPUTE. Raises ClusterError."""
        if compute == LOCAL:
            return Cluster(LOCAL)
        found = _URL.fullmatch(compute)
        if found is None:
            raise ClusterError(
                f"{compute!r} is neither ray (a cluster of each job's own) nor "
                "ray://HOST:PORT[?endpoint=http://HOST:PORT of Eyrie, as the nodes see it]"
            )
        return Cluster(compute, found["address"], found["endpoint"] or "")


def names_cluster(compute: str) -> bool:
    """Whether a value of EYRIE_COMPUTE is about a Ray cluster at all."""
    return compute == LOCAL or compute.startswith(LOCAL + ":")


def cluster_of(compute: str) -> Cluster | None:
    """The cluster that is named; None where none is meant. Raises ClusterError."""
    return Cluster.of(compute) if names_cluster(compute) else None
