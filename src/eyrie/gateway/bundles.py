"""Small requests for one target that go as one message and come back as one: those of a turn of the loop, and those
that came while the message before was under way.

On the path: `invocation` hands over plain requests with small bodies for a target that said in a reply
(`x-eyrie-batch`) that its model server predicts rows of many requests in one call. They leave as POST /eyrie/batch
(`modelserver/bulk`): `u32 length, body` each, answered by `u16 status, u32 length, body` each. A write, a wake-up, a
head, a read and a prediction a message instead of a request: under load these cost more than all else that a request
needs. `decide/gathering` says when they leave.

A request without company is sent as it always was. What goes wrong with a message goes wrong for each of its requests
as if it had been sent alone; one that was moved from a lost instance, and may be what ended it, travels alone.
"""

from __future__ import annotations

import logging
import struct
from asyncio import AbstractEventLoop, TimerHandle
from time import perf_counter
from typing import TYPE_CHECKING

from eyrie.decide.gathering import AT_ONCE, WAIT_MAX_S, Then, at_half, half_of, next_first, then
from eyrie.http1.upstream import EFFORT, Channel, ConnectFailed, Failure, ReplyHead

if TYPE_CHECKING:
    from eyrie.gateway.invocation import Invocation
    from eyrie.gateway.routes import Instance, Kinds

log = logging.getLogger(__name__)

OFFERED = b"x-eyrie-batch"  # a header of replies: POST /eyrie/batch is understood
BODY_BYTES_MAX = 4_096  # of a request that is gathered: the wake-ups are nothing beside the work on a larger one
MESSAGE_BYTES_MAX = 65_536
TOGETHER_MAX = 128
REPLY_BYTES_MAX = 8_388_608  # of a message's reply: answers so long are better streamed, each alone
KIND = b"x-eyrie-content-type"  # of a message's answers
_EFFORT_WEIGHT = 0.1  # of a new message in the mean
_HEADS_MAX = 64  # of messages, and of answers
_ANSWER = struct.Struct("<HI")


class Gathering:
    """What is gathered for one target. `add` is the hot path."""

    __slots__ = (
        "_alarm",
        "_half",
        "_heads",
        "_kinds_of",
        "_loop",
        "_open",
        "_scheduled",
        "_seen",
        "instance",
        "waiting",
    )

    def __init__(self, instance: Instance, loop: AbstractEventLoop) -> None:
        self.instance = instance
        self.waiting = 0  # requests that were gathered and are not sent
        self._loop = loop
        self._open: dict[Kinds, Bundle] = {}
        self._scheduled = False
        self._half = AT_ONCE  # requests that leave without waiting for the end of the turn
        self._seen = 0  # requests that waited at the end of the turn before
        self._alarm: TimerHandle | None = None  # ends the waiting for a message that is under way
        self._heads: dict[Kinds, bytes] = {}  # of messages, but for their length
        self._kinds_of: dict[tuple[int, bytes], ReplyHead] = {}  # heads of answers, by status and content type

    def add(self, invocation: Invocation, kinds: Kinds, body: bytes) -> None:
        """Have a request, which is among the target's already, leave with others."""
        bundle = self._open.get(kinds)
        if bundle is None or bundle.full(len(body)):
            if bundle is not None:
                del self._open[kinds]
                bundle.send()
            bundle = self._open[kinds] = Bundle(self, kinds)
        invocation.bundle = bundle
        bundle.add(invocation, body)
        self.waiting += 1
        if at_half(len(self.instance.invocations) - self.waiting, self.waiting, self._half):
            self._flush()
        else:
            self._soon()

    def heard(self) -> None:
        """The target has answered: what waits may go at the end of this turn, with what else it brings."""
        self._soon()

    def answered(self, requests: int) -> None:
        """The target has answered a message of so many requests, and nobody has heard of it yet: it gets the next one
        first, if that is worth it.
        """
        if self.waiting and next_first(self.waiting, requests):
            self._flush()

    def _turn(self) -> None:
        """The turn ends."""
        self._scheduled = False
        if not self.waiting:  # it has left meanwhile
            return
        instance, before = self.instance, self._seen
        self._seen = self.waiting
        outstanding = len(instance.invocations) - self.waiting
        match then(outstanding, self.waiting, before, instance.message_s or instance.answers_s):
            case Then.GO:
                self._flush()
            case Then.NEXT_TURN:
                self._soon()
            case Then.ANSWER if self._alarm is None:
                self._alarm = self._loop.call_later(WAIT_MAX_S, self._flush)

    def _soon(self) -> None:
        """See about it at the end of this turn."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _flush(self) -> None:
        self._seen = 0
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._half = half_of(len(self.instance.invocations), self._half)
        opened, self._open = self._open, {}
        for bundle in opened.values():
            bundle.send()
        self.instance.pool.outbox.flush()  # this is the end of the turn that the outbox waits for

    def learn(self, effort: bytes) -> None:
        """What a message cost the target, in its own words: microseconds of CPU, and how many thousandths of a core it
        is at work.
        """
        cost_us, _, share = effort.partition(b" ")
        if cost_us.isdigit() and share.isdigit():
            instance, message_s = self.instance, int(cost_us[:9]) / 1e6
            instance.message_s += (message_s - instance.message_s) * (_EFFORT_WEIGHT if instance.message_s else 1.0)
            instance.busy = int(share[:9]) / 1000

    def head(self, kinds: Kinds) -> bytes:
        """The head of a message whose requests have these Content-Type and Accept, but for its length."""
        known = self._heads.get(kinds)
        if known is None:
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            known = self.instance.head(kinds).replace(b"/invocations", b"/eyrie/batch", 1)
            self._heads[kinds] = known
        return known

    def answer_head(self, status: int, kind: bytes) -> ReplyHead:
        """The head of an answer in a message."""
        known = self._kinds_of.get((status, kind))
        if known is None:
            if len(self._kinds_of) >= _HEADS_MAX:
                self._kinds_of.clear()
            headers = [(b"content-type", kind)] if status < 300 else []
            known = self._kinds_of[status, kind] = ReplyHead(status, headers, 0)
        return known

    def give_up(self) -> None:
        """This target is not sent any message again."""
        if self.instance.gathering is not None:  # the first of the messages that are on their way
            log.warning("%s takes its requests one by one from now on", self.instance.name)
        self.instance.gathering = None
        self.instance.apart = True


class Bundle:
    """One message: first it gathers, then it is the sink of its reply. A request is in it as long as it says so."""

    __slots__ = (
        "_bodies",
        "_bytes",
        "_gathering",
        "_headers",
        "_kinds",
        "_left",
        "_members",
        "_pieces",
        "_status",
        "channel",
        "sent",
    )

    def __init__(self, gathering: Gathering, kinds: Kinds) -> None:
        self._gathering = gathering
        self._kinds = kinds
        self._members: list[Invocation] = []
        self._bodies: list[bytes] = []
        self._bytes = 0
        self._left = 0
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self.channel: Channel | None = None
        self.sent = False  # it has left, if only for a target that is gone

    # --- before it is sent ------------------------------------------------------------------------------------------

    def full(self, length: int) -> bool:
        """Whether a body of so many bytes finds no room."""
        return self._bytes + length > MESSAGE_BYTES_MAX or len(self._members) >= TOGETHER_MAX

    def add(self, invocation: Invocation, body: bytes) -> None:
        """One more request."""
        self._members.append(invocation)
        self._bodies.append(body)
        self._bytes += len(body) + 4

    def send(self) -> None:
        """Off it goes."""
        self.sent = True
        self._gathering.waiting -= self.size
        if self._left:
            self._drop_the_left()
        members = self._members
        if len(members) < 2:
            self._members = []
            for member in members:
                member.go_alone()
            return
        gathering = self._gathering
        message = message_of(gathering.head(self._kinds), self._bodies)
        self._bodies = []
        try:
            gathering.instance.pool.send(self, message)
        except ConnectFailed:
            self._scatter()
        else:
            now = perf_counter()
            for member in members:
                member.sent_at = now

    def _drop_the_left(self) -> None:
        kept = [pair for pair in zip(self._members, self._bodies, strict=True) if pair[0].bundle is self]
        self._members = [member for member, _ in kept]
        self._bodies = [body for _, body in kept]
        self._bytes = sum(map(len, self._bodies)) + 4 * len(kept)
        self._left = 0

    # --- while it is under way --------------------------------------------------------------------------------------

    @property
    def began(self) -> bool:
        """Whether a byte of its reply has come."""
        return self.channel is not None and self.channel.began

    def leave(self) -> None:
        """One of its requests is in it no more."""
        self._left += 1
        if not self.sent:
            self._gathering.waiting -= 1
        elif self.channel is not None and self._left == len(self._members):
            self.channel.cancel()
            self._over()

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """The answers, in one piece."""
        gathering = self._gathering
        members = self._over()
        gathering.answered(len(members))
        if head.status == 200:
            answers = answers_of(body)
            if len(answers) != len(members):
                self._fail(members, Failure.GARBAGE, True)
                return
            kind = b""
            for name, value in head.headers:
                if name == KIND:
                    kind = value
                elif name == EFFORT:
                    gathering.learn(value)
            for member, (status, said) in zip(members, answers, strict=True):
                if member.bundle is self:
                    member.bundle = None
                    member.reply_whole(gathering.answer_head(status, kind), said)
        elif head.status in (404, 405):
            gathering.give_up()
            self._members = members
            self._scatter()
        else:
            for member in members:
                if member.bundle is self:
                    member.bundle = None
                    member.reply_whole(head, body)

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head of a reply that comes in several reads."""
        self._status, self._headers = status, headers
        self._bytes = 0

    def reply_data(self, piece: bytes) -> None:
        """A piece of it: gathered, within bounds."""
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes > REPLY_BYTES_MAX and self.channel is not None:
            self.channel.cancel()
            self._gathering.give_up()
            self._members = self._over()
            self._scatter()

    def reply_end(self) -> None:
        """It is whole."""
        body = b"".join(self._pieces)
        self.reply_whole(ReplyHead(self._status, self._headers, len(body)), body)

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """There is no (whole) reply."""
        self._fail(self._over(), failure, began)

    def writable(self, writable: bool) -> None:
        """A message is small."""

    @property
    def size(self) -> int:
        """How many requests are in it, without those that have left."""
        return len(self._members) - self._left

    # --- endings ----------------------------------------------------------------------------------------------------

    def _over(self) -> list[Invocation]:
        """Its members, who are on their own from now on."""
        members, self._members = self._members, []
        self.channel = None
        return members

    def _fail(self, members: list[Invocation], failure: Failure, began: bool) -> None:
        for member in members:
            if member.bundle is self:  # else the first one's failure has moved it
                member.bundle = None
                member.reply_failed(failure, began)

    def _scatter(self) -> None:
        """Each for itself, as if they had not been gathered."""
        members, self._members = [member for member in self._members if member.bundle is self], []
        for member in members:
            member.part()
        for member in members:
            member.dispatch()


def message_of(head: bytes, bodies: list[bytes]) -> bytes:
    """A message of these requests; `head` is all of its head but the length."""
    parts = [part for body in bodies for part in (len(body).to_bytes(4, "little"), body)]
    length = sum(map(len, parts))
    return b"".join((b"%bcontent-length: %d\r\n\r\n" % (head, length), *parts))


def answers_of(message: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer in a message; those that can be read."""
    found: list[tuple[int, bytes]] = []
    at, end = 0, len(message)
    while at + _ANSWER.size <= end:
        status, size = _ANSWER.unpack_from(message, at)
        at += _ANSWER.size
        if at + size > end:
            return []
        found.append((status, message[at : at + size]))
        at += size
    return found if at == end else []
