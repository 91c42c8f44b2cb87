"""Several containers behind one /invocations: in order (an inference pipeline), or by name (direct invocation).

In a pipeline the answer of one container, with its content type, is the request of the next; Accept is the last one's
matter. The first answer that is no success ends it: it goes to the client with its own status, and says in
`x-eyrie-container` whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eyrie.http1.application import Listener
from eyrie.modelserver.replier import TEXT_LINES, Fields, Replier
from eyrie.modelserver.servable import Servable
from eyrie.modelserver.times import Timed, Times

TARGET = b"x-amzn-sagemaker-target-container-hostname"
KINDS_REMEMBERED_MAX = 64


class Pipeline:
    """Containers in order."""

    def __init__(
        self, stages: Sequence[tuple[str, Servable]], body_bytes_max: int, times: Times | None = None
    ) -> None:
        """`stages`: hostname and servable, the first first; no body between two may be longer than `body_bytes_max`."""
        self.stages = tuple(stages)
        self.times = times or Times(name for name, _ in stages)
        self.body_bytes_max = body_bytes_max
        self._kinds: dict[bytes, bytes] = {}

    @property
    def parallel(self) -> int:
        """As many requests as its narrowest container."""
        return min(stage.parallel for _, stage in self.stages)

    @property
    def busy(self) -> bool:
        """Whether a request is in it."""
        return any(stage.busy for _, stage in self.stages)

    def invoke(self, replier: Replier, body: bytes, fields: Fields) -> None:
        """Send a request through all containers."""
        _Passage(self, replier, fields).enter(0, body, fields.get(b"content-type"))

    def kind_of(self, lines: bytes) -> bytes | None:
        """The content type in a reply's header lines; the same lines are read once."""
        kind = self._kinds.get(lines)
        if kind is None:
            kind = _content_type(lines)
            if kind is not None and len(self._kinds) < KINDS_REMEMBERED_MAX:
                self._kinds[lines] = kind
        return kind


class _Passage:
    """One request on its way through a pipeline: what each container takes for its client."""

    __slots__ = (
        "_began_s", "_client", "_fields", "_last", "_pieces", "_pipeline", "_size", "_stage", "_started", "context",
    )  # fmt: skip

    def __init__(self, pipeline: Pipeline, client: Replier, fields: Fields) -> None:
        self._pipeline = pipeline
        self._client = client
        self._fields = fields
        self._stage = 0
        self._last = False
        self._started: tuple[int, bytes] = (0, b"")  # of an answer in pieces that is gathered for the next container
        self._pieces: list[bytes] = []
        self._size = 0
        self._began_s = 0.0  # when its container was asked
        self.context: Any = None

    def enter(self, stage: int, body: bytes, kind: bytes | None) -> None:
        """Ask the next container."""
        stages = self._pipeline.stages
        self._stage = stage
        self._last = stage == len(stages) - 1
        fields = dict(self._fields)
        if not self._last:
            fields.pop(b"accept", None)
        if kind is not None:
            fields[b"content-type"] = kind
        else:
            fields.pop(b"content-type", None)
        self._began_s = self._pipeline.times.clock()
        stages[stage][1].invoke(self, body, fields)

    @property
    def alive(self) -> bool:
        """Whether the client waits still."""
        return self._client.alive

    @property
    def writing_paused(self) -> bool:
        """Whether the client is behind; what is gathered for the next container never is."""
        return self._last and self._client.writing_paused

    @property
    def listener(self) -> Listener:
        """Who hears of the client."""
        return self._client.listener

    @listener.setter
    def listener(self, listener: Listener) -> None:
        self._client.listener = listener

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        """A container's answer: the next one's request, or the client's answer."""
        self._took()
        self._go_on(status, lines, body)

    def _go_on(self, status: int, lines: bytes, body: bytes) -> None:
        if self._last or not 200 <= status < 300 or status == 204:
            self._client.reply(status, self._marked(status, lines), body)
        elif len(body) > self._pipeline.body_bytes_max:
            self._too_large()
        elif self._client.alive:
            self.enter(self._stage + 1, body, self._pipeline.kind_of(lines))

    def start(self, status: int, lines: bytes, length: int | None) -> None:
        """An answer in pieces: gathered where another container follows."""
        if self._last:
            self._client.start(status, self._marked(status, lines), length)
        else:
            self._started, self._pieces, self._size = (status, lines), [], 0

    def write(self, piece: bytes) -> None:
        """A piece."""
        if self._last:
            self._client.write(piece)
        elif self._size <= self._pipeline.body_bytes_max:
            self._pieces.append(piece)
            self._size += len(piece)

    def finish(self) -> None:
        """The answer is complete."""
        self._took()
        if self._last:
            self._client.finish()
        elif self._size > self._pipeline.body_bytes_max:
            self._too_large()
        else:
            status, lines = self._started
            self._go_on(status, lines, b"".join(self._pieces))

    def abort(self) -> None:
        """The answer will never be complete. Where nothing of it has reached the client, it hears an error."""
        self._took()
        if self._last:
            self._client.abort()
        else:
            message = b"the answer broke off; its log says why"
            self._client.reply(500, self._marked(500, TEXT_LINES), message)

    def _took(self) -> None:
        self._pipeline.times.took(self._pipeline.stages[self._stage][0], self._began_s)

    def _marked(self, status: int, lines: bytes) -> bytes:
        if status < 400:
            return lines
        return b"%bx-eyrie-container: %b\r\n" % (lines, self._pipeline.stages[self._stage][0].encode())

    def _too_large(self) -> None:
        limit = self._pipeline.body_bytes_max
        message = f"the answer for the next container is longer than {limit} bytes".encode()
        self._client.reply(500, self._marked(500, TEXT_LINES), message)


def _content_type(lines: bytes) -> bytes | None:
    for line in lines.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-type":
            return value.strip()
    return None


class Choice:
    """Containers by name: the request says which."""

    def __init__(self, members: Mapping[str, tuple[Servable, int]], times: Times | None = None) -> None:
        """`members`: servable and its limit of a body in bytes, by hostname."""
        self.times = times or Times(members)
        self._members = {name.encode(): member for name, member in members.items()}
        names = ", ".join(members)
        self._unnamed = f"name one of the containers ({names}) in {TARGET.decode()}".encode()
        self._unknown = f"no such container; there are {names}".encode()

    @property
    def parallel(self) -> int:
        """As many requests as its narrowest container."""
        return min(servable.parallel for servable, _ in self._members.values())

    @property
    def busy(self) -> bool:
        """Whether a request is in it."""
        return any(servable.busy for servable, _ in self._members.values())

    def invoke(self, replier: Replier, body: bytes, fields: Fields) -> None:
        """Hand a request to the container that it names; 400 where it names none that is here."""
        name = fields.get(TARGET, b"").strip()
        member = self._members.get(name)
        if member is None:
            replier.reply(400, TEXT_LINES, self._unknown if TARGET in fields else self._unnamed)
        elif len(body) > member[1]:
            replier.reply(413, TEXT_LINES, f"the body is longer than {member[1]} bytes".encode())
        else:
            member[0].invoke(Timed(replier, self.times, name.decode()), body, fields)
