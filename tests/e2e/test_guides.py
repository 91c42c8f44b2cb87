"""Every guide is followed as a newcomer does: its fenced blocks in order, as they stand, against a real Eyrie.

`guides_world` says what the words of a fence mean. Where a guide says that `examples/quickstart.py` makes what it is
about, that is run first. What cannot run in a test is in NOT_RUN, with the reason.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from .conftest import RealEyrie, running, until
from .guides_world import Block, Reader, blocks, looks_like

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
AWS = re.compile(r"^(?:\$ )?aws ", re.M)
LONG = {"assess.md", "first-canary.md", "load-testing.md", "recommender.md"}  # minutes of loads and of bakes

# What begins with this in the page of that name is not run, and why.
NOT_RUN = {
    ("assess.md", "eyrie assess iris --objective"): "its exit code grades this host; tests/e2e/test_assess.py",
    ("batch.md", "from eyrie import spark"): "wants Spark and a Java runtime; tests/frameworks/test_eyrie_spark.py",
    ("batch.md", "EYRIE_COMPUTE=ray"): "wants Ray, and serves until Ctrl-C; tests/frameworks/test_ray.py",
    ("bring_your_own.md", "pip install 'eyrie[docker]'"): "wants a container engine; tests/contract/test_compute.py",
    ("calling.md", "import os\n\nimport numpy"): "wants tritonclient; tests/clients/test_clients.py",
    ("console.md", "pip install 'eyrie[console]'"): "serves until Ctrl-C; tests/e2e/test_console.py",
    ("monitoring.md", "OTEL_EXPORTER"): "serves until Ctrl-C; tests/e2e/test_observability.py",
}


def is_run(block: Block) -> bool:
    page = block.place.partition(":")[0]
    return not any(name == page and block.text.startswith(start) for name, start in NOT_RUN)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `eyrie` and `python` on the PATH, as `.venv/bin` has them."""
    folder = tmp_path_factory.mktemp("bin")
    for name, words in (("eyrie", "-P -m eyrie"), ("python", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        script.chmod(0o755)
    return folder


def newcomer(eyrie: RealEyrie, home: Path, folder: Path) -> Reader:
    """Somebody with the examples, the commands and a clean environment."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAGEMAKER_", "EYRIE_"))}
    path = f"{home}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return Reader(folder, {**plain, "PATH": path, "EYRIE_DATA": str(eyrie.data)})


@pytest.fixture
def reader(eyrie: RealEyrie, home: Path, tmp_path: Path) -> Iterator[Reader]:
    """A newcomer with the README's `eval "$(eyrie env)"` behind them."""
    reader = newcomer(eyrie, home, tmp_path)
    reader.shell('eval "$(eyrie env)"', "README.md")
    yield reader
    reader.leave()
    tidy()


def paste(todo: list[Block], reader: Reader) -> None:
    for block in todo:
        reader.follow(block)


def tidy() -> None:
    """Take away what a guide deployed; an update that is on its way ends first."""
    sagemaker = boto3.client("sagemaker")

    def gone() -> bool:
        left = sagemaker.list_endpoints()["Endpoints"]
        for endpoint in left:
            if endpoint["EndpointStatus"] in ("InService", "Failed"):
                with contextlib.suppress(ClientError):  # it began to change just now
                    sagemaker.delete_endpoint(EndpointName=endpoint["EndpointName"])
        return not left

    until(gone, 180)
    for config in sagemaker.list_endpoint_configs()["EndpointConfigs"]:
        sagemaker.delete_endpoint_config(EndpointConfigName=config["EndpointConfigName"])
    for model in sagemaker.list_models()["Models"]:
        sagemaker.delete_model(ModelName=model["ModelName"])


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "guide", [pytest.param(g, id=g.stem, marks=[pytest.mark.soak] if g.name in LONG else []) for g in GUIDES]
)
def test_a_guide_does_what_it_says(guide: Path, reader: Reader) -> None:
    todo = [block for block in blocks(guide) if is_run(block)]
    if any(AWS.search(block.text) for block in todo) and shutil.which("aws") is None:
        pytest.skip("the AWS CLI is not installed")
    if re.search(r"`examples/quickstart.py`\s+makes", guide.read_text()):
        reader.shell("python examples/quickstart.py", f"{guide.name}, before it begins")
    paste(todo, reader)


@pytest.mark.heavy
def test_the_readme_does_what_it_says(home: Path, tmp_path: Path) -> None:
    (page,) = [block for block in blocks(ROOT / "README.md") if block.text.startswith("make up")]
    with running() as own:
        reader = newcomer(own, home, tmp_path)
        for line in page.text.splitlines():
            if not line.startswith(("make up", "export PATH")):
                assert reader.shell(line, page.place) or line.startswith("eval")


def test_every_block_of_a_guide_is_fenced_and_every_exception_is_one() -> None:
    indented = [
        f"{guide.name}: {line}"
        for guide in GUIDES
        for prose in guide.read_text().split("```")[::2]
        for line in re.findall(r"\n\n(    \S.*)", prose)
    ]
    assert indented == []
    found = [block for guide in GUIDES for block in blocks(guide)]
    assert len([block for block in found if not is_run(block)]) == len(NOT_RUN)


def test_what_is_shown_is_held_to_its_words_not_to_its_numbers() -> None:
    shown = looks_like("iris is in service (eyrie/sklearn, real-time, 2 instances, 0.97 s)")
    assert shown.search("iris is in service (eyrie/sklearn, real-time, 3 instances, 120 ms)")
    assert not shown.search("iris is in service (eyrie/xgboost, real-time, 2 instances, 0.97 s)")
    assert not shown.search("iris is Failed")
    table = looks_like("latency      PASS          2.85 ms (774)  ...")
    assert table.search("latency INCONCLUSIVE 11.2 ms (3) +14 %")
    assert not table.search("latency  FAIL  2.85 ms (774)  ...")


RIGHT = """
```sh
KEPT='here is 7'
```
```text notes.txt
seen
```
```console
$ echo $KEPT && \\
    cat notes.txt
here is 12
seen
```
```python
kept = 1
```
"""


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("```sh\nls absent\n```", "ended with 2"),
        ("```python\nprint(kept + absent)\n```", "name 'absent' is not defined"),
        ("```console\n$ echo $KEPT\nelse\n```", "here is 7\n\nlacks"),
        ("```console\n$ cat notes.txt\neyrie: refused\n```", "ended with 0"),
        ("```ruby\nputs 1\n```", "page.md:17: what is ruby?"),
        ("```\nls\n```", "page.md:17: a fence without a language"),
    ],
)
def test_a_page_that_is_wrong_is_found_out(wrong: str, why: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{RIGHT}{wrong}\n")
    reader = Reader(tmp_path, dict(os.environ))
    try:
        with pytest.raises(AssertionError, match=re.escape(why)):
            paste(blocks(page), reader)
    finally:
        reader.leave()
