"""Frameworks imported without what serving does not need: XGBoost and LightGBM pull in scikit-learn and pandas for
interfaces that a model file of their own never asks for, and NumPy's Fortran and test tools come with any of them.

Used by a slot before it waits (`slot.import_all`), or, where it had not imported the framework, by `loader` before it
reads the first model. What was left out can be had: `forget` makes the next import a whole one, and is called before
anything is unpickled or a user's code runs. Nobody else may import while modules are hidden.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

HIDDEN: Mapping[str, tuple[str, ...]] = {
    "xgboost": ("sklearn", "pandas", "xgboost.plotting"),  # without the last one its scikit-learn interface stays away
    "lightgbm": ("sklearn", "pandas", "matplotlib", "graphviz"),
}
DEFERRED = ("numpy.f2py", "numpy.testing")  # named by `from numpy import *` in SciPy, used by nobody who predicts


def import_lean(name: str) -> types.ModuleType:
    """Import a framework; without its optional companions where they are not there yet. Raises ImportError."""
    if name in sys.modules:
        return sys.modules[name]
    with _deferred():
        if name not in HIDDEN or "sklearn" in sys.modules:
            return importlib.import_module(name)
        with _hidden(HIDDEN[name]):
            return importlib.import_module(name)


def is_lean(name: str) -> bool:
    """Whether a framework is here without its scikit-learn interface, although that could be had."""
    compat = sys.modules.get(f"{name}.compat")
    without = compat is not None and not getattr(compat, "SKLEARN_INSTALLED", True)
    return without and importlib.util.find_spec("sklearn") is not None


def forget() -> None:
    """Make the next import of every framework that was imported lean a whole one. Models that it has loaded live on."""
    for name in [name for name in HIDDEN if is_lean(name)]:
        for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            del sys.modules[module]


@contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """While this lasts these modules cannot be imported."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: an ImportError, as Python documents it
    try:
        yield
    finally:
        for name in absent:
            if sys.modules.get(name, absent) is None:
                del sys.modules[name]


@contextmanager
def _deferred() -> Iterator[None]:
    """While this lasts some modules are loaded only when something of them is used; those that were not are taken away
    again, so that later imports know nothing of it.
    """
    loaded = [name for name in DEFERRED if name not in sys.modules and _defer(name)]
    try:
        yield
    finally:
        for name in loaded:
            if type(sys.modules.get(name)) is not types.ModuleType:
                parent, _, child = name.rpartition(".")
                sys.modules.pop(name, None)
                vars(sys.modules[parent]).pop(child, None)


def _defer(name: str) -> bool:
    """Put a module in place that loads itself at its first use; False where there is no such module."""
    parent, _, child = name.rpartition(".")
    try:
        package = importlib.import_module(parent)
        spec = importlib.util.find_spec(name)
    except ImportError:
        return False
    if spec is None or spec.loader is None or child in vars(package):
        return False
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    setattr(package, child, module)
    return True
