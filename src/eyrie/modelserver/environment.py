"""What a claim says, checked, and the environment variables of the container contract that it turns into.

Reached once in an instance's life, from `app`, before the model is loaded.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger("eyrie.modelserver")

MAX_PAYLOAD_MB = "SAGEMAKER_MAX_PAYLOAD_IN_MB"
MAX_CONTENT = "MAX_CONTENT_LENGTH"
BODY_BYTES_DEFAULT = 26_214_400
BODY_BYTES_MAX = 104_857_600  # 100 MB, the most that a batch transform may set
VARIABLES_MAX = 100  # SageMaker's limit is on entries
VARIABLE_BYTES_MAX = 10_240
RESERVED = ("SM_MODEL_DIR", "SAGEMAKER_BASE_DIR", "OMP_WAIT_POLICY")  # must tell the truth about this sandbox
RESERVED_PREFIX = "EYRIE_"


class ClaimError(ValueError):
    """A claim that cannot be read; the message says which field."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The body of POST /eyrie/claim: which instance this slot becomes."""

    instance_id: str
    container: str = "primary"
    endpoint: str = ""  # the endpoint's slug, ACCOUNT.REGION.NAME
    variant: str = ""
    zone: str = ""
    vcpu_milli: int = 1000
    image: str = ""  # as the user named it
    environment: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def parse(body: bytes) -> Claim:
        """Read a claim; fields that are not known are ignored. Raises ClaimError."""
        try:
            given = json.loads(body)
        except ValueError as error:
            raise ClaimError(f"the claim is not JSON: {error}") from None
        if not isinstance(given, dict) or not isinstance(given.get("instance_id"), str) or not given["instance_id"]:
            raise ClaimError("the claim has no instance_id")
        texts = {
            name: _text(given, name) for name in ("container", "endpoint", "variant", "zone", "image") if name in given
        }
        vcpu = given.get("vcpu_milli", 1000)
        if not isinstance(vcpu, int) or vcpu <= 0:
            raise ClaimError("vcpu_milli is not a positive number")
        return Claim(given["instance_id"], vcpu_milli=vcpu, environment=_environment(given), **texts)

    @property
    def region(self) -> str:
        """The endpoint's region, from its slug; empty when it has none."""
        parts = self.endpoint.split(".")
        return parts[1] if len(parts) == 3 else ""


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


def apply(claim: Claim, ml: Path, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the container contract's variables: those that follow from the endpoint, the user's over them, the reserved
    ones on top.
    """
    for name in [name for name in environ if name.startswith(RESERVED_PREFIX)]:
        del environ[name]
    if claim.region:
        environ["AWS_REGION"] = environ["AWS_DEFAULT_REGION"] = environ["SAGEMAKER_REGION"] = claim.region
    environ["HOSTNAME"] = claim.container
    for name, value in claim.environment.items():
        if name in RESERVED or name.startswith(RESERVED_PREFIX):
            log.warning("the model's environment variable %s is reserved and was not set", name)
        else:
            environ[name] = value
    environ["SAGEMAKER_BASE_DIR"] = str(ml)
    environ["SM_MODEL_DIR"] = str(ml / "model")


def extend_path(folders: list[str]) -> None:
    """Put folders before everything else on sys.path, the first one first."""
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]


def body_bytes_max(env: Mapping[str, str]) -> int:
    """The limit of one request's body: SAGEMAKER_MAX_PAYLOAD_IN_MB, else MAX_CONTENT_LENGTH in bytes, else 25 MB; 100
    MB at most.
    """
    for name, unit in ((MAX_PAYLOAD_MB, 1024 * 1024), (MAX_CONTENT, 1)):
        text = env.get(name, "").strip()
        if text:
            if not text.isdecimal():
                log.warning("%s is %r, which is not a number; the limit stays at 25 MB", name, text[:64])
                return BODY_BYTES_DEFAULT
            return min(int(text) * unit or BODY_BYTES_MAX, BODY_BYTES_MAX)
    return BODY_BYTES_DEFAULT


def set_log_level(env: Mapping[str, str]) -> None:
    """SAGEMAKER_CONTAINER_LOG_LEVEL: a number, as the SDK sets it, or a name."""
    text = env.get("SAGEMAKER_CONTAINER_LOG_LEVEL", "").strip().upper()
    if not text:
        return
    try:
        logging.getLogger().setLevel(int(text) if text.isdecimal() else text)
    except ValueError:
        log.warning("SAGEMAKER_CONTAINER_LOG_LEVEL is %r, which is no log level", text[:64])
