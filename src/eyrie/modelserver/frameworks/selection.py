"""What the environment says about answers: their default type, and with SAGEMAKER_INFERENCE_OUTPUT which of the things
a classifier knows about a row are written, for XGBoost and scikit-learn alike.

Keys are `predicted_label`, `labels`, `probability`, `probabilities`, `raw_score`, `raw_scores` and, of regressions,
`predicted_score`; one that the model cannot tell is written as NaN, as the real container does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eyrie.modelserver.codecs import NAN, Array, media_type
from eyrie.modelserver.frameworks.interface import LoadError

VARIABLE = "SAGEMAKER_INFERENCE_OUTPUT"
KEYS = ("predicted_label", "labels", "probability", "probabilities", "raw_score", "raw_scores", "predicted_score")


def selected_keys(env: Mapping[str, str]) -> tuple[str, ...]:
    """The keys that the environment asks for, in its order; none when it does not say. Raises LoadError for an unknown
    one.
    """
    keys = tuple(key for key in env.get(VARIABLE, "").replace(" ", "").lower().split(",") if key)
    for key in keys:
        if key not in KEYS:
            raise LoadError(f"{VARIABLE} names {key!r}; it may hold {', '.join(KEYS)}")
    return keys


def records(keys: tuple[str, ...], known: Mapping[str, list[Any]], count: int) -> Array:
    """One dictionary a row, in an array of objects, from columns of what is known."""
    columns = [known.get(key) or [NAN] * count for key in keys]
    out = np.empty(count, dtype=object)
    for row in range(count):
        out[row] = {key: column[row] for key, column in zip(keys, columns, strict=True)}
    return out


def default_accept(env: Mapping[str, str], offers: tuple[str, ...], usual: str) -> str:
    """The content type of an answer when the client does not mind: SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT, else the
    framework's usual one. Raises LoadError for one that the model does not offer.
    """
    wanted = media_type(env.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "")) or usual
    if wanted not in offers:
        raise LoadError(
            f"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT is {wanted!r}; this model answers in {', '.join(offers)}"
        )
    return wanted
