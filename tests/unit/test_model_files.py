"""What `eyrie deploy` makes of files: told by their content, refused in one line where it cannot be told."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import joblib
import pytest
import xgboost
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eyrie.adapters.model_files import Unrecognised, class_of, fields, recognise
from eyrie.adapters.model_pack import Unpackable, folder, pack

ROWS = [[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]


def loaded() -> None:
    pytest.fail("the pickle was loaded")


def booster() -> Any:
    return xgboost.train({}, xgboost.DMatrix(ROWS, [0.0, 1.0, 2.0]), 2)


def estimator() -> Any:
    return make_pipeline(StandardScaler(), LinearRegression()).fit(ROWS, [0.0, 1.0, 2.0])


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return path


def varint(number: int, value: int) -> bytes:
    return bytes([number << 3, value])


def piece(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


ONNX = varint(1, 8) + piece(2, b"maker") + piece(7, b"graph") + piece(8, b"\x10\x0f")
SAVED = varint(1, 1) + piece(2, b"meta graph")


def test_real_models_are_told_whatever_their_names(tmp_path: Path) -> None:
    made = tmp_path / "thing"
    for form, place in (("json", "xgboost-model.json"), ("ubj", "xgboost-model.ubj")):
        named = tmp_path / f"m.{form}"
        booster().save_model(named)
        made.write_bytes(named.read_bytes())
        assert (recognise(made).image, recognise(made).place) == ("eyrie/xgboost", place)
    for packing in (0, 3, ("bz2", 3), ("xz", 3), ("gzip", 3)):
        joblib.dump(estimator(), made, compress=packing)
        assert recognise(made).image == "eyrie/sklearn", packing
        assert "sklearn.pipeline.Pipeline" in recognise(made).what
    made.write_bytes(pickle.dumps(booster()))
    assert recognise(made).image == "eyrie/xgboost"
    made.write_bytes(pickle.dumps(xgboost.XGBRegressor().fit(ROWS, [0, 1, 2])))
    assert recognise(made).image == "eyrie/xgboost"


@pytest.mark.parametrize(
    ("content", "image"),
    [
        (b"tree\nversion=v4\n", "lightgbm"),
        (b"tree\r\nversion", "lightgbm"),
        (ONNX, "onnx"),
        (b"\x20\0\0\0ORTM", "onnx"),
    ],
)
def test_marks_at_the_beginning_tell(tmp_path: Path, content: bytes, image: str) -> None:
    (tmp_path / "m").write_bytes(content)
    assert recognise(tmp_path / "m").image == f"eyrie/{image}"


def test_zip_archives_are_told_by_their_members(tmp_path: Path) -> None:
    assert recognise(zipped(tmp_path / "a", "m/data.pkl", "m/constants.pkl", "m/version")).place == "model.pt"
    assert recognise(zipped(tmp_path / "b", "serialized_exported_program.json")).place == "model.pt2"
    assert recognise(zipped(tmp_path / "c", "schema.json", "1.npy")).place == "model.skops"
    assert recognise(zipped(tmp_path / "d", "bundle.json", "root/model.json")).image == "eyrie/sparkml"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.pkl", pickle.dumps({"model": 1}), "a pickled dict"),
        ("m.bin", b"no model at all", "--image"),
        ("m.json", b'{"a": 1}', "is JSON"),
        ("m.json", b'{"tree_info": []}', "save_model"),
        ("config.json", b'{"model_type": "bert"}', "save_pretrained"),
        ("saved_model.pb", SAVED, "give the folder"),
        ("m.h5", b"\x89HDF\r\n\x1a\n", "SavedModel"),
        ("m.safetensors", b"\x40\0\0\0\0\0\0\0" + b'{"w":{"dtype":"F32"}}', "save_pretrained"),
        ("m.model", b"binf\0\0", "older"),
        ("m.py", b"x = 1\n", "model_fn"),
        ("m.py", b"def (", "no Python"),
        ("m.bin", b"", "is empty"),
        ("m.pkl", pickle.dumps(io.StringIO), "io.StringIO"),
    ],
)
def test_what_cannot_be_served_is_one_line_that_says_what_to_do(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unrecognised, match=said) as refused:
        recognise(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_weights_without_code_say_so(tmp_path: Path) -> None:
    with pytest.raises(Unrecognised, match="--code"):
        recognise(zipped(tmp_path / "w.pt", "w/data.pkl", "w/data/0", "w/version"))


def test_nothing_of_a_pickle_runs() -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[()]]:
            return (loaded, ())

    assert class_of(pickle.dumps(Trap())) == "test_model_files.loaded"


def test_fields_stop_where_bytes_make_no_sense() -> None:
    assert list(fields(ONNX)) == [(1, 0), (2, 2), (7, 2), (8, 2)]
    assert list(fields(b"\x08")) == [(1, 0)]
    assert list(fields(b"\x0f\x01")) == []


def test_a_file_is_packed_under_the_name_that_the_server_looks_for(tmp_path: Path) -> None:
    model, scratch = tmp_path / "my model.bin", tmp_path / "s"
    scratch.mkdir()
    joblib.dump(estimator(), model)
    first = pack(model, None, None, scratch)
    with tarfile.open(first.archive) as tar:
        assert tar.getnames() == ["model.joblib"]
    again = pack(model, None, None, scratch)
    assert again.digest == first.digest  # no times in it: the same bytes for the same model


def test_folders_and_archives_are_looked_into(tmp_path: Path) -> None:
    top, scratch = tmp_path / "hf", tmp_path / "s"
    top.mkdir()
    scratch.mkdir()
    (top / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(Unrecognised, match="no weights"):
        folder(top)
    (top / "model.safetensors").write_bytes(b"x")
    assert folder(top).image == "eyrie/huggingface"
    saved = tmp_path / "tf"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(SAVED)
    packed = pack(saved, None, None, scratch)
    with tarfile.open(packed.archive) as tar:
        assert tar.getnames() == ["1/saved_model.pb"]
    whole = tmp_path / "model.tar.gz"
    with tarfile.open(whole, "w:gz") as tar:
        joblib.dump(estimator(), tmp_path / "m.joblib")
        tar.add(tmp_path / "m.joblib", "m.joblib")
    sent = pack(whole, None, None, scratch)
    assert (sent.archive, sent.model.image) == (whole, "eyrie/sklearn")  # as it is


def test_several_kinds_in_a_folder_are_named(tmp_path: Path) -> None:
    booster().save_model(tmp_path / "a.ubj")
    joblib.dump(estimator(), tmp_path / "b.joblib")
    (tmp_path / "README.md").write_text("text")
    with pytest.raises(Unrecognised, match=r"2 kinds .a\.ubj.*b\.joblib"):
        folder(tmp_path)
    (tmp_path / "a.ubj").unlink()
    assert folder(tmp_path).image == "eyrie/sklearn"


def test_code_goes_beside_the_model(tmp_path: Path) -> None:
    weights = zipped(tmp_path / "w.pt", "w/data.pkl", "w/version")
    code, scratch = tmp_path / "serve.py", tmp_path / "s"
    scratch.mkdir()
    code.write_text("def model_fn(folder):\n    return None\n")
    packed = pack(weights, code, None, scratch)
    with tarfile.open(packed.archive) as tar:
        assert sorted(tar.getnames()) == ["code/inference.py", "w.pt"]
    alone = pack(code, None, None, scratch)
    assert alone.model.image == "eyrie/python"
    with pytest.raises(Unpackable, match="there is no"):
        pack(tmp_path / "absent", None, None, scratch)
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(gzip.compress(b"\0" * 257 + b"ustar" + b"\0" * 300)[:40])
    with pytest.raises(Unpackable) as refused:
        pack(broken, None, None, scratch)
    assert "\n" not in str(refused.value)
