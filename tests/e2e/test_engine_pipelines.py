"""Images of a container engine among several containers of an instance, through boto3: two of them and one of ours in a
pipeline, each by its name, the end of one. The engine is started here, and is gone before the last of it: the images'
files were copied out of it once.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from eyrie.adapters import sandbox
from tests.contract.container_world import TestEngine, root_image

from .conftest import until
from .pipelines_world import World, mixed_world, serve_program

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.soak,
    pytest.mark.skipif(
        sandbox.detect("auto").kind != sandbox.BUBBLEWRAP, reason="a root file system needs the sandbox of bubblewrap"
    ),
]
STARTS = {"rooted": "mine/plain:1", "folder": "mine/told:1"}  # by the names that `World` has for its two images


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestEngine]:
    """An engine with two images: one with a `serve` program on its path, one that says how it is started."""
    root = root_image(tmp_path_factory.mktemp("engine") / "root")
    serve = root / "usr/local/bin/serve"
    serve.write_text(serve_program())
    made = TestEngine(Path(tempfile.mkdtemp(prefix="ey-eng-")))
    try:
        why = made.start()
        if why:
            print(f"\nNO CONTAINER ENGINE CAN BE STARTED HERE, its tests are left out: {why}", file=sys.__stderr__)
            pytest.skip(f"no container engine can be started here: {why}")
        made.import_image(root, STARTS["rooted"])
        serve.rename(root / "opt/program")
        changes = (f'ENTRYPOINT ["{os.path.realpath(sys.executable)}", "-S", "program"]', "WORKDIR /opt")
        made.import_image(root, STARTS["folder"], changes)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def world(engine: TestEngine) -> Iterator[World]:
    with mixed_world(STARTS, engine.url) as world:
        yield world


def test_engine_images_in_a_pipeline_and_by_name_and_without_their_engine(world: World, engine: TestEngine) -> None:
    world.create("pipeline", "rooted ours folder")
    assert world.ask(world.in_service("pipeline"), b"1,2") == b"15.5,25.5"  # (x + 0.5) * 10 + 0.5
    client = engine.client()
    assert client.containers.list(all=True) == []  # nothing of it runs there, and nothing was left
    client.close()
    engine.stop()
    world.create("direct", "rooted folder", "Direct")
    world.in_service("direct")
    asked = {host: world.ask("direct", b"1,2", TargetContainerHostname=host) for host in ("rooted", "folder")}
    assert asked == {"rooted": b"1.5,2.5", "folder": b"1.5,2.5"}
    before = world.eyrie.serving("direct")
    with pytest.raises(ClientError):
        world.ask("direct", b"die", TargetContainerHostname="folder")
    until(lambda: (now := world.eyrie.serving("direct")) and not now & before, 90.0)
    assert world.ask("direct", b"1", TargetContainerHostname="rooted") == b"1.5"
