"""Data: what a compilation job may be made for. Names are those of the API; a test holds them to botocore's list.

A graph is portable: it is made and verified on this host's CPU. Devices that are CPU hosts of this host's kind are
taken; the others are refused, since nobody here could verify what was made for them.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from types import MappingProxyType

X86_64 = ("ml_m4", "ml_m5", "ml_c4", "ml_c5", "lambda")
ARM64 = ("ml_m6g", "ml_c6g")
_NEURON = "it needs a Neuron accelerator, and this host has none"
_GPU = "it needs an NVIDIA GPU and its own compiler"
_EDGE = "it is an edge device: what is made for it could not be verified on this host"

DEVICES_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "ml_inf1": _NEURON,
        "ml_inf2": _NEURON,
        "ml_trn1": _NEURON,
        "ml_eia2": "Elastic Inference is no more",
        "ml_p2": _GPU,
        "ml_p3": _GPU,
        "ml_g4dn": _GPU,
        **dict.fromkeys(
            (
                "jetson_tx1",
                "jetson_tx2",
                "jetson_nano",
                "jetson_xavier",
                "rasp3b",
                "rasp4b",
                "imx8qm",
                "imx8mplus",
                "deeplens",
                "rk3399",
                "rk3288",
                "aisage",
                "sbe_c",
                "qcs605",
                "qcs603",
                "sitara_am57x",
                "amba_cv2",
                "amba_cv22",
                "amba_cv25",
                "x86_win32",
                "x86_win64",
                "coreml",
                "jacinto_tda4vm",
            ),
            _EDGE,
        ),
    }
)

FRAMEWORKS = ("XGBOOST", "SKLEARN")
FRAMEWORKS_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "ONNX": "an ONNX model is served by ONNX Runtime as it is: there is nothing to compile",
        "PYTORCH": "PyTorch models are served as they are; export one to ONNX and serve that",
        "TENSORFLOW": "TensorFlow models are served as they are",
        "KERAS": "TensorFlow models are served as they are",
        "TFLITE": "there is no TensorFlow Lite here",
        "MXNET": "MXNet is no longer made",
        "DARKNET": "there is no Darknet here",
    }
)


def device_refusal(device: str, machine: str = "") -> str | None:
    """Why nothing is compiled for a device on this host; None where it is."""
    machine = machine or platform.machine()
    if device in DEVICES_REFUSED:
        return DEVICES_REFUSED[device]
    wanted = "aarch64" if device in ARM64 else "x86_64"
    return None if machine == wanted else f"it is a host of {wanted}, and this one is of {machine}"


def platform_refusal(given: Mapping[str, str], machine: str = "") -> str | None:
    """Why nothing is compiled for a TargetPlatform on this host; None where it is."""
    machine = machine or platform.machine()
    if given["Os"] != "LINUX":
        return f"its operating system is {given['Os']}, and this host runs Linux"
    if "Accelerator" in given:
        return f"it needs the accelerator {given['Accelerator']}, and this host has none"
    if {"X86_64": "x86_64", "ARM64": "aarch64"}.get(given["Arch"]) != machine:
        return f"its architecture is {given['Arch']}, and this host is {machine}"
    return None


def target_name(config: Mapping[str, object]) -> str:
    """What the artifact's name says it was made for: ml_c5, or LINUX_X86_64."""
    device = config.get("TargetDevice")
    if device:
        return str(device)
    given = config["TargetPlatform"]
    assert isinstance(given, Mapping)
    return f"{given['Os']}_{given['Arch']}"
