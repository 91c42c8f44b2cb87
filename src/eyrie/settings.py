"""All settings, in one place: a value comes from a flag of `eyrie up`, else from its EYRIE_ variable, else from here.

Child processes get theirs through the environment (`to_env`), so that each process reads exactly what `eyrie up` was
told. docs/reference/settings.md explains each; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from eyrie.domain.names import DEFAULT_ACCOUNT, DEFAULT_REGION


class SettingsError(ValueError):
    """A setting that cannot be read; the message names the variable and the value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One Eyrie's settings. Times end in their unit."""

    data: Path = Path.home() / ".eyrie"
    host: str = "127.0.0.1"
    port: int = 7777
    zones: tuple[str, ...] = ("a", "b", "c")
    auth: bool = True
    account: str = DEFAULT_ACCOUNT
    region: str = DEFAULT_REGION
    gateways: int = 2  # gateway worker processes on the one port
    store: str = ""  # empty: sqlite:///DATA/eyrie.db
    blobs: str = ""  # empty: file:///DATA/blobs
    compute: str = "process"
    time_scale: float = 1.0  # speeds up the clock of decisions, never socket deadlines
    warm_slots: int = 2  # sandboxes kept ready ahead of need
    slot_imports: tuple[str, ...] = ("sklearn", "xgboost")  # frameworks a slot imports before it waits, where installed
    sandbox: str = "auto"  # auto | bubblewrap | process
    instances_max: int = 0  # 0: overcommit without limit; else InsufficientInstanceCapacity beyond
    invoke_timeout_ms: int = 60_000
    stream_timeout_ms: int = 480_000  # of a streamed reply, from its first byte
    body_bytes_max: int = 26_214_400
    bodies_in_flight_bytes_max: int = 536_870_912
    hold_ms: int = 10_000  # how long a request waits when its endpoint has no instance at all, within its deadline
    serverless_hold_ms: int = 60_000  # how long a request to a serverless endpoint waits for an instance to start
    serverless_wait_ms: int = (
        1_000  # how long one beyond MaxConcurrency waits for another to end, before it is throttled
    )
    serverless_idle_ms: int = 300_000  # after so long without need of an instance it is stopped, down to none
    silence_ms: int = 1_000  # an instance that answers nothing for so long (slow models: longer) is asked for a pong
    forward_wait_ms: int = 10_000  # how long a request waits for control or objects while they restart
    gateway_connections_max: int = 8_192  # client connections, a gateway worker
    drain_ms: int = 30_000  # SIGTERM to SIGKILL, and the limit of waiting for requests in flight
    ping_period_ms: int = 1_000
    ping_timeout_ms: int = 1_000
    ping_misses: int = 2
    busy_limit_ms: int = 60_000  # an instance that burns CPU may answer no ping for so long
    foreign_ping_period_ms: int = 5_000
    foreign_ping_timeout_ms: int = 2_000
    foreign_ping_misses: int = 3
    unknown_grace_ms: int = 30_000  # how long a silent instance may live when no replacement comes up
    log_bytes_max: int = 16_777_216  # of one instance, over its two files
    target_models_bytes_max: int = 21_474_836_480  # of unpacked models of multi-model endpoints, kept on this host
    scale_in_when_idle: bool = True  # without any request; off: as AWS, which has no data then and leaves it
    console: bool = True  # pages at /console, where the extra is installed
    metrics_open: bool = False  # GET /metrics without an API key, for whoever reaches the port
    otlp: str = ""  # address of an OTLP/HTTP receiver; empty: OTEL_EXPORTER_OTLP_ENDPOINT, and without that none
    jobs_max: int = 2  # jobs under way at once on this host; others wait
    logs_bytes_max: int = 2_147_483_648  # of events that users put, and of access records
    capture_text: bool = True  # captured text that is neither CSV nor JSON stays text; off: BASE64, as SageMaker has it
    capture_flush_ms: int = 60_000  # real time after which captured records are on their way to their bucket
    capture_bytes_max: int = 1_073_741_824  # of an endpoint's captured records that wait for their bucket
    capture_disk_percent_max: int = 75  # a disk that is fuller than this is captured to no more
    queue_bytes_max: int = 8_589_934_592  # of requests and messages that wait in dispatch
    shadow_requests_max: int = 64  # copies at once of one shadow, a gateway worker; beyond it they are dropped
    shadow_bytes_max: int = 67_108_864  # of requests and replies that copies hold, a gateway worker
    shadow_tolerance: float = 0.01  # numbers of a shadow's prediction and of production's that count as the same
    access_records: int = 10  # requests of an instance that a gateway worker tells one by one each second
    quota_increases: bool = True  # granted at once; off: they wait until somebody decides
    objective: float = 99.9  # percent of an endpoint's minutes that are to be good, where its tags say nothing
    probe_period_ms: int = 10_000  # how often an endpoint is asked whether it answers; 0: only requests tell

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the state."""
        return self.store or f"sqlite:///{self.data / 'eyrie.db'}"

    @property
    def blobs_url(self) -> str:
        """obstore URL of the bytes."""
        return self.blobs or f"file://{self.data / 'blobs'}"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Settings from EYRIE_ variables. Raises SettingsError naming the variable and the value."""
        given: dict[str, Any] = {}
        for f in fields(cls):
            name = variable(f.name)
            if name in env:
                given[f.name] = _parse(name, env[name], f.default)
        return cls(**given)

    def to_env(self) -> dict[str, str]:
        """The EYRIE_ variables that `from_env` reads back as these settings."""
        return {variable(f.name): _show(getattr(self, f.name)) for f in fields(self)}

    def with_flags(self, **flags: Any) -> Settings:
        """These settings with each flag that is not None in place of its value."""
        return replace(self, **{k: v for k, v in flags.items() if v is not None})


def variable(field_name: str) -> str:
    """The environment variable of a setting."""
    return "EYRIE_" + field_name.upper()


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def _parse(name: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"on": True, "off": False}[text]
        if isinstance(default, tuple):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if isinstance(default, Path):
            return Path(text).expanduser().absolute()
        return type(default)(text)
    except (KeyError, ValueError):
        raise SettingsError(f"{name}={text!r} cannot be read as {type(default).__name__}") from None
