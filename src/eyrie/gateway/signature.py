"""What tensors a model takes and gives, asked of one of its instances: GET /eyrie/metadata.

Eyrie's own model server tells where its framework knows; a container that is not ours has no such path, and then the
metadata of the Open Inference Protocol name no tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from eyrie.gateway.routes import Instance
from eyrie.http1.server import Connection
from eyrie.http1.upstream import Channel, ConnectFailed, Failure, ReplyHead
from eyrie.wire.tensors import of_dtype

_ASKED = b"GET /eyrie/metadata HTTP/1.1\r\nhost: eyrie\r\n\r\n"
_BYTES_MAX = 1_048_576


class Port(msgspec.Struct):
    """An input or output, as an instance tells of it: `dtype` is NumPy's name, a size -1 where it is free."""

    name: str
    dtype: str = ""
    shape: list[int] | None = None


class _Container(msgspec.Struct):
    inputs: list[Port] = []
    outputs: list[Port] = []


class Signature(msgspec.Struct):
    """What the containers of an instance take and give."""

    execution: str = "Serial"
    containers: list[_Container] = []

    def as_json(self) -> dict[str, Any]:
        """As the protocol's metadata name it: the inputs of the first container, the outputs of the last."""
        if not self.containers or self.execution != "Serial":
            return {"inputs": [], "outputs": []}
        ends = {"inputs": self.containers[0].inputs, "outputs": self.containers[-1].outputs}
        return {name: [_tensor(port) for port in ports] for name, ports in ends.items()}


def _tensor(port: Port) -> dict[str, Any]:
    shape = [-1] if port.shape is None else port.shape
    return {"name": port.name, "datatype": of_dtype(port.dtype), "shape": shape}


class Question:
    """One GET of metadata: hears from its client's connection and, as a sink, from the instance. `told` hears the
    signature, or an empty one.
    """

    def __init__(self, instance: Instance, until_s: float, told: Callable[[Signature], None]) -> None:
        self._instance = instance
        self._told: Callable[[Signature], None] | None = told
        self._pieces: list[bytes] = []
        self._status = 0
        self.until_s = until_s
        self.channel: Channel | None = None

    # --- the client's side ------------------------------------------------------------------------------------------

    def body(self, connection: Connection, data: bytes) -> None:
        """The request is whole: ask."""
        try:
            self._instance.pool.send(self, _ASKED)
        except ConnectFailed:
            self._tell(Signature())

    def too_large(self, connection: Connection) -> None:
        """A GET that brings a body: it says nothing here."""
        self.body(connection, b"")

    def gone(self, connection: Connection) -> None:
        """The client left."""
        self._told = None
        self._cancel()

    def data(self, connection: Connection, piece: bytes) -> None:
        """Never called: bodies are collected."""

    def end(self, connection: Connection) -> None:
        """Never called: bodies are collected."""

    def paused(self, connection: Connection) -> None:
        """The reply is small."""

    def resumed(self, connection: Connection) -> None:
        """The reply is small."""

    # --- the instance's side ----------------------------------------------------------------------------------------

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """The answer in one piece."""
        self._status = head.status
        self._pieces.append(body)
        self.reply_end()

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head of the answer."""
        self._status = status

    def reply_data(self, piece: bytes) -> None:
        """A piece of the answer."""
        self._pieces.append(piece)
        if sum(map(len, self._pieces)) > _BYTES_MAX:
            self.give_up()

    def reply_end(self) -> None:
        """The answer is whole."""
        self.channel = None
        found = Signature()
        if self._status == 200:
            with contextlib.suppress(msgspec.MsgspecError):
                found = msgspec.json.decode(b"".join(self._pieces), type=Signature)
        self._tell(found)

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """It does not say."""
        self.channel = None
        self._tell(Signature())

    def writable(self, writable: bool) -> None:
        """The question is small."""

    # --- endings ----------------------------------------------------------------------------------------------------

    @property
    def answered(self) -> bool:
        """Whether it is over."""
        return self._told is None

    def give_up(self) -> None:
        """It takes too long, or too much."""
        self._cancel()
        self._tell(Signature())

    def _cancel(self) -> None:
        if self.channel is not None:
            self.channel.cancel()
            self.channel = None

    def _tell(self, signature: Signature) -> None:
        told, self._told = self._told, None
        if told is not None:
            told(signature)
