"""From a model folder to something that can be served: which framework it is, which files are models, what is
missing.

Reached once for each model, from `app` after the claim, in a thread. A model that cannot be served raises LoadError
with one plain line for its owner, or whatever the framework or the user's code raises.

A framework is one file in `frameworks` with a constant FRAMEWORK (`interface.Framework`), and one line here.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from eyrie.modelserver import lean
from eyrie.modelserver.frameworks.files import kind_of, missing
from eyrie.modelserver.frameworks.interface import CallModel, Framework, LoadError, RowModel, Source

log = logging.getLogger("eyrie.modelserver")

# Who is asked whether a folder holds a model of theirs, the first first; scikit-learn is last, since a pickle may hold
# anything.
FRAMEWORKS = (
    "xgboost",
    "lightgbm",
    "onnx",
    "huggingface",
    "torch",
    "tensorflow",
    "spark",
    "sklearn",
)
CONTAINER_ML = "/opt/ml"
DEPS = "deps"  # below it: the built requirements
FILES_SHOWN_MAX = 8


def frameworks() -> list[Framework]:
    """The table's entries, their files imported; none of them imports its library for that."""
    return [import_module(f"eyrie.modelserver.frameworks.{name}").FRAMEWORK for name in FRAMEWORKS]


def warm_up(source: Source) -> None:
    """Import the library of the image's framework, before there is a model of it."""
    framework = of_image(source)
    if framework is not None:
        with contextlib.suppress(ImportError):  # the first model that needs it will say so
            lean.import_lean(framework.library)


def load(source: Source) -> RowModel | CallModel:
    """The model of a folder, ready to predict. Raises LoadError, or what the framework or user code raises."""
    script = script_path(source)
    if script is not None:
        return _load_user_code(source, script)
    return load_files(source)


# ---------------------------------------------------------------------------------------------------- user code
def script_path(source: Source) -> Path | None:
    """The user's entry point: SAGEMAKER_PROGRAM in SAGEMAKER_SUBMIT_DIRECTORY or `code/`; None when there is no user
    code.
    """
    program = source.env.get("SAGEMAKER_PROGRAM", "")
    folders = [folder for folder in (_submit_directory(source), source.model_dir / "code") if folder is not None]
    for folder in folders:
        path = folder / (program or "inference.py")
        if path.is_file():
            return path
    if program:
        raise LoadError(f"SAGEMAKER_PROGRAM is {program!r}, and there is no such file in the model's code folder")
    return None


def _submit_directory(source: Source) -> Path | None:
    """SAGEMAKER_SUBMIT_DIRECTORY as a folder here; s3:// ones were unpacked into `model/code` before the start."""
    text = source.env.get("SAGEMAKER_SUBMIT_DIRECTORY", "").strip('"')
    if not text or "://" in text:
        return None
    if text == CONTAINER_ML or text.startswith(CONTAINER_ML + "/"):
        return source.ml / text[len(CONTAINER_ML) :].lstrip("/")
    return Path(text)


def code_paths(source: Source, script: Path | None) -> list[str]:
    """Folders for sys.path, first one first: the entry point's own, `code`, `code/lib`, and the built requirements."""
    code = source.model_dir / "code"
    wanted = [script.parent] if script is not None else []
    wanted += [code, code / "lib", source.ml / DEPS]
    found: list[str] = []
    for folder in wanted:
        if folder.is_dir() and str(folder) not in found:
            found.append(str(folder))
    return found


def _load_user_code(source: Source, script: Path) -> CallModel:
    from eyrie.modelserver.frameworks import user_code

    log.info("importing user code %s", script.name)
    lean.forget()
    imported = user_code.import_script(script)
    framework = of_image(source) or of_files(source) or frameworks()[-1]
    defaults = framework.defaults(lambda folder: load_object(source))
    return user_code.UserModel(imported, str(source.model_dir), source.env, defaults)


# -------------------------------------------------------------------------------------------------- model files
def of_image(source: Source) -> Framework | None:
    """The framework that the image's name says."""
    return next((framework for framework in frameworks() if source.image_says(*framework.images)), None)


def of_files(source: Source) -> Framework | None:
    """The framework that finds a model of its own in the folder; the image's is asked first."""
    named = of_image(source)
    asked = ([named] if named is not None else []) + frameworks()
    return next((framework for framework in asked if framework.find(source)), None)


def load_files(source: Source) -> RowModel | CallModel:
    """A model served from its files alone."""
    compiled = _compiled(source)
    if compiled is not None:
        return compiled
    framework, objects = _read_all(source)
    owner = next((o for o in frameworks() if all(o.owns(value, source) for value in objects)), framework)
    with _missing_named(source.model_dir.name):
        return owner.serve(objects, source)


def _compiled(source: Source) -> RowModel | None:
    """The compiled model that lies beside the original, where there is one."""
    if not (source.model_dir / "compiled" / "manifest.json").is_file():
        return None
    at_load: Any = import_module("eyrie.modelserver.compile.at_load")
    found: RowModel | None = at_load.compiled_of(source)
    return found


def load_object(source: Source) -> Any:
    """The one model object of the folder, for user code without a model_fn. Raises LoadError when there is none or
    several.
    """
    _, objects = _read_all(source)
    if len(objects) > 1:
        raise LoadError("the folder holds several models: write a model_fn that says which")
    return objects[0]


def _read_all(source: Source) -> tuple[Framework, list[Any]]:
    framework = of_files(source)
    if framework is None:
        raise LoadError(_nothing(source.model_dir))
    files = framework.find(source)
    log.info("loading %s", ", ".join(path.name for path in files))
    if any(path.is_file() and kind_of(path) in ("pickle", "skops") for path in files):
        lean.forget()
    else:
        with contextlib.suppress(ImportError):  # reading will say so
            lean.import_lean(framework.library)
    return framework, [_read(framework, path, source) for path in files]


def _read(framework: Framework, path: Path, source: Source) -> Any:
    with _missing_named(path.name):
        return framework.read(path, source)


@contextlib.contextmanager
def _missing_named(what: str) -> Iterator[None]:
    """A module that is missing becomes a LoadError with the extra, or the place, where it would come from."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        for known in frameworks():
            if name == known.library:
                raise LoadError(missing(name, known.name)) from error
        raise LoadError(
            f"{what} needs the module {error.name!r}: name it in code/requirements.txt or put it in code/"
        ) from error


def _nothing(folder: Path) -> str:
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir()) if folder.is_dir() else []
    if not names:
        return "the model folder is empty: the endpoint's model has no ModelDataUrl, or its archive holds nothing"
    shown = ", ".join(names[:FILES_SHOWN_MAX]) + (", ..." if len(names) > FILES_SHOWN_MAX else "")
    wanted = ", ".join(framework.wanted for framework in frameworks())
    return (
        f"the model folder holds no model that is known here ({shown}): wanted is {wanted}, "
        "at the top of the archive, or code/inference.py"
    )
