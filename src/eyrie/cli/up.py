"""`eyrie up`: check what was asked for, take the data directory, bring the parts up, say one line, keep them up."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import logging.handlers
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eyrie import __version__
from eyrie.adapters import process_lock, process_log
from eyrie.cli import data as datadir
from eyrie.cli import takeover
from eyrie.cli.chaos_journal import Sweeper, start_guard
from eyrie.cli.documents import text_of
from eyrie.cli.down import end_instances
from eyrie.cli.errors import CommandError
from eyrie.cli.parts import CONSOLE, Command, eyrie_command, living
from eyrie.cli.supervisor import Supervisor, World
from eyrie.domain.cluster import ClusterError, cluster_of
from eyrie.settings import Settings

_READY_WAIT_S = 60.0
_ZONE = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_ZONES_MAX = 26
_LOG_BYTES_MAX = 8_388_608
_GATEWAYS_MAX = 64


@dataclass(frozen=True, slots=True)
class Address:
    """Where clients find Eyrie."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The AWS_ENDPOINT_URL; a wildcard address is reached on the loopback."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def last_port(data: Path) -> int | None:
    """The port that the last `eyrie up` of this data directory listened on; None where there was none."""
    try:
        port = datadir.running_env(data).get("port")
    except CommandError:
        return None
    return port if isinstance(port, int) and 0 < port <= 65535 else None


def run(settings: Settings, detach: bool, as_json: bool) -> None:
    """Bring Eyrie up and keep it up until it is told to stop. Raises CommandError where it cannot."""
    check(settings)
    if detach:
        in_background(lambda tell: supervise(settings, tell, foreground=False, as_json=as_json))
        return
    supervise(settings, lambda line: print(line, flush=True), foreground=True, as_json=as_json)


def check(settings: Settings) -> None:
    """Raises CommandError for a value that cannot be meant."""
    if not 0 <= settings.port <= 65535:
        raise CommandError(f"--port {settings.port}: a port is between 0 (any free one) and 65535", code=2)
    if not 1 <= settings.gateways <= _GATEWAYS_MAX:
        raise CommandError(f"--gateways {settings.gateways}: between 1 and {_GATEWAYS_MAX} workers", code=2)
    if not 1 <= len(settings.zones) <= _ZONES_MAX or len(set(settings.zones)) < len(settings.zones):
        raise CommandError(
            f"--zones {','.join(settings.zones)!r}: between 1 and {_ZONES_MAX} different names, separated by commas",
            code=2,
        )
    for zone in settings.zones:
        if not _ZONE.fullmatch(zone):
            raise CommandError(
                f"--zones: {zone!r} is no zone name (lower-case letters, digits and inner hyphens)", code=2
            )
    _check_compute(settings)


def _check_compute(settings: Settings) -> None:
    """Raises CommandError for a compute that there is not, or whose library is not installed. An engine or a cluster
    that is not up yet may come later.
    """
    if settings.compute == Settings().compute:
        return
    try:
        cluster = cluster_of(settings.compute)
    except ClusterError as error:
        raise CommandError(f"EYRIE_COMPUTE: {error}", code=2) from None
    if cluster is not None:
        if importlib.util.find_spec("ray") is None:
            raise CommandError(
                f"EYRIE_COMPUTE={settings.compute}: Ray is not installed: pip install 'eyrie[ray]'", code=2
            )
        return
    from eyrie.adapters.compute_docker import EngineUnavailable, engine_of  # with what only an engine needs

    try:
        engine = engine_of(settings)
    except EngineUnavailable as error:
        raise CommandError(f"EYRIE_COMPUTE={settings.compute}: {error}", code=2) from None
    if not isinstance(engine, str):
        engine.close()


def supervise(
    settings: Settings,
    tell: Callable[[str], None],
    foreground: bool,
    command: Command = eyrie_command,
    end: Callable[[Settings], None] = end_instances,
    as_json: bool = False,
) -> None:
    """The life of one `eyrie up`: `tell` gets the ready line; `command` starts a part, `end` ends all instances."""
    began = time.monotonic()
    data = settings.data
    lock = _open_data(settings, foreground)
    survivors = living(data)
    listener = takeover.listen(settings.host, settings.port, data, survivors)
    address = Address(settings.host, listener.getsockname()[1])
    settings = replace(settings, port=address.port)
    supervisor = Supervisor(
        World(
            data=data,
            env={**os.environ, **settings.to_env()},
            listener=listener,
            command=command,
            drain_s=settings.drain_ms / 1000,
            end_instances=lambda: end(settings),
            changed=lambda pids: datadir.write_env(data, describe(settings, address, pids)),
            sweep=Sweeper(data, start_guard).turn,
        )
    )
    supervisor.prepare()
    try:
        takeover.bring_up(supervisor, settings.gateways, survivors, _READY_WAIT_S)
        shown = has_console(settings)
        ready = Ready(address, data, shown, len(survivors), time.monotonic() - began)
        tell(text_of(ready.document()) if as_json else ready.line())
        if shown:  # only now, so that it delays nothing; whoever asks for it before it listens waits in the gateway
            supervisor.start(CONSOLE)
        supervisor.run()
    finally:
        supervisor.stop(instances=supervisor.stop_asked)
        listener.close()
        os.close(lock)


def has_console(settings: Settings) -> bool:
    """Whether the console is wanted and its extra is installed. Nothing of it is loaded here."""
    return settings.console and importlib.util.find_spec("nicegui") is not None


@dataclass(frozen=True, slots=True)
class Ready:
    """What `eyrie up` says once every part is up."""

    address: Address
    data: Path
    console: bool
    survivors: int  # processes of a killed Eyrie that this one took over from
    seconds: float

    def line(self) -> str:
        """All that one needs to go on, on one line."""
        console = f" · console {self.address.url}/console" if self.console else ""
        took_over = f" · took over from {self.survivors} processes" if self.survivors else ""
        return (
            f"eyrie {__version__} is ready at {self.address.url} · data {self.data} · "
            f'credentials {self.data / "credentials.json"}, or eval "$(eyrie env{datadir.flag(self.data)})"'
            f"{console}{took_over} · {self.seconds:.1f} s"
        )

    def document(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "version": __version__,
            "endpoint": self.address.url,
            "data": str(self.data),
            "credentials": str(self.data / "credentials.json"),
            "console": f"{self.address.url}/console" if self.console else None,
            "took_over": self.survivors,
            "seconds": round(self.seconds, 3),
        }


def describe(settings: Settings, address: Address, pids: dict[str, int]) -> dict[str, Any]:
    """The content of env.json."""
    return {
        "version": __version__,
        "endpoint": address.url,
        "host": address.host,
        "port": address.port,
        "pid": os.getpid(),
        "region": settings.region,
        "account": settings.account,
        "auth": settings.auth,
        "zones": list(settings.zones),
        "processes": pids,
        "settings": settings.to_env(),
    }


def in_background(life: Callable[[Callable[[str], None]], None]) -> None:
    """Fork; the child leads the life, and the parent leaves once the child said that it is ready, or why it is not."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os._exit(_detached(life, writer))
    os.close(writer)
    try:
        with os.fdopen(reader) as pipe:
            told = pipe.read()
    except KeyboardInterrupt:
        raise CommandError("it goes on coming up without you; `eyrie down` ends it", code=130) from None
    kind, _, text = told.partition(" ")
    if kind != "ready":
        code, _, message = text.partition(" ")
        raise CommandError(message or "it ended before it was ready", code=int(code or 1))
    print(text, flush=True)


def _detached(life: Callable[[Callable[[str], None]], None], writer: int) -> int:
    os.setsid()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)

    pipe = os.fdopen(writer, "wb", buffering=0)

    def tell(line: str) -> None:
        if not pipe.closed:  # what happens once it is ready, its log tells
            with contextlib.suppress(BrokenPipeError), pipe:  # nobody waits any more: it is left running all the same
                pipe.write(line.encode())

    try:
        life(lambda line: tell(f"ready {line}"))
    except CommandError as error:
        tell(f"error {error.code} {error}")
        return error.code
    except Exception as error:  # the boundary of this process: whatever it is, the one who waits is told
        traceback.print_exc()
        tell(f"error 1 it ended before it was ready: {error!r}")
        return 1
    return 0


def _open_data(settings: Settings, foreground: bool) -> int:
    """Take the data directory, made where there is none; the lock on it. Raises CommandError."""
    data = settings.data
    try:
        datadir.check_ours(data)
        datadir.make(data)
        lock = _take_data(data)
        datadir.check_version(data)
        datadir.ensure_credentials(data, settings.account)
        _log_here(data, foreground)
    except OSError as error:  # of another user, read-only, full, or of a name that there cannot be
        which = f" ({error.filename})" if error.filename not in (None, str(data)) else ""
        raise CommandError(f"cannot use the data directory {data}: {error.strerror}{which}") from None
    return lock


def _take_data(data: Path) -> int:
    try:
        return process_lock.take(data / "eyrie.lock")
    except process_lock.Held as held:
        raise CommandError(
            f"an Eyrie already runs with the data directory {data} (process {held.pid}); `eyrie down` ends it"
        ) from None


def _log_here(data: Path, foreground: bool) -> None:
    """Everything goes to the log; in the foreground warnings also appear on the terminal."""
    path = data / "logs" / "up.log"
    if not foreground:
        process_log.log_to(path)
        return
    kept = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES_MAX, backupCount=1)
    kept.setFormatter(process_log.Stamped())
    logging.getLogger().addHandler(kept)
    screen = logging.StreamHandler(sys.stderr)
    screen.setFormatter(logging.Formatter("eyrie: %(message)s"))
    screen.setLevel(logging.WARNING)
    logging.getLogger().addHandler(screen)
    logging.getLogger().setLevel(logging.INFO)
