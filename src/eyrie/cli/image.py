"""`eyrie image add|list|remove`: containers of the user's own.

`add` copies the files into the data directory itself, by digest, and asks control to name them; so a large image costs
control nothing, and what an endpoint was created with stays what it is.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from eyrie.adapters.image_store import ImageError, ImageStore, Start, StoredImage
from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.screen import show
from eyrie.settings import Settings

ADD_TIMEOUT_S = 60.0  # control may be removing an old image meanwhile


def add(
    settings: Settings,
    name: str,
    source: str,
    *,
    entrypoint: str,
    environment: Sequence[str],
    workdir: str,
    as_json: bool,
) -> None:
    """Take in an image and name it; prints the name and the digest."""
    client = _client(settings.data)
    client.images()  # before anything is copied: control must be there
    start = Start(tuple(shlex.split(entrypoint)), tuple(map(_variable, environment)), workdir)
    try:
        made = _take_in(datadir.running_settings(settings), source, start)
    except (ImageError, OSError) as error:
        raise CommandError(f"{source} cannot be taken in: {error}") from None
    named = client.name_image(name, made.digest)
    if as_json:
        print_document({**named, "kind": str(made.kind), "size_bytes": made.size_bytes})
    else:
        print(f"{named['name']}\nsha256:{made.digest} ({made.kind}, {made.size_bytes / 1e6:.1f} MB)")


def list_all(data: Path, as_json: bool) -> None:
    """Print every name."""
    if as_json:
        print_document(_client(data).images())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "digest", "kind", "MB", "from"):
        table.add_column(column, no_wrap=column == "name")
    for row in _client(data).images():
        size = f"{int(row['size_bytes']) / 1e6:.1f}"
        table.add_row(str(row["name"]), str(row["digest"])[:12], str(row["kind"]), size, str(row["source"]))
    show(table)


def remove(data: Path, name: str, as_json: bool) -> None:
    """Forget a name."""
    gone = _client(data).remove_image(name)
    if as_json:
        print_document({"removed": gone["name"]})
    else:
        print(f"{gone['name']} is removed", file=sys.stderr)


def _take_in(settings: Settings, source: str, start: Start) -> StoredImage:
    """Raises ImageError, OSError."""
    images, path = ImageStore(settings.data), Path(source).expanduser()
    if path.is_dir():
        if path.absolute().is_relative_to(settings.data) or settings.data.is_relative_to(path.absolute()):
            raise ImageError(f"the data directory {settings.data} and it lie within each other")
        return images.add_tree(path, start)
    if path.exists():
        raise ImageError("it is a file; unpack it, and give the directory")
    if not settings.compute.startswith("docker:"):
        raise ImageError(
            "there is no such directory, and no container engine that could hold an image of this name "
            f"(EYRIE_COMPUTE is {settings.compute}; docker:// would name one)"
        )
    if start != Start():
        raise ImageError("an engine's image has its own entry point and variables: --entrypoint, --env, --workdir "
                         "are for directories")  # fmt: skip
    from eyrie.adapters.compute_docker import EngineUnavailable, look_up

    try:
        return look_up(settings, images, source)
    except EngineUnavailable as error:
        raise ImageError(str(error)) from None


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise CommandError(f"--env {text!r} is not NAME=VALUE", code=2)
    return name, value


def _client(data: Path) -> ControlClient:
    return ControlClient(data, str(datadir.running_env(data)["region"]), ADD_TIMEOUT_S)
