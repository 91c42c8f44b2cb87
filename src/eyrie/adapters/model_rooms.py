"""Running instances as places for models of a multi-model endpoint (the port `ModelRooms`): files are put below
`slots/ID/ml/models`, which the instance sees read-only as `/opt/ml/models`, and its workers are asked on their sockets.

On the path of a load: `control/model_loads` -> here. An instance is named by the socket of its first worker, `box/s`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from eyrie.adapters.placing import MODELS, make_folder, place
from eyrie.adapters.slot_client import ask
from eyrie.adapters.slots import Slot

REPLY_BYTES_MAX = 4_194_304  # a list of some ten thousand models
WORKERS_MAX = 256
_SOCKET = re.compile(r"s\.([0-9]{1,3})")


class SlotRooms:
    """Rooms that are slots on this host. Safe from threads, one call a model at a time."""

    def placed(self, socket: str) -> set[str]:
        """Keys of the models whose files are there."""
        with contextlib.suppress(OSError), os.scandir(_slot(socket).path / "ml" / MODELS) as found:
            return {entry.name for entry in found if entry.is_dir(follow_symlinks=False)}
        return set()

    def place(self, socket: str, key: str, source: Path) -> None:
        """Put a model's files at `/opt/ml/models/KEY/model`, in place of what was there. Raises OSError."""
        slot = _slot(socket)
        record = slot.record()
        if record is None:
            raise FileNotFoundError(f"slot {slot.slot_id} is gone")
        self.remove(socket, key)
        make_folder(slot, f"{MODELS}/{key}")
        place(source, slot, f"{MODELS}/{key}/model", share=record.uid is not None)

    def remove(self, socket: str, key: str) -> None:
        """Take a model's files away, if they are there; out of sight at once."""
        slot = _slot(socket)
        folder = slot.path / "ml" / MODELS / key
        if not folder.is_dir():
            return
        doomed = tempfile.mkdtemp(prefix="unloaded-", dir=slot.path)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(Path(doomed) / key)
        shutil.rmtree(doomed, ignore_errors=True)

    def workers(self, socket: str) -> list[int]:
        """The numbers of the workers that listen: `s` is the first's socket, `s.N` another's."""
        numbers = [0]
        with contextlib.suppress(OSError):
            for name in os.listdir(Path(socket).parent)[:WORKERS_MAX]:
                other = _SOCKET.fullmatch(name)
                if other is not None:
                    numbers.append(int(other[1]))
        return sorted(set(numbers))

    def ask(
        self, socket: str, worker: int, method: str, target: str, body: bytes = b"", timeout_s: float = 5.0
    ) -> tuple[int, bytes]:
        """A request to one worker: status and body of its reply. Raises NoAnswer."""
        path = Path(f"{socket}.{worker}" if worker else socket)
        reply = ask(path, method, target, body, timeout_s, REPLY_BYTES_MAX)
        return reply.status, reply.body


def _slot(socket: str) -> Slot:
    return Slot(Path(socket).parent.parent)
