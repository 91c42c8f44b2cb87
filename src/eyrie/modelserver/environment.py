"""What a claim says, checked, and the environment variables of the container contract that it turns into.

Reached once in an instance's life, from `app`, before the model is loaded.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyrie.modelserver.board import WORKERS_MAX

log = logging.getLogger("eyrie.modelserver")

MAX_PAYLOAD_MB = "SAGEMAKER_MAX_PAYLOAD_IN_MB"
MAX_CONTENT = "MAX_CONTENT_LENGTH"
BODY_BYTES_DEFAULT = 26_214_400
BODY_BYTES_MAX = 1 << 30  # 1 GB, the most that an asynchronous request may have
PAYLOAD_MB_TOLD = 6  # what a batch transform may take for granted; a request may have more
CONTAINERS_MAX = 15
VARIABLES_MAX = 100  # SageMaker's limit is on entries
VARIABLE_BYTES_MAX = 10_240
RESERVED = ("SM_MODEL_DIR", "SAGEMAKER_BASE_DIR", "OMP_WAIT_POLICY")  # must tell the truth about this sandbox
RESERVED_PREFIX = "EYRIE_"
COMPILE = "EYRIE_COMPILE"  # see `compile/at_load`
BATCH_ROWS = "EYRIE_BATCH_ROWS"  # see `batcher`
OWN = (COMPILE, BATCH_ROWS)  # those of Eyrie's own that are a container's
BATCH_ROWS_DEFAULT, BATCH_ROWS_MAX = 256, 65_536


class ClaimError(ValueError):
    """A claim that cannot be read; the message says which field."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a claim."""

    hostname: str = "primary"
    image: str = ""  # as the user named it
    environment: dict[str, str] = field(default_factory=dict)
    multi_model: bool = False
    folder: str = ""  # below ML: "" for a single container, else containers/N

    def ml(self, ml: Path) -> Path:
        """What the container itself sees as /opt/ml."""
        return ml / self.folder if self.folder else ml


@dataclass(frozen=True, slots=True)
class Claim:
    """The body of POST /eyrie/claim: which instance this slot becomes."""

    instance_id: str
    endpoint: str = ""  # the endpoint's slug, ACCOUNT.REGION.NAME
    variant: str = ""
    zone: str = ""
    vcpu_milli: int = 1000
    memory_mb: int = 0  # 0: not said
    direct: bool = False  # a request names its container; otherwise several are a pipeline
    containers: tuple[Container, ...] = (Container(),)
    workers: int = 1  # processes that serve

    @staticmethod
    def parse(body: bytes) -> Claim:
        """Read a claim; fields that are not known are ignored. Raises ClaimError."""
        try:
            given = json.loads(body)
        except ValueError as error:
            raise ClaimError(f"the claim is not JSON: {error}") from None
        if not isinstance(given, dict) or not isinstance(given.get("instance_id"), str) or not given["instance_id"]:
            raise ClaimError("the claim has no instance_id")
        texts = {name: _text(given, name) for name in ("endpoint", "variant", "zone") if name in given}
        vcpu, memory = given.get("vcpu_milli", 1000), given.get("memory_mb", 0)
        if not isinstance(vcpu, int) or vcpu <= 0:
            raise ClaimError("vcpu_milli is not a positive number")
        if not isinstance(memory, int) or memory < 0:
            raise ClaimError("memory_mb is not a number")
        workers = given.get("workers", 1)
        if not isinstance(workers, int) or not 1 <= workers <= WORKERS_MAX:
            raise ClaimError(f"workers is not a number from 1 to {WORKERS_MAX}")
        execution = given.get("execution", "Serial")
        if execution not in ("Serial", "Direct"):
            raise ClaimError("execution is neither Serial nor Direct")
        containers = _containers(given.get("containers"))
        return Claim(
            given["instance_id"],
            vcpu_milli=vcpu,
            memory_mb=memory,
            workers=workers,
            direct=execution == "Direct",
            containers=containers,
            **texts,
        )

    @property
    def region(self) -> str:
        """The endpoint's region, from its slug; empty when it has none."""
        parts = self.endpoint.split(".")
        return parts[1] if len(parts) == 3 else ""

    @property
    def multi_model(self) -> bool:
        """Its one container has models that come and go."""
        return self.containers[0].multi_model


def _containers(given: Any) -> tuple[Container, ...]:
    if not isinstance(given, list) or not 1 <= len(given) <= CONTAINERS_MAX:
        raise ClaimError(f"containers is not a list of 1 to {CONTAINERS_MAX}")
    containers = tuple(_container(entry) for entry in given)
    if len({container.hostname for container in containers}) < len(containers):
        raise ClaimError("two containers have the same hostname")
    if len(containers) > 1 and any(container.multi_model for container in containers):
        raise ClaimError("mode MultiModel is for an instance of one container")
    return containers


def _container(given: Any) -> Container:
    if not isinstance(given, dict):
        raise ClaimError("an entry of containers is not an object")
    texts = {name: _text(given, name) for name in ("hostname", "image", "folder") if name in given}
    mode = given.get("mode", "SingleModel")
    if mode not in ("SingleModel", "MultiModel"):
        raise ClaimError("mode is neither SingleModel nor MultiModel")
    if ".." in texts.get("folder", "") or texts.get("folder", "").startswith("/"):
        raise ClaimError("folder leads out of /opt/ml")
    return Container(environment=_environment(given), multi_model=mode == "MultiModel", **texts)


def _text(given: dict[str, Any], name: str) -> str:
    if not isinstance(given[name], str):
        raise ClaimError(f"{name} is not text")
    return str(given[name])


def _environment(given: dict[str, Any]) -> dict[str, str]:
    environment = given.get("environment", {})
    if not isinstance(environment, dict) or not all(isinstance(v, str) for v in environment.values()):
        raise ClaimError("environment is not an object of text values")
    if len(environment) > VARIABLES_MAX:
        raise ClaimError(f"environment has more than {VARIABLES_MAX} entries")
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value or len(value) > VARIABLE_BYTES_MAX:
            raise ClaimError(f"environment: {name[:64]!r} cannot be an environment variable")
    return environment


def variables(claim: Claim, container: Container, ml: Path) -> dict[str, str]:
    """The container contract's variables of one container: those that follow from the endpoint, the user's over them,
    the reserved ones on top. `ml` is the instance's.
    """
    found: dict[str, str] = {}
    if claim.region:
        found |= dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION", "SAGEMAKER_REGION"), claim.region)
    found["HOSTNAME"] = container.hostname
    if container.multi_model:
        found["SAGEMAKER_MULTI_MODEL"] = "true"
    for name, value in container.environment.items():
        if name not in OWN and (name in RESERVED or name.startswith(RESERVED_PREFIX)):
            log.warning("the model's environment variable %s is reserved and was not set", name)
        else:
            found[name] = value
    own = container.ml(ml)
    found["SAGEMAKER_BASE_DIR"] = str(own)
    found["SM_MODEL_DIR"] = str(own / ("models" if container.multi_model else "model"))
    return found


def apply(common: Mapping[str, str], environ: MutableMapping[str, str] = os.environ) -> None:
    """Set this process's variables; those of Eyrie itself go."""
    for name in [name for name in environ if name.startswith(RESERVED_PREFIX)]:
        del environ[name]
    environ.update(common)


def in_common(sets: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The variables that have the same value in all of these sets."""
    first, *others = sets
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def extend_path(folders: list[str]) -> None:
    """Put folders before everything else on sys.path, the first one first."""
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]


def body_bytes_max(env: Mapping[str, str]) -> int:
    """The limit of one request's body: SAGEMAKER_MAX_PAYLOAD_IN_MB, else MAX_CONTENT_LENGTH in bytes, else 25 MB; 1 GB
    at most.
    """
    for name, unit in ((MAX_PAYLOAD_MB, 1024 * 1024), (MAX_CONTENT, 1)):
        text = env.get(name, "").strip()
        if text:
            if not text.isdecimal():
                log.warning("%s is %r, which is not a number; the limit stays at 25 MB", name, text[:64])
                return BODY_BYTES_DEFAULT
            return min(int(text) * unit or BODY_BYTES_MAX, BODY_BYTES_MAX)
    return BODY_BYTES_DEFAULT


def batch_rows(env: Mapping[str, str]) -> int:
    """How many rows of several requests go into one call: EYRIE_BATCH_ROWS, else 256; 1: each request alone."""
    text = env.get(BATCH_ROWS, "").strip()
    if not text:
        return BATCH_ROWS_DEFAULT
    if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= BATCH_ROWS_MAX):
        log.warning("%s is %r, not a number from 1 to %d; it stays at 256", BATCH_ROWS, text[:64], BATCH_ROWS_MAX)
        return BATCH_ROWS_DEFAULT
    return int(text)


def payload_mb_told(bytes_max: int) -> int:
    """MaxPayloadInMB of /execution-parameters, by the limit of one request's body."""
    return min(max(1, bytes_max // 1_048_576), PAYLOAD_MB_TOLD)


def set_log_level(env: Mapping[str, str]) -> None:
    """SAGEMAKER_CONTAINER_LOG_LEVEL: a number, as the SDK sets it, or a name."""
    text = env.get("SAGEMAKER_CONTAINER_LOG_LEVEL", "").strip().upper()
    if not text:
        return
    try:
        logging.getLogger().setLevel(int(text) if text.isdecimal() else text)
    except ValueError:
        log.warning("SAGEMAKER_CONTAINER_LOG_LEVEL is %r, which is no log level", text[:64])
