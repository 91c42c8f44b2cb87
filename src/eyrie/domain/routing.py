"""The route table: what a gateway worker must know to answer InvokeEndpoint without asking anyone.

Control writes one file an endpoint, `routes/SLUG.json`, whole and renamed into place; a worker reads it, refuses an
older generation, and acknowledges the generation that it serves (docs/concepts/processes.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from eyrie.domain.analysis import AnalysisRoute
from eyrie.domain.async_inference import AsyncRoute
from eyrie.domain.capture import CaptureRoute
from eyrie.domain.names import EndpointKey


class RoutingStrategy(StrEnum):
    """How an instance of a variant is chosen; the spellings are SageMaker's RoutingConfig."""

    LEAST_OUTSTANDING_REQUESTS = "LEAST_OUTSTANDING_REQUESTS"
    RANDOM = "RANDOM"


class ContainerMode(StrEnum):
    """What a container holds: one model, or whichever of many a request names. SageMaker's spellings."""

    SINGLE_MODEL = "SingleModel"
    MULTI_MODEL = "MultiModel"


class Execution(StrEnum):
    """How several containers of an instance work: one after the other, or the one that the request names."""

    SERIAL = "Serial"
    DIRECT = "Direct"


@dataclass(frozen=True, slots=True)
class Target:
    """One instance that requests may be sent to."""

    instance_id: str
    socket: str  # absolute path of the instance's Unix socket; worker N listens on SOCKET.N
    zone: str
    workers: int = 1  # model server processes of the instance, each a target of its own


@dataclass(frozen=True, slots=True)
class ServerlessRoute:
    """What a gateway worker must know of a serverless variant, which may have no target."""

    max_concurrency: int  # requests at once, over all workers
    provisioned: int = 0  # of those, the first ones that an instance is kept ready for
    hold_ms: int = 60_000  # how long a request waits for an instance
    wait_ms: int = 1_000  # how long one beyond max_concurrency waits for another to end
    trouble: str = ""  # why its newest instances cannot start


@dataclass(frozen=True, slots=True)
class VariantRoute:
    """A production variant: its share of the traffic and the instances that hold it."""

    name: str
    weight: float
    strategy: RoutingStrategy
    container: str  # host name of the (first) container, as error messages name it
    targets: tuple[Target, ...] = ()
    mode: ContainerMode = ContainerMode.SINGLE_MODEL
    execution: Execution = Execution.SERIAL
    containers: tuple[str, ...] = ()  # host names of all containers, in their order
    model_cache: bool = True  # of a multi-model variant: models stay loaded after an answer
    fleet: int = 0  # generation of its fleet: while traffic shifts, one name stands for two
    config: str = ""  # EndpointConfigName, during an update: its metrics are told apart by it
    analysis: AnalysisRoute | None = None  # while a canary is analysed: its predictions are counted
    capture: CaptureRoute | None = None  # what of its requests and replies is kept
    sticky: str = ""  # where the key is found that ties a client to a variant (domain.sticky); "": nowhere
    serverless: ServerlessRoute | None = None


@dataclass(frozen=True, slots=True)
class ShadowRoute:
    """A variant that gets copies of another one's requests, after they were answered."""

    variant: VariantRoute  # its weight says nothing: it is dealt no request
    source: str  # name of the production variant of the same fleet
    share: float  # of the source's requests that are copied, 0 to 1


@dataclass(frozen=True, slots=True)
class EndpointRoute:
    """All that a gateway knows of one endpoint. `generation` only rises; a worker refuses a lower one."""

    key: EndpointKey
    generation: int
    variants: tuple[VariantRoute, ...] = ()
    timeout_ms: int = 60_000  # deadline of one invocation
    body_bytes_max: int = 26_214_400  # 25 MB, SageMaker's limit since 2025
    asynchronous: AsyncRoute | None = None  # with one it takes InvokeEndpointAsync only
    shadows: tuple[ShadowRoute, ...] = ()  # apart from `variants`, which share the traffic

    @property
    def everyone(self) -> tuple[VariantRoute, ...]:
        """Every variant that a worker may send to: those that share the traffic, and the shadows."""
        return (*self.variants, *(shadow.variant for shadow in self.shadows))
