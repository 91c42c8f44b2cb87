"""Container images by name: which of them the model server is, and which are not here.

The registry names that the SageMaker SDK's `image_uris.retrieve` yields for XGBoost and scikit-learn, of any account
and region, mean Eyrie's own model server, as do the short names. Anything else would have to be run by a container
engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eyrie import __version__

FRAMEWORK_OF_REPOSITORY = {
    "sagemaker-xgboost": "xgboost",
    "xgboost": "xgboost",  # the built-in algorithm, which images before 1.0 were named after
    "sagemaker-scikit-learn": "sklearn",
    "eyrie/xgboost": "xgboost",
    "eyrie/sklearn": "sklearn",
    "eyrie/scikit-learn": "sklearn",
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
    framework: str  # "xgboost", "sklearn" or "python"
    foreign: bool = False  # not our model server: the real service's ping timings hold

    @property
    def resolved(self) -> str:
        """What it came to: our model server and its version."""
        return f"eyrie/{self.framework}:{__version__}"


def resolve(image: str) -> Image | None:
    """The image that a name means here; None where there is none."""
    found = _REGISTRY.fullmatch(image) or _SHORT.fullmatch(image)
    framework = FRAMEWORK_OF_REPOSITORY.get(found["repository"]) if found else None
    return Image(image, framework) if framework else None


def refusal(image: str) -> str:
    """Why an image that does not resolve is refused, naming what there is."""
    return (
        f'Could not find the image "{image}": this Eyrie runs its own model server, not foreign containers. Available: '
        "eyrie/xgboost, eyrie/sklearn, eyrie/python, and the SageMaker images sagemaker-xgboost, xgboost and "
        "sagemaker-scikit-learn of any account and region, which stand for the first two."
    )
