"""Images that the tests build themselves: a folder with a `serve` program, and a root file system that holds this
interpreter and nothing else; and a container engine of the tests' own, where one can be started.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eyrie.adapters.image_store import ImageStore

STANDIN = Path(__file__).with_name("container_standin.py")
ENGINE_START_S = 30.0


def serve_program(place: Path, script: Path = STANDIN) -> Path:
    """A `serve` program that this interpreter runs."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"#!{os.path.realpath(sys.executable)} -S\n" + script.read_text())
    place.chmod(0o755)
    return place


def folder_image(folder: Path) -> Path:
    """A folder with a `serve` program."""
    serve_program(folder / "bin" / "serve")
    return folder


def root_image(root: Path) -> Path:
    """A root file system of some 40 MB: this interpreter, its library, what both are linked with, and `serve`."""
    python = Path(os.path.realpath(sys.executable))
    stdlib = Path(sysconfig.get_path("stdlib"))
    _take(root, python)
    extensions = list((stdlib / "lib-dynload").glob("*.so"))
    for library in sorted({found for binary in (python, *extensions) for found in _linked(binary)}):
        _take(root, library)
    unwanted = ("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "__pycache__", "config-*",
                "ensurepip", "lib2to3", "*.a", "turtledemo")  # fmt: skip
    leaving_out = shutil.ignore_patterns(*unwanted)
    shutil.copytree(stdlib, root / str(stdlib).lstrip("/"), ignore=leaving_out, dirs_exist_ok=True)
    for name in ("etc", "tmp", "var/log", "run", "opt/ml/model"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/secret-of-the-image").write_text("only readable by root in it")
    (root / "etc/secret-of-the-image").chmod(0o600)
    serve_program(root / "usr/local/bin/serve")
    return root


def _linked(binary: Path) -> Iterator[Path]:
    """What a binary is linked with, the loader included."""
    told = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    yield from (Path(found) for found in re.findall(r"(/\S+) \(0x", told))


def _take(root: Path, path: Path) -> None:
    """Copy one file to where it is looked for; links on the way become folders."""
    place = root / str(path).lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, place)


class TestEngine:
    """dockerd in a network and mount namespace of its own, under one folder."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, folder / "engine.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"docker://{self.socket}"

    def start(self) -> str | None:
        """Start it; why that cannot be, or None."""
        missing = [name for name in ("dockerd", "unshare", "containerd") if shutil.which(name) is None]
        if missing:
            return f"not installed: {', '.join(missing)} (Debian: apt-get install docker.io)"
        if os.geteuid():
            return "dockerd needs root"
        flags = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false")
        places = (f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid")
        with open(self.folder / "log", "wb") as said:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--net", "dockerd", *flags, *places, "-H", f"unix://{self.socket}"],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        deadline = time.monotonic() + ENGINE_START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(Exception):
                # The SDK leaves a socket open where nobody accepts yet, so that is asked first, by one of our own.
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self.socket))
                self.client().close()
                return None
            time.sleep(0.1)
        return f"dockerd did not come up: {(self.folder / 'log').read_text(errors='replace')[-1500:]}"

    def client(self) -> Any:
        """A client of it. The caller closes it."""
        import docker

        client = docker.DockerClient(base_url=f"unix://{self.socket}")
        try:
            client.ping()
        except BaseException:
            client.close()
            raise
        return client

    def import_image(self, root: Path, name: str, changes: tuple[str, ...] = ()) -> str:
        """Make an image out of a root file system; its id."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(root, arcname=".")
        client = self.client()
        try:
            client.api.import_image_from_data(packed.getvalue(), repository=name, changes=list(changes))
            return str(client.images.get(name).id)
        finally:
            client.close()

    def stop(self) -> None:
        """End it, and remove everything."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        subprocess.run(["umount", "-R", str(self.folder / "data")], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class Images:
    """Images of the tests' own in one store, built when they are first asked for, and an engine that holds one."""

    def __init__(self, folder: Path) -> None:
        self.store = ImageStore(folder)
        self._folder = folder
        self._found: dict[str, str] = {}
        self.engine: TestEngine | None = None

    def digest(self, kind: str) -> str:
        """The image of that kind: "folder", "rootfs" or "docker"."""
        if kind not in self._found:
            source = self._folder / f"source-{kind}"
            if kind == "folder":
                self._found[kind] = self.store.add_tree(folder_image(source)).digest
            elif kind == "rootfs":
                self._found[kind] = self.store.add_tree(root_image(source)).digest
            else:
                self._found[kind] = self._in_engine(self._folder / "source-rootfs")
        return self._found[kind]

    def lend(self, data: Path) -> None:
        """Let a data directory have them."""
        (data / "images").symlink_to(self._folder / "images")

    def close(self) -> None:
        if self.engine is not None:
            self.engine.stop()

    def _in_engine(self, root: Path) -> str:
        self.digest("rootfs")
        made = TestEngine(Path(tempfile.mkdtemp(prefix="ey-eng-")))
        why = made.start()
        if why:
            made.stop()
            print(f"\nNO CONTAINER ENGINE CAN BE STARTED HERE, its tests are left out: {why}", file=sys.__stderr__)
            pytest.skip(f"no container engine can be started here: {why}")
        self.engine = made
        reference = made.import_image(root, "eyrie-test/standin:1")
        return self.store.add_engine_image(reference, 1, "eyrie-test/standin:1").digest
