"""Which framework wrote a model file: by what is in it, never by loading it.

Nothing of a model runs here and no framework need be installed: pickles are read opcode by opcode, archives by their
tables of contents, protocol buffers by their top-level fields. Whether the model loads is its instance's to find out.
"""

from __future__ import annotations

import ast
import bz2
import json
import lzma
import pickletools
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_BYTES = 65_536
UNPACKED_BYTES_MAX = 1_048_576  # of a compressed pickle: its class stands at its beginning
HANDLERS = ("model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn")
OPCODES_MAX = 5_000
_SAYS_NOTHING = ("copyreg", "copy_reg", "builtins", "__builtin__", "joblib", "numpy", "collections", "functools")
_SKLEARN_LIKE = ("sklearn", "imblearn", "skops")


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a file or a folder holds, the image that serves it, and its name in an archive."""

    image: str
    what: str
    place: str = ""


class Unrecognised(ValueError):
    """Nothing that an image here is known to serve, or more than one such thing; the message is one line."""


def recognise(path: Path) -> Recognised:
    """What a single file holds. Raises Unrecognised, saying what can be done."""
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    if not start:
        raise Unrecognised(f"{path.name} is empty")
    if path.suffix.lower() == ".py":
        return _script(path)
    if start[:4] == b"PK\x03\x04":
        return _zip(path)
    known = _by_signature(path, start) or _by_text(path, start) or _by_fields(path, start)
    if known is not None:
        return known
    opened = unpacked(start)
    if opened[:1] == b"\x80" and opened[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _pickle(path, opened)
    raise Unrecognised(
        f"{path.name} is no model file that is known here: say which image serves it (--image eyrie/sklearn), "
        "or give its code (--code inference.py)"
    )


def _script(path: Path) -> Recognised:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise Unrecognised(f"{path.name} is no Python that can be read: {error}") from None
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    imported = any(isinstance(node, ast.ImportFrom) for node in tree.body)
    if not defined & set(HANDLERS) and not imported:
        raise Unrecognised(f"{path.name} defines none of {', '.join(HANDLERS)}")
    return Recognised("eyrie/python", "code of your own", "code/inference.py")


def _by_signature(path: Path, start: bytes) -> Recognised | None:
    """Formats with a mark of their own. Raises Unrecognised for those that are known and not served as they are."""
    if start[:2] in (b"{L", b"{i", b"{U") or (start[:1] == b"{" and path.suffix.lower() == ".ubj"):
        return Recognised("eyrie/xgboost", "an XGBoost model (UBJSON)", "xgboost-model.ubj")
    if start[4:8] == b"ORTM":
        return Recognised("eyrie/onnx", "an ONNX Runtime model", "model.ort")
    refusals = {
        b"binf": "is in XGBoost's old binary form, which XGBoost 3.1 and later do not read: load it with an older one "
        "and save it as model.json",
        b"\x89HDF": "is a Keras HDF5 file: write a SavedModel (model.export(folder)) and give the folder",
        b"GGUF": "is a GGUF model, which nothing here serves by itself: give its code (--code inference.py)",
        b"CBM1": "is a CatBoost model: give its code (--code inference.py), with catboost in requirements.txt",
    }
    why = next((why for mark, why in refusals.items() if start.startswith(mark)), None)
    if why is None and start[8:9] == b"{" and b"dtype" in start[:4096]:
        why = "is a safetensors file, weights alone: give the folder that save_pretrained wrote"
    if why is not None:
        raise Unrecognised(f"{path.name} {why}")
    return None


def _by_text(path: Path, start: bytes) -> Recognised | None:
    """LightGBM's text and JSON."""
    if start.replace(b"\r\n", b"\n").startswith(b"tree\n"):
        return Recognised("eyrie/lightgbm", "a LightGBM model", "model.txt")
    if start.lstrip()[:1] == b"{":
        return _json(path, start)
    if start.lstrip().startswith(b"<?xml") or b"<PMML" in start:
        raise Unrecognised(f"{path.name} is XML (PMML?), which nothing here serves")
    return None


def _json(path: Path, start: bytes) -> Recognised:
    if b'"learner"' in start or path.name.startswith("xgboost-model"):
        return Recognised("eyrie/xgboost", "an XGBoost model (JSON)", "xgboost-model.json")
    if b'"tree_info"' in start or b'"tree_sizes"' in start:
        raise Unrecognised(f"{path.name} is LightGBM's dump, which cannot be loaded: write Booster.save_model's text")
    if b'"model_type"' in start or b'"architectures"' in start:
        raise Unrecognised(f"{path.name} is a transformers configuration: give the folder that save_pretrained wrote")
    raise Unrecognised(f"{path.name} is JSON, but of no model that is known here (XGBoost's has a learner)")


# ------------------------------------------------------------------------------------------------------ zip archives
def _zip(path: Path) -> Recognised:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise Unrecognised(f"{path.name} begins like a zip archive and is none: {error}") from None
    tails = {name.partition("/")[2] or name for name in names}
    if "schema.json" in names:
        return Recognised("eyrie/sklearn", "a scikit-learn model (skops)", "model.skops")
    if "bundle.json" in names:
        return Recognised("eyrie/sparkml", "an MLeap bundle", "bundle.zip")
    if any(name.endswith("serialized_exported_program.json") for name in names) or "archive_format" in tails:
        return Recognised("eyrie/pytorch", "a PyTorch program (torch.export)", "model.pt2")
    if "constants.pkl" in tails:
        return Recognised("eyrie/pytorch", "a PyTorch module (TorchScript)", "model.pt")
    if "data.pkl" in tails:
        raise Unrecognised(
            f"{path.name} holds PyTorch weights without the model's code: give it with --code inference.py, "
            "or write torch.export.save or torch.jit.script(model).save"
        )
    if "model.weights.h5" in names:
        raise Unrecognised(f"{path.name} is a Keras file: write a SavedModel (model.export(folder)), give the folder")
    if names and all(name.endswith(".npy") for name in names):
        raise Unrecognised(f"{path.name} is a NumPy archive, no model")
    raise Unrecognised(f"{path.name} is a zip archive of no model that is known here: unpack it and give the folder")


# ----------------------------------------------------------------------------------------------------- protocol buffers
def _by_fields(path: Path, start: bytes) -> Recognised | None:
    """ONNX and TensorFlow graphs are messages without a mark: told by which fields they have."""
    if start[:1] != b"\x08":  # field 1, a small number: both begin so
        return None
    found = dict(fields(start))
    if found.get(7) == 2 and found.get(1) == 0:  # ModelProto: graph, ir_version
        return Recognised("eyrie/onnx", "an ONNX graph", "model.onnx")
    if found.get(2) == 2 and (path.name == "saved_model.pb" or set(found) <= {1, 2}):
        raise Unrecognised(f"{path.name} is a SavedModel's graph alone: give the folder, its variables included")
    return None


def fields(message: bytes) -> Iterator[tuple[int, int]]:
    """Number and wire type of each top-level field, as far as the bytes go; it stops where they make no sense."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if number == 0 or kind not in (0, 1, 2, 5):
            return
        yield number, kind
        if kind == 2:
            size, at = _varint(message, at)
            at += size
        elif kind == 0:
            _, at = _varint(message, at)
        else:
            at += 8 if kind == 1 else 4


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, at


# -------------------------------------------------------------------------------------------------------------- pickles
def _pickle(path: Path, start: bytes) -> Recognised:
    """A pickled model, by the module of its class."""
    name = class_of(start)
    root = name.partition(".")[0]
    if root == "xgboost":
        return Recognised("eyrie/xgboost", f"a pickled {name}", "model.pkl")
    if root == "lightgbm":
        return Recognised("eyrie/lightgbm", f"a pickled {name}", "model.pkl")
    if root in _SKLEARN_LIKE:
        return Recognised("eyrie/sklearn", f"a pickled {name}", "model.joblib")
    if root == "torch":
        raise Unrecognised(f"{path.name} is a pickled {name}: PyTorch's pickles need code (--code inference.py)")
    raise Unrecognised(
        f"{path.name} is a pickled {name or 'something'}: say which image serves it (--image eyrie/sklearn), "
        "or give its code (--code inference.py)"
    )


def class_of(start: bytes) -> str:
    """Module and name of the object that a pickle holds, by its first opcodes; "dict" and the like for a collection."""
    strings: list[str] = []
    plain = {"EMPTY_DICT": "dict", "EMPTY_LIST": "list", "EMPTY_TUPLE": "tuple", "EMPTY_SET": "set"}
    first = True
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(start)):
            if opcode.name in ("PROTO", "FRAME") and count < OPCODES_MAX:
                continue
            if count >= OPCODES_MAX or (first and opcode.name in plain):
                return plain.get(opcode.name, "")
            first = False
            name = ""
            if isinstance(argument, str) and "UNICODE" in opcode.name:
                strings.append(argument)
            elif opcode.name == "GLOBAL":
                name = str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                name = ".".join(strings[-2:])
            if name and name.partition(".")[0] not in _SAYS_NOTHING:
                return name
    except ValueError:  # arrays of joblib's stand between the opcodes, or the bytes end
        pass
    return ""


def unpacked(start: bytes) -> bytes:
    """The beginning of what a compressed file holds, for the kinds that joblib writes; else the bytes themselves."""
    try:
        if start[:2] == b"\x1f\x8b":
            return zlib.decompressobj(wbits=31).decompress(start, UNPACKED_BYTES_MAX)
        if start[:1] == b"\x78":
            return zlib.decompressobj().decompress(start, UNPACKED_BYTES_MAX)
        if start[:3] == b"BZh":
            return bz2.BZ2Decompressor().decompress(start, UNPACKED_BYTES_MAX)
        if start[:6] == b"\xfd7zXZ\x00" or start[:3] == b"]\x00\x00":
            return lzma.LZMADecompressor().decompress(start, UNPACKED_BYTES_MAX)
    except (zlib.error, OSError, lzma.LZMAError, EOFError):
        return start
    return start


def is_tar(path: Path) -> bool:
    """Whether a file is a tar archive, compressed or not: what model.tar.gz is, whatever its name."""
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    opened = unpacked(start)
    return len(opened) >= 262 and opened[257:262] == b"ustar"


def json_of(path: Path, bytes_max: int = 4_194_304) -> dict[str, object]:
    """A small JSON object; {} for anything else."""
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= bytes_max else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
