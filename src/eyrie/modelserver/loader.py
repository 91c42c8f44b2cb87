"""From a model folder to something that can be served: which framework it is, which files are models, what is
missing.

Reached once in an instance's life, from `app` after the claim, in a thread. A model that cannot be served raises
LoadError with one plain line for its owner, or whatever the framework or the user's code raises.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from eyrie.modelserver.frameworks.interface import CallModel, LoadError, RowModel

log = logging.getLogger("eyrie.modelserver")

CONTAINER_ML = "/opt/ml"
SKOPS_TRUSTED = "SKOPS_TRUSTED_TYPES"
ENSEMBLE = "SAGEMAKER_INFERENCE_ENSEMBLE"
NOT_MODELS = (
    ".md",
    ".txt",
    ".rst",
    ".html",
    ".yaml",
    ".yml",
    ".toml",
    ".csv",
    ".py",
    ".sh",
    ".cfg",
    ".ini",
    ".log",
    ".pdf",
    ".png",
)
PACKED = (
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"]\x00\x00",
    b"\x04\x22\x4d\x18",
)
FILES_SHOWN_MAX = 8


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from and what is known about it beforehand."""

    ml: Path  # /opt/ml, or its stand-in outside a sandbox; `model/` below it
    env: Mapping[str, str]  # the instance's environment
    image: str = ""  # as the user named it: tells scikit-learn's container from XGBoost's where the files do not

    @property
    def model_dir(self) -> Path:
        """The unpacked model archive."""
        return self.ml / "model"

    @property
    def wants_xgboost(self) -> bool:
        """The image is XGBoost's."""
        return "xgboost" in self.image.lower()

    @property
    def wants_sklearn(self) -> bool:
        """The image is scikit-learn's."""
        name = self.image.lower()
        return not self.wants_xgboost and ("sklearn" in name or "scikit" in name)


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
    wanted += [code, code / "lib", source.ml / "deps"]
    found: list[str] = []
    for folder in wanted:
        if folder.is_dir() and str(folder) not in found:
            found.append(str(folder))
    return found


def _load_user_code(source: Source, script: Path) -> CallModel:
    from eyrie.modelserver.frameworks import user_code

    log.info("importing user code %s", script.name)
    imported = user_code.import_script(script)
    framework = _script_framework(source)
    defaults = user_code.xgboost_defaults if framework == "xgboost" else user_code.sklearn_defaults
    return user_code.UserModel(
        imported, str(source.model_dir), source.env, defaults(lambda folder: load_object(source))
    )


def _script_framework(source: Source) -> str:
    """Whose default handlers fill the gaps of a script: the image's, else the model files', else scikit-learn's."""
    if source.wants_xgboost or source.wants_sklearn:
        return "xgboost" if source.wants_xgboost else "sklearn"
    kinds = {kind_of(path) for path in model_files(source.model_dir)}
    return "xgboost" if kinds & {"xgboost-json", "xgboost-ubj"} else "sklearn"


# -------------------------------------------------------------------------------------------------- model files
def load_files(source: Source) -> RowModel:
    """A model served from its files alone."""
    objects = _read_all(source)
    if any(_is_booster(value) for value in objects) or (not source.wants_sklearn and all(map(_has_booster, objects))):
        module = _framework("xgboost")
        boosters = [value if _is_booster(value) else value.get_booster() for value in objects]
        return module.XGBoostModel(boosters, source.env)  # type: ignore[no-any-return]
    if len(objects) > 1:
        raise LoadError(
            "several models that are not XGBoost's cannot be served together; choose one in code/inference.py"
        )
    return _framework("sklearn").SklearnModel(objects[0], source.env)  # type: ignore[no-any-return]


def load_object(source: Source) -> Any:
    """The one model object of the folder, for user code without a model_fn. Raises LoadError when there is none or
    several.
    """
    objects = _read_all(source)
    if len(objects) > 1:
        raise LoadError("the folder holds several models: write a model_fn that says which")
    return objects[0]


def _read_all(source: Source) -> list[Any]:
    files = _chosen(source)
    log.info("loading %s", ", ".join(path.name for path in files))
    return [read_model(path, source.env) for path in files]


def _chosen(source: Source) -> list[Path]:
    """The files to load: all XGBoost models (unless ensembles are off), or the one that is named as the containers
    name it.
    """
    files = model_files(source.model_dir)
    if not files:
        raise LoadError(_nothing(source.model_dir))
    usual = [path for path in files if path.name in ("model.joblib", "model.pkl", "model.skops")]
    boosters = [path for path in files if kind_of(path).startswith("xgboost")]
    if len(files) > 1 and len(usual) == 1 and not boosters:
        log.warning("serving %s; not read: %s", usual[0].name, ", ".join(p.name for p in files if p != usual[0]))
        return usual
    if source.env.get(ENSEMBLE, "true").lower() in ("false", "0"):
        return files[:1]
    return files


def model_files(folder: Path) -> list[Path]:
    """Files at the top of a model folder that may be models, by name order; those whose name says model first if any
    does.
    """
    if not folder.is_dir():
        return []
    found = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith((".", "_"))]
    found = [p for p in found if p.suffix.lower() not in NOT_MODELS]
    return [p for p in found if kind_of(p)]


def kind_of(path: Path) -> str:
    """What a file holds, by its first bytes: xgboost-json, xgboost-ubj, xgboost-binary, pickle or skops; "" for
    anything else.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    if start[:4] == b"binf" or (path.suffix.lower() in (".bin", ".deprecated") and start[:1] not in (b"{", b"\x80")):
        return "xgboost-binary"
    if start[:2] in (b"{L", b"{i", b"{U") or (start[:1] == b"{" and path.suffix.lower() == ".ubj"):
        return "xgboost-ubj"
    if start[:1] == b"{":
        return "xgboost-json" if b'"learner"' in start or path.name.startswith("xgboost-model") else ""
    if start[:4] == b"PK\x03\x04":
        return "skops" if path.suffix.lower() != ".npz" else ""
    if (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05") or start.startswith(PACKED):
        return "pickle"
    return "xgboost-binary" if path.name.startswith("xgboost-model") else ""


def read_model(path: Path, env: Mapping[str, str]) -> Any:
    """The object in a model file. Raises LoadError, or what unpickling raises."""
    kind = kind_of(path)
    if kind in ("xgboost-json", "xgboost-ubj"):
        return _framework("xgboost").read_booster(path)
    if kind == "xgboost-binary":
        raise LoadError(
            f"{path.name} is in XGBoost's old binary format, which XGBoost reads no more since 3.1: "
            "load it with XGBoost 3.0 or older and save it as model.json or model.ubj"
        )
    if kind == "skops":
        return _read_skops(path, env)
    return _read_pickle(path)


def _read_pickle(path: Path) -> Any:
    """Through joblib, which reads plain pickles and its own, compressed ones; warnings about versions go to the log."""
    try:
        import joblib
    except ImportError:
        raise LoadError(_missing("joblib", "sklearn")) from None
    try:
        return joblib.load(path)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("sklearn", "xgboost"):
            raise LoadError(_missing(name, name)) from error
        raise LoadError(
            f"{path.name} needs the module {error.name!r}: name it in code/requirements.txt or put it in code/"
        ) from error


def _read_skops(path: Path, env: Mapping[str, str]) -> Any:
    try:
        from skops import io
    except ImportError:
        raise LoadError(_missing("skops", "sklearn")) from None
    trusted = [name for name in env.get(SKOPS_TRUSTED, "").replace(" ", "").split(",") if name]
    unknown = sorted(set(io.get_untrusted_types(file=path)) - set(trusted))
    if unknown:
        raise LoadError(
            f"{path.name} holds types that skops does not trust: {', '.join(unknown)}. "
            f"If you do, name them in the model's environment: {SKOPS_TRUSTED}={','.join(trusted + unknown)}"
        )
    return io.load(path, trusted=trusted)


def _is_booster(value: Any) -> bool:
    xgboost = sys.modules.get("xgboost")
    return xgboost is not None and isinstance(value, xgboost.Booster)


def _has_booster(value: Any) -> bool:
    return _is_booster(value) or (type(value).__module__.startswith("xgboost") and hasattr(value, "get_booster"))


def _framework(name: str) -> Any:
    """The adapter of a framework. Raises LoadError with what to install when the framework is missing."""
    try:
        import_module(name)
    except ImportError as error:
        raise LoadError(_missing(name, name)) from error
    return import_module(f"eyrie.modelserver.frameworks.{name}")


def _missing(library: str, extra: str) -> str:
    return f"this model needs {library}, which is not installed here: pip install 'eyrie[{extra}]'"


def _nothing(folder: Path) -> str:
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir()) if folder.is_dir() else []
    if not names:
        return "the model folder is empty: the endpoint's model has no ModelDataUrl, or its archive holds nothing"
    shown = ", ".join(names[:FILES_SHOWN_MAX]) + (", ..." if len(names) > FILES_SHOWN_MAX else "")
    return (
        f"the model folder holds no model that is known here ({shown}): wanted is xgboost-model, *.json or *.ubj "
        "of XGBoost, *.joblib, *.pkl or *.skops of scikit-learn, at the top of the archive, or code/inference.py"
    )
