"""One real control door (http1 on a loopback port, SQLite below) for all tests of the API, and boto3 as its client.

The store is emptied between tests. Endpoints are decided and stored, but nothing runs: tests that need an endpoint in
another state put it there.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import sqlalchemy as sa
from botocore.config import Config
from botocore.exceptions import ClientError

from eyrie.adapters import store_sql
from eyrie.adapters.instance_logs import InstanceLogs
from eyrie.adapters.instance_types import load_instance_types
from eyrie.adapters.log_file import LogFile
from eyrie.adapters.metric_file import MetricFile
from eyrie.adapters.store_sql import SqlStore
from eyrie.control.app import ControlApp, Surroundings
from eyrie.control.endpoints import KIND, Endpoints, encode
from eyrie.control.log_book import LogBook
from eyrie.control.log_queries import LogQueries
from eyrie.control.story import Observation
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.names import EndpointKey, Scope
from eyrie.http1.handlers import serve
from eyrie.ports import Commit, Document
from eyrie.settings import Settings
from eyrie.wire.credentials import Credential, Credentials

ACCOUNT = "123456789012"
OTHER = "210987654321"
REGION = "us-east-1"
KEYS = (Credential("AKIAEYRIE", "secret", ACCOUNT), Credential("AKIAOTHER", "other", OTHER))


class Clock:
    """Time that tests set."""

    def __init__(self) -> None:
        self.at_ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.at_ms


class Counted:
    """Identity without chance."""

    def __init__(self) -> None:
        self.count = 0

    def token(self, digits: int) -> str:
        self.count += 1
        return f"{self.count:0{digits}x}"[-digits:]


@dataclass
class Door:
    """The running door, and what is behind it."""

    url: str
    app: ControlApp
    store: SqlStore
    clock: Clock
    endpoints: Endpoints
    data: Path
    observed: list[Observation]
    keys: tuple[Credential, ...] = KEYS

    def client(self, service: str, key: Credential = KEYS[0], region: str = REGION, **kwargs: Any) -> Any:
        """An unmodified boto3 client of this door."""
        config = Config(
            retries={"total_max_attempts": 1}, parameter_validation=kwargs.pop("parameter_validation", True)
        )
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
            config=config,
            **kwargs,
        )

    def change(self, name: str, **changes: Any) -> Endpoint:
        """Put an endpoint into another state, as its reconciler would."""
        found, document = self.endpoints.read(EndpointKey(ACCOUNT, REGION, name))
        assert found is not None
        assert document is not None
        changed = replace(found, **changes)
        self.store.commit(Commit(puts=[replace(document, body=encode(changed))]))
        return changed

    def forget(self, name: str) -> None:
        """Let a deleted endpoint be gone."""
        document = self.store.get(KIND, Scope(ACCOUNT, REGION), name)
        assert document is not None
        self.store.commit(Commit(deletes=[document]))

    def put(self, document: Document) -> None:
        """Put any document."""
        self.store.commit(Commit(puts=[document]))

    def empty(self) -> None:
        """Forget everything."""
        with self.store._engine.begin() as connection:
            for table in (store_sql.DOCUMENTS, store_sql.EVENTS, store_sql.OUTBOX):
                connection.execute(sa.delete(table))
        self.observed[:] = [Observation()]
        self.clock.at_ms = 1_700_000_000_000


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    data = tmp_path_factory.mktemp("data")
    store = SqlStore(f"sqlite:///{data / 'eyrie.db'}")
    clock, identity, observed = Clock(), Counted(), [Observation()]
    endpoints = Endpoints(store, clock, identity, lambda key: None)
    types = load_instance_types(data)
    metrics = MetricFile(data / "metrics.db", clock)
    log_file = LogFile(data / "logs.db", clock, 64 << 20)
    logs = LogBook(log_file, InstanceLogs(data), store, metrics)
    queries = LogQueries(logs)
    surroundings = Surroundings(
        Settings(data=data), store, clock, identity, endpoints, logs, types, metrics, lambda: observed[0], queries
    )
    app = ControlApp(surroundings, Credentials(KEYS))
    url, stop = serve_in_thread(app)
    yield Door(url, app, store, clock, endpoints, data, observed)
    stop()
    app.close()
    queries.close()
    log_file.close()
    metrics.close()
    store.close()


def serve_in_thread(app: ControlApp) -> tuple[str, Callable[[], None]]:
    """Serve on a free loopback port; its URL, and how to stop."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(serve(app.handle, listener))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def stop() -> None:
        asyncio.run_coroutine_threadsafe(server.close(drain_ms=1_000), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        listener.close()

    return f"http://127.0.0.1:{listener.getsockname()[1]}", stop


@pytest.fixture
def door(running: Door) -> Door:
    running.empty()
    return running


@pytest.fixture(scope="session")
def _sagemaker(running: Door) -> Iterator[Any]:
    client = running.client("sagemaker")
    yield client
    client.close()


@pytest.fixture
def sm(door: Door, _sagemaker: Any) -> Any:
    """boto3's sagemaker client on an empty Eyrie."""
    return _sagemaker


Refusal = Callable[..., tuple[str, str]]


@pytest.fixture
def refused() -> Refusal:
    """Call an operation that must fail; its code and text."""

    def call(operation: Callable[..., Any], **params: Any) -> tuple[str, str]:
        with pytest.raises(ClientError) as caught:
            operation(**params)
        return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]

    return call


@pytest.fixture
def deployed(sm: Any) -> Callable[..., None]:
    """Create a model, a config and an endpoint, all of one name."""

    def create(name: str, **variant: Any) -> None:
        sm.create_model(ModelName=name, PrimaryContainer={"Image": "eyrie/xgboost", "ModelDataUrl": "s3://b/m.tar.gz"})
        given = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[{**given, **variant}])
        sm.create_endpoint(EndpointName=name, EndpointConfigName=name)

    return create
