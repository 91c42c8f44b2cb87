"""Keeps publications at ten a second in the long run: a few go out at once (an instance dies, the next one serves), and
then whoever comes within the same tenth goes out with the same batch.

A Routes around a Routes (adapters/feed in production). Only publishing is paced; a withdrawal waits for nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute
from eyrie.ports import Routes

PERIOD_S = 0.1
AT_ONCE = 4  # publications that need not wait after a quiet time


class _Batch:
    def __init__(self) -> None:
        self.routes: dict[EndpointKey, EndpointRoute] = {}
        self.out = threading.Event()
        self.error: BaseException | None = None


class PacedRoutes:
    """The first caller of a batch waits for its turn and writes everyone's tables; the others wait for it."""

    def __init__(
        self,
        routes: Routes,
        period_s: float = PERIOD_S,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._routes = routes
        self._period_s = period_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._gathering: _Batch | None = None
        self._due_s = 0.0  # when the next batch would go out, were there one a period: ahead of time by AT_ONCE - 1

    def publish(self, route: EndpointRoute) -> None:
        """Publish with the next batch; returns when it is out. Of two tables of one endpoint the newer goes out."""
        with self._lock:
            leads = self._gathering is None
            batch = self._gathering = self._gathering or _Batch()
            known = batch.routes.get(route.key)
            if known is None or known.generation < route.generation:
                batch.routes[route.key] = route
            wait_s = self._due_s - (AT_ONCE - 1) * self._period_s - self._monotonic()
        if not leads:
            batch.out.wait()
            if batch.error is not None:
                raise batch.error
            return
        if wait_s > 0:
            self._sleep(wait_s)
        self._send(batch)

    def withdraw(self, key: EndpointKey, generation: int) -> None:
        """Remove the endpoint's table."""
        self._routes.withdraw(key, generation)

    def served(self, key: EndpointKey) -> int:
        """The lowest generation that any live gateway worker still serves."""
        return self._routes.served(key)

    def idle(self, instance_id: str) -> bool:
        """True when no live worker has a request outstanding on an instance that left its table."""
        return self._routes.idle(instance_id)

    def published(self) -> dict[EndpointKey, int]:
        """Every table that is published, with its generation."""
        return self._routes.published()

    def _send(self, batch: _Batch) -> None:
        with self._lock:
            self._gathering = None
            self._due_s = max(self._due_s, self._monotonic()) + self._period_s
        try:
            for route in batch.routes.values():
                self._routes.publish(route)
        except BaseException as error:
            batch.error = error
            raise
        finally:
            batch.out.set()
