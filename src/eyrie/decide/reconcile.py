"""The reconciler's decision about one endpoint: an observation in, a Decision out. The steps, in their order:

absorb outcomes -> what each instance is -> how large serverless variants are -> how the status moves -> who starts and
who drains -> which route table -> who may be stopped. Each step is one file of this folder; every one reads what the
ones before it have changed.
"""

from __future__ import annotations

from eyrie.decide.capacity import Chance, fill
from eyrie.decide.deployment import progress
from eyrie.decide.draft import Draft
from eyrie.decide.fleet import absorb, look
from eyrie.decide.policy import Policy
from eyrie.decide.publication import publish
from eyrie.decide.retire import retire
from eyrie.decide.serverless import resize
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.observation import Observation
from eyrie.domain.plan import Decision


def plan(endpoint: Endpoint, seen: Observation, now_ms: int, chance: Chance, policy: Policy) -> Decision:
    """What to do about an endpoint now. Deciding again after this has been committed goes on where it stopped."""
    draft = Draft(endpoint, seen, now_ms)
    absorb(draft, policy)
    look(draft, policy)
    resize(draft, policy)
    progress(draft, policy)
    if not draft.gone:
        fill(draft, policy, chance)
        publish(draft, policy)
        retire(draft, policy)
    return draft.close()
