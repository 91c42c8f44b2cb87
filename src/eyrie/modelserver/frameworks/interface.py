"""The two kinds of model that the server knows: one that maps rows to rows, which can be batched, and one that
answers whole requests; and what a framework tells about itself.

`loader` makes a model out of a folder by asking the frameworks of its table, each a file beside this one with a
constant FRAMEWORK; the server asks no more of a model than what stands here. A framework's file must be importable
where its library is not installed: it imports the library inside of functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from eyrie.modelserver.codecs import Array, RowShape


class LoadError(Exception):
    """A model that cannot be served as it is; the message is one plain line for its owner."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from and what is known about it beforehand."""

    ml: Path  # /opt/ml, or its stand-in outside a sandbox; `model/` below it
    env: Mapping[str, str]  # the container's environment
    image: str = ""  # as the user named it: tells scikit-learn's container from XGBoost's where the files do not

    @property
    def model_dir(self) -> Path:
        """The unpacked model archive."""
        return self.ml / "model"

    def image_says(self, *words: str) -> bool:
        """Whether the image's name holds one of these words."""
        name = self.image.lower()
        return any(word in name for word in words)


@dataclass(frozen=True, slots=True)
class Invocation:
    """One POST /invocations, as a model that answers whole requests sees it."""

    body: bytes
    content_type: str  # "" when the client sent none
    accept: str  # "" when the client sent none
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to one invocation."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    pieces: Iterator[bytes | str] | None = None  # in place of `body`: sent as they come, drawn in the same thread


@runtime_checkable
class RowModel(Protocol):
    """A model of rows: requests are stacked, predicted in one call and taken apart again."""

    @property
    def title(self) -> str:
        """What it is, for the log: framework, version, kind, columns."""
        ...

    @property
    def shape(self) -> RowShape:
        """The rows it takes."""
        ...

    @property
    def offers(self) -> tuple[str, ...]:
        """The content types that it can answer in."""
        ...

    @property
    def default_accept(self) -> str:
        """The content type of an answer when the client does not mind."""
        ...

    @property
    def empty_status(self) -> int:
        """The HTTP status that an empty body gets: 204 where the real container answers so, else 400."""
        ...

    def predict(self, rows: Array) -> Array:
        """One prediction a row of a 2-D array, along the first axis. Thread-safe. Raises BadPayload for rows it
        refuses.
        """
        ...

    def encode(self, values: Array, kind: str) -> bytes:
        """The reply's body for the predictions of one request. Raises NotAcceptable."""
        ...


@runtime_checkable
class EncodesEach(Protocol):
    """A model of rows that writes the replies to many requests of one row each in one go."""

    def encode_each(self, values: Array, kind: str) -> list[bytes]:
        """What `encode` gives for each row alone. Raises NotAcceptable."""
        ...


@runtime_checkable
class CallModel(Protocol):
    """A model that answers whole requests: user code. It runs in worker threads, never on the event loop."""

    @property
    def title(self) -> str:
        """What it is, for the log."""
        ...

    @property
    def workers(self) -> int:
        """How many requests it takes at once, each in a thread of its own."""
        ...

    def call(self, invocation: Invocation) -> Answer:
        """Answer one request. Raises Refused for what the client did wrong, anything else for what the code did."""
        ...


class PortLike(Protocol):
    """One named input or output."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def dtype(self) -> str:
        """NumPy's name of its elements; "object" for text, "" where the model does not say."""
        ...

    @property
    def dims(self) -> tuple[int | None, ...] | None:
        """Its sizes, None for a free one; None where the model does not say."""
        ...


@runtime_checkable
class Described(Protocol):
    """A model that answers whole requests and knows its tensors: for metadata only."""

    @property
    def inputs(self) -> Sequence[PortLike]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> Sequence[PortLike]:
        """What it gives."""
        ...


@dataclass(frozen=True, slots=True)
class Defaults:
    """A framework's handlers, which stand in for functions that user code does not define."""

    load: Callable[[str], Any]  # model_fn
    decode: Callable[[bytes, str], Any]  # input_fn
    predict: Callable[[Any, Any], Any]  # predict_fn
    plain: Callable[[Any], Any] = np.asarray  # a prediction as an array, which output_fn writes


def nothing_owned(value: Any, source: Source) -> bool:
    """`Framework.owns` of a framework that claims no pickles."""
    return False


@dataclass(frozen=True, slots=True)
class Framework:
    """What a framework tells about itself; an entry of `loader.FRAMEWORKS` is the name of its file."""

    name: str  # also of its extra: pip install 'eyrie[NAME]'
    library: str  # the module whose absence means that the extra is not installed
    images: tuple[str, ...]  # words in an image's name that mean this framework
    wanted: str  # the files that it looks for, in words, for the message about a folder where nobody finds any
    find: Callable[[Source], list[Path]]  # what in the model folder is its own; quick, and without its library
    read: Callable[[Path, Source], Any]  # the model object in one of those. Raises LoadError, or what the library does
    serve: Callable[[Sequence[Any], Source], RowModel | CallModel]  # the objects of all that `find` found
    defaults: Callable[[Callable[[str], Any]], Defaults]  # for user code; given the default model_fn
    owns: Callable[[Any, Source], bool] = nothing_owned  # an unpickled object that it serves rather than scikit-learn
