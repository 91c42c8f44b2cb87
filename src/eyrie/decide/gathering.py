"""When small requests for one target leave together, and when one worker of an instance is enough. Pure.

On the InvokeEndpoint path: `gateway/bundles` and `gateway/routes` ask here. A message of many requests costs little
more than one of a single request, to send and to predict; so under load fewer, fuller messages to fewer workers are
quicker for everybody, until a worker is so busy that a second one is worth its wake-ups.
"""

from __future__ import annotations

from enum import Enum

AT_ONCE = 4  # requests that a target has to work on before further ones gather for the next message
WAIT_MAX_S = 0.002  # a target that takes longer to answer is not waited for
ENOUGH_S = 0.001  # the first worker answers within this, and EACH_S for each request that it has: no second is needed
BUSY = 0.85  # share of a core from which a worker has no more to give
EACH_S = 0.00002  # less than a request costs the gateway that sends it: one that answers so quickly keeps up with it
ENOUGH_OUTSTANDING = 64
LIGHT_OUTSTANDING = 4  # the same for requests that do not gather: each costs a prediction of its own
WEIGHT = 0.03  # of a new answer in the mean


class Then(Enum):
    """What becomes, at the end of a turn of the loop, of what was gathered."""

    GO = "it leaves"
    NEXT_TURN = "more is coming in: see what the next turn brings"
    ANSWER = "the target is busy: it would wait there as long, in more messages"


def then(outstanding: int, gathered: int, before: int, takes_s: float) -> Then:
    """`outstanding` requests were sent and are not answered, `gathered` ones were not sent, `before` of them were there
    when the turn before ended; the target takes `takes_s` for a message of late.
    """
    if takes_s >= WAIT_MAX_S:
        return Then.GO
    if outstanding >= AT_ONCE:
        return Then.ANSWER
    return Then.NEXT_TURN if gathered > max(before, 1) else Then.GO


def half_of(total: int, before: int) -> int:
    """How many requests make a message while a target has `total` of them, sent or not; it was `before` at the message
    before. With two messages on their way, the target works on one while the gateway reads and answers the other; what
    falls slowly is not led astray by a moment in which few are there.
    """
    return max((total + 1) // 2, before - 1, AT_ONCE)


def at_half(outstanding: int, gathered: int, half: int) -> bool:
    """Whether the `gathered` requests leave at once, though the turn of the loop may bring more: they are half of what
    there is, and no more than the other half is on its way.
    """
    return gathered >= half >= outstanding


def first_is_enough(answers_s: float, outstanding: int, message_s: float, busy: float) -> bool:
    """Whether an instance's first worker may have one more small request while others of the instance are idle.

    It answers within `answers_s` of late. Where that is late, its own word counts: a message costs it `message_s` of
    CPU time (0: it has told nothing), and it is at work for `busy` of a core; the delay is then not its own.
    """
    if outstanding >= ENOUGH_OUTSTANDING:
        return False
    if answers_s < min(ENOUGH_S + outstanding * EACH_S, WAIT_MAX_S):
        return True
    return 0.0 < message_s < ENOUGH_S and busy < BUSY


def next_first(gathered: int, answered: int) -> bool:
    """Whether a message of `gathered` requests leaves before the `answered` ones are handed their answers: the target
    works on it meanwhile. Not a much smaller one: those who are answered now may soon ask again.
    """
    return 2 * gathered >= answered


def first_is_light(answers_s: float, outstanding: int) -> bool:
    """Whether an instance's first worker may have one more request for one of the many models that it holds, while
    others of the instance hold it too or could: an idle one always, a busy one while it is quick.
    """
    return outstanding == 0 or (answers_s < ENOUGH_S and outstanding < LIGHT_OUTSTANDING)
