"""The examples of docs/guides/models.md run, and what they make is served as the page says."""

from __future__ import annotations

import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from eyrie.modelserver.codecs import decode
from eyrie.modelserver.frameworks.interface import CallModel, Invocation, RowModel, Source
from eyrie.modelserver.loader import load

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "models.md"


def test_the_guides_examples(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("xgboost")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python *(\S*)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    script = dict(blocks)["inference.py"]
    names: dict[str, Any] = {}
    for name, code in blocks:
        if not name:
            exec(code, names)
    rows = names["rows"]
    for folder, content in (("a", None), ("b", "xgboost-model.json"), ("c", "code")):
        target = tmp_path / folder / "model"
        target.mkdir(parents=True)
        if content == "xgboost-model.json":
            target.joinpath(content).write_bytes((tmp_path / content).read_bytes())
            continue
        with tarfile.open("model.tar.gz") as archive:
            archive.extractall(target, filter="data")
        if content == "code":
            target.joinpath("code").mkdir()
            target.joinpath("code", "inference.py").write_text(script)
    plain, scores, own = (load(Source(tmp_path / folder, {})) for folder in "abc")
    sys.modules.pop("inference", None)
    assert isinstance(plain, RowModel)
    assert plain.predict(rows).tolist() == names["pipeline"].predict(rows).tolist()
    assert isinstance(scores, RowModel)
    body = scores.encode(scores.predict(rows[:1].astype("float32")), "application/json")
    assert list(json.loads(body)["predictions"][0]) == ["score"]
    assert isinstance(own, CallModel)
    answer = own.call(Invocation(json.dumps({"rows": rows[:2].tolist()}).encode(), "application/json", ""))
    assert json.loads(answer.body) == {"chances": names["pipeline"].predict_proba(rows[:2]).tolist()}


@pytest.mark.parametrize(
    ("kind", "body"), [("text/csv", b"1,2,3"), ("application/json", b'{"instances": [[1, 2, 3]]}')]
)
def test_the_guides_table_of_content_types_is_what_is_read(kind: str, body: bytes) -> None:
    table = GUIDE.read_text().partition("## What a request may look like")[2].partition("| answer |")[0]
    from eyrie.modelserver import codecs

    for known in (codecs.CSV, codecs.JSON, codecs.JSONLINES, codecs.NPY, codecs.LIBSVM, codecs.X_LIBSVM):
        assert f"`{known}`" in table
    assert len(decode(body, kind, codecs.RowShape(width=3))) == 1
