"""Counts requests that were sent to an instance a second time.

A kept connection may end just as a request goes out on it: the instance has closed it for idleness, or the worker
process behind it has died while its instance lives. No byte of a reply has come, so the request goes once more, to the
same instance on a fresh connection (`http1/upstream`); to another instance it goes only after that, and counts as a
retry there. Control hears of it with the second's rollups.

A replay takes nothing from the retry budget. The budget keeps the requests of lost instances from doubling the load on
the rest; a replay adds none to the rest, and there is one at the most for each kept connection that ended. Were it
refused, an idle connection that a healthy instance closed would speak against that instance.
"""

from __future__ import annotations

from eyrie.gateway.bundles import Bundle
from eyrie.gateway.meter import Meter
from eyrie.gateway.routes import Instance
from eyrie.http1.upstream import Sink

Counts = dict[str, dict[str, dict[str, int]]]  # by slug, variant and instance


class Replays:
    """The counts of one worker's second."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._counts: Counts = {}

    def again(self, instance: Instance, sink: Sink) -> None:
        """A message goes a second time: one request, or the many that were gathered into it."""
        requests = sink.size if isinstance(sink, Bundle) else 1
        self._meter.count("replays", requests)
        of_variant = self._counts.setdefault(instance.endpoint.slug, {}).setdefault(instance.variant.name, {})
        of_variant[instance.instance_id] = of_variant.get(instance.instance_id, 0) + requests

    def take(self) -> Counts:
        """The second's counts, which begin anew."""
        found, self._counts = self._counts, {}
        return found
