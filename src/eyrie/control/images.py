"""Container images by name: which of them the model server is, and which are not here.

The registry names that the SageMaker SDK's `image_uris.retrieve` yields for the frameworks that it serves, of any
account and region, mean Eyrie's own model server, as do the short names. Images of the user's own come first
(`image_table`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eyrie import __version__

FRAMEWORK_OF_REPOSITORY = {
    "sagemaker-xgboost": "xgboost",
    "xgboost": "xgboost",  # the built-in algorithm, which images before 1.0 were named after
    "sagemaker-scikit-learn": "sklearn",
    "xgboost-neo": "xgboost",  # what a compilation job names for XGBoost
    "pytorch-inference": "pytorch",
    "sagemaker-pytorch": "pytorch",  # what its images were called before 1.2
    "tensorflow-inference": "tensorflow",
    "sagemaker-tensorflow-serving": "tensorflow",
    "huggingface-pytorch-inference": "huggingface",
    "sagemaker-sparkml-serving": "sparkml",
    "eyrie/xgboost": "xgboost",
    "eyrie/sklearn": "sklearn",
    "eyrie/scikit-learn": "sklearn",
    "eyrie/lightgbm": "lightgbm",
    "eyrie/onnx": "onnx",
    "eyrie/pytorch": "pytorch",
    "eyrie/torch": "pytorch",
    "eyrie/tensorflow": "tensorflow",
    "eyrie/huggingface": "huggingface",
    "eyrie/sparkml": "sparkml",
    "eyrie/spark": "sparkml",
    "eyrie/python": "python",  # nothing but the user's own inference.py
}

_REGISTRY = re.compile(
    r"[0-9]{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/(?P<repository>[^@:]+)(?P<tag>[@:].+)?"
)
_SHORT = re.compile(r"(?P<repository>eyrie/[a-z-]+)(?P<tag>[@:].+)?")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that can run here."""

    specified: str  # as the user named it
    framework: str  # "xgboost", "sklearn", "pytorch" ...; "python" for user code alone

    @property
    def resolved(self) -> str:
        """What it came to: our model server and its version."""
        return f"eyrie/{self.framework}:{__version__}"


def resolve(image: str) -> Image | None:
    """The image that a name means here; None where there is none."""
    found = _REGISTRY.fullmatch(image) or _SHORT.fullmatch(image)
    framework = FRAMEWORK_OF_REPOSITORY.get(found["repository"]) if found else None
    return Image(image, framework) if framework else None
