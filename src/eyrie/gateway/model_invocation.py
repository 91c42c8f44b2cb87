"""One InvokeEndpoint request that names a TargetModel: it waits for its model where that is not loaded.

On the path: `request` hands such a request over once its signature is proven; `models` says where it goes. The reply
404 of POST /models/KEY/invoke means that the target does not hold the model (any more).
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from eyrie.gateway import errors
from eyrie.gateway.errors import Reply
from eyrie.gateway.invocation import JOINED_BYTES_MAX, Invocation
from eyrie.gateway.models import Load, Models, TargetModel
from eyrie.gateway.request import InvokeRequest
from eyrie.gateway.routes import INVOCATIONS, Instance, Variant
from eyrie.http1.upstream import ConnectFailed, Failure, ReplyHead

if TYPE_CHECKING:
    from eyrie.gateway.routes import Endpoint

_FIRST_BYTES = len(INVOCATIONS)
LOADS_MAX = 2  # that one request waits for: a model that is evicted again before it answers says 404 to the client


class ModelInvocation(InvokeRequest):
    """A request for one model of many."""

    _gathers = False
    load: Load | None = None  # what it waits for
    asked: tuple[Instance, ...] = ()  # targets of an instance that were asked, and it held the model in neither
    _loads = 0  # that it waited for
    _waited_us = 0
    _parked_at = 0.0

    def __init__(self, plain: Invocation, models: Models, model: TargetModel) -> None:
        """Takes the place of `plain`, which has been read and checked, and was not sent."""
        self.__dict__.update(plain.__dict__)
        self._models = models
        self.model = model

    # --- sending ----------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Send the request to the target that is to hold its model, or wait: for a target, or for the model."""
        endpoint = self._endpoint
        assert endpoint is not None
        variant = self._dealt(endpoint)
        full: Instance | None = None
        while True:
            instance = self._chosen(variant, self._avoid or full) if variant is not None else None
            if instance is None or instance is full:
                self._hold(endpoint)
                return
            if self._models.join(self, instance):
                return
            failure = self._send(instance)
            if failure is None or not self._another(instance, failure, full):
                return
            if failure is Failure.FULL:
                full = instance

    def _dealt(self, endpoint: Endpoint) -> Variant | None:
        if self._variant:
            return endpoint.named(self._variant)
        return (endpoint.assigned(self._key) if self._key else None) or endpoint.deal()

    def _chosen(self, variant: Variant, avoid: Instance | None) -> Instance | None:
        return self._models.choose(variant, self.model, avoid) if variant.multi_model else variant.choose(avoid)

    def _send(self, instance: Instance) -> Failure | None:
        if not instance.variant.multi_model:
            return super()._send(instance)
        body = self._body
        kinds = self._kinds_known()
        head = instance.heads.get(kinds) or instance.head(kinds)
        head = self.model.first + head[_FIRST_BYTES:] + self._extra
        try:
            if len(body) <= JOINED_BYTES_MAX:
                instance.pool.send(self, b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
            else:
                instance.pool.send(self, b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body)
        except ConnectFailed as error:
            return error.failure
        self._sent_to(instance)
        return None

    # --- waiting for the model --------------------------------------------------------------------------------------

    def wait(self, load: Load) -> None:
        """It is one of those that wait for a load now."""
        self.load = load
        self.hold_until_s = float("inf")
        self._loads += 1
        self._parked_at = perf_counter()

    def loaded(self, instance: Instance) -> None:
        """The model is there: on it goes."""
        self._count_wait()
        if instance.ejected or instance.retired or self._send(instance) is not None:
            self.dispatch()

    def ask(self, instance: Instance) -> None:
        """Another worker of the instance may hold the model."""
        if not self._models.join(self, instance) and self._send(instance) is not None:
            self.dispatch()

    def elsewhere(self, instance: Instance) -> None:
        """The target is no more: another may have the model, once."""
        self._count_wait()
        if self.moved:
            self.refuse(errors.unavailable("Two instances were lost to this request while its model was being loaded."))
            return
        self._invoker.meter.count("retries")
        self._invoker.health.suspect(instance)
        self.moved = True
        self._avoid = instance
        self.dispatch()

    def refuse(self, reply: Reply) -> None:
        """It cannot be sent."""
        self._count_wait()
        self._finish(reply)

    def _count_wait(self) -> None:
        if self._parked_at:
            self._waited_us += int((perf_counter() - self._parked_at) * 1e6)
            self._parked_at = 0.0

    def _absent(self) -> bool:
        """Whether the reply only says that the model has to be loaded, and that is done."""
        instance = self.instance
        if self._status != 404 or self._loads >= LOADS_MAX or instance is None or not instance.variant.multi_model:
            return False
        self.channel = None
        instance.invocations.discard(self)
        self.instance = None
        self._status = 0
        self._pieces = []
        self._models.absent(self, instance)
        return True

    # --- the instance's side ----------------------------------------------------------------------------------------

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """The reply, in one piece."""
        self._status = head.status
        if not self._absent():
            super().reply_whole(head, body)

    def reply_end(self) -> None:
        """The reply is whole."""
        if not self._absent():
            super().reply_end()

    def _hash(self) -> int:
        """The same row may be poison to one model and harmless to all others."""
        return hash((self._name, self.model.key, self._body))

    # --- endings ----------------------------------------------------------------------------------------------------

    def time_is_up(self, now: float) -> None:
        """The deadline came; the model may come later."""
        if self.load is None:
            super().time_is_up(now)
            return
        self._models.leave(self)
        self._invoker.meter.count("models_not_ready")
        self.refuse(errors.model_not_ready(self.model.name))

    def _account(self, status: int, instance: Instance | None) -> None:
        super()._account(status, instance)
        if instance is not None and instance.variant.multi_model:
            rollup = instance.rollup  # this second's, since just now
            (rollup.models or rollup.of_models()).add_request(self._loads == 0, self._waited_us)
            if status < 300 or self._status not in (0, 404):
                self._models.present(instance, self.model)

    def _leave(self, keep_instance: bool = False) -> None:
        self._models.leave(self)
        super()._leave(keep_instance)
