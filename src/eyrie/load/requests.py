"""The requests of a load test, ready to be sent: bodies in turn, heads signed once a second and body.

A signature holds for the second that it is dated with, so the same body in the same second is the same bytes. The other
side proves each all the same.
"""

from __future__ import annotations

import hashlib
from time import time

from eyrie.load.plan import Plan
from eyrie.wire.signing import Signer

TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"


class Requests:
    """Hands out one request after the other."""

    def __init__(self, plan: Plan) -> None:
        target = plan.target
        host = target.host if target.port == (443 if target.tls else 80) else f"{target.host}:{target.port}"
        scope = (target.region, target.service)
        self._signers = [
            Signer(
                target.access_key_id,
                target.secret,
                target.token,
                scope,
                host,
                target.path,
                [*target.headers, *([(TARGET_MODEL, model)] if model else [])],
            )
            for model in plan.models or [""]
        ]
        self._bodies = plan.bodies
        self._digests: dict[int, str] = {}  # when they are first sent: of millions only a few ever are
        self._turn = plan.share  # processes begin at different bodies
        self._at_s = 0
        self._ready: dict[tuple[int, int], bytes] = {}

    def next(self) -> bytes:
        """The next request, whole."""
        turn = self._turn
        self._turn += 1
        at_s = int(time())
        if at_s != self._at_s:
            self._at_s = at_s
            self._ready.clear()
        key = (turn % len(self._bodies), turn % len(self._signers))
        found = self._ready.get(key)
        if found is None:
            number, who = key
            body = self._bodies[number]
            digest = self._digests.get(number)
            if digest is None:
                digest = self._digests[number] = hashlib.sha256(body).hexdigest()
            found = self._ready[key] = self._signers[who].head(digest, len(body), at_s) + body
        return found
