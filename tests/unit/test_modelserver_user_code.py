"""User code in every form that the serving toolkits take, and what is said about code that cannot be served."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from eyrie.modelserver import codecs
from eyrie.modelserver.app import report_failure
from eyrie.modelserver.codecs import CSV, JSON, BadPayload, NotAcceptable, UnsupportedType
from eyrie.modelserver.environment import extend_path
from eyrie.modelserver.frameworks.interface import Answer, CallModel, Invocation, LoadError, Source
from eyrie.modelserver.loader import code_paths, load, script_path
from eyrie.modelserver.replier import status_of

MODEL_FN = """
    def model_fn(model_dir):
        return 10
"""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    (tmp_path / "model" / "code").mkdir(parents=True)
    path, modules = list(sys.path), set(sys.modules)
    yield Source(tmp_path, {})
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", "") or ""):
            del sys.modules[name]


def write(source: Source, code: str, name: str = "inference.py") -> Path:
    path = source.model_dir / "code" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(code))
    return path


def serve(source: Source, code: str = "", **env: str) -> CallModel:
    if code:
        write(source, code)
    source = replace(source, env=env)
    extend_path(code_paths(source, script_path(source)))
    model = load(source)
    assert isinstance(model, CallModel)
    return model


def call(model: CallModel, body: bytes | str, content_type: str = JSON, accept: str = "", **headers: str) -> Answer:
    data = body.encode() if isinstance(body, str) else body
    return model.call(Invocation(data, content_type, accept, {k.replace("_", "-"): v for k, v in headers.items()}))


def test_four_functions(source: Source) -> None:
    model = serve(
        source,
        """
        import json
        def model_fn(model_dir):
            return {"dir": model_dir, "factor": 10}
        def input_fn(body, content_type):
            assert content_type == "application/json", content_type
            return json.loads(body)
        def predict_fn(value, model):
            return [v * model["factor"] for v in value]
        def output_fn(prediction, accept):
            return json.dumps({"accept": accept, "out": prediction}), "application/json"
        """,
    )
    answer = call(model, "[1, 2]", accept="text/x-mine")
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert json.loads(answer.body) == {"accept": "text/x-mine", "out": [10, 20]}
    assert "inference.py (model_fn, input_fn, predict_fn, output_fn)" in model.title


def test_transform_fn(source: Source) -> None:
    model = serve(
        source,
        MODEL_FN
        + """
    def transform_fn(model, data, content_type, accept):
        return f"{model} {data} {content_type} {accept}"
    """,
    )
    answer = call(model, "x", "text/csv", "text/plain")
    assert answer.body == b"10 x text/csv text/plain"
    assert answer.content_type == "text/plain"


def test_both_forms_are_an_error(source: Source) -> None:
    write(
        source,
        MODEL_FN
        + """
    def transform_fn(model, data, content_type, accept): ...
    def predict_fn(value, model): ...
    """,
    )
    with pytest.raises(LoadError, match="transform_fn and predict_fn"):
        load(source)


@pytest.mark.parametrize("where", ["", "def model_fn(model_dir): "])
def test_code_that_ends_the_process_is_why_the_model_cannot_be_loaded(source: Source, where: str) -> None:
    write(source, f"import sys\n{where}sys.exit('no licence')")
    with pytest.raises(LoadError, match=r"ends the process: sys\.exit\('no licence'\)"):
        load(source)


def test_context_is_given_to_those_who_take_it(source: Source) -> None:
    model = serve(
        source,
        """
        def model_fn(model_dir, context):
            return context.system_properties["model_dir"]
        def input_fn(body, content_type, context=None):
            return context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")
        def predict_fn(value, model):
            return f"{value} in {model}"
        def output_fn(prediction, accept, ctx):
            ctx.set_response_content_type(0, "text/x-own")
            ctx.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "back")
            ctx.set_response_status(202)
            return prediction
        """,
    )
    answer = call(model, "x", **{"x-amzn-sagemaker-custom-attributes": "trace=1"})
    assert answer.body.decode() == f"trace=1 in {source.model_dir}"
    assert (answer.status, answer.content_type) == (202, "text/x-own")
    assert answer.headers == (("X-Amzn-SageMaker-Custom-Attributes", "back"),)


@pytest.mark.parametrize("status", [0, 99, 100, 199, 600])
def test_a_status_that_no_reply_may_have_is_an_error_of_the_user_code(source: Source, status: int) -> None:
    more = f"    def predict_fn(value, model, context):\n        context.set_response_status({status})\n"
    model = serve(source, MODEL_FN + more)
    with pytest.raises(ValueError, match=f"set_response_status.{status}.: the status of a reply is from 200 to 599"):
        call(model, "[[2]]")


def test_an_argument_of_the_users_own_is_not_the_context(source: Source) -> None:
    model = serve(source, MODEL_FN + "    def predict_fn(value, model, factor=3):\n        return value * factor\n")
    assert json.loads(call(model, "[[2]]").body) == [[6.0]]


def test_defaults_of_scikit_learns_container(source: Source) -> None:
    pytest.importorskip("sklearn")
    import joblib
    from sklearn.linear_model import LinearRegression

    rows = np.random.default_rng(1).normal(size=(20, 3))
    trained = LinearRegression().fit(rows, rows.sum(axis=1))
    joblib.dump(trained, source.model_dir / "model.joblib")
    model = serve(
        source,
        "import joblib, os\ndef model_fn(folder):\n    return joblib.load(os.path.join(folder, 'model.joblib'))\n",
    )
    expected = trained.predict(rows.astype(np.float32))
    as_csv = "\n".join(",".join(map(repr, row)) for row in rows.tolist())
    assert json.loads(call(model, as_csv, CSV).body) == expected.tolist()
    assert json.loads(call(model, json.dumps(rows.tolist())).body) == expected.tolist()
    answer = call(model, codecs.encode_npy(rows), codecs.NPY, codecs.NPY)
    assert answer.body == codecs.encode_npy(trained.predict(rows))
    assert call(model, as_csv, CSV, "text/csv").body.splitlines()[0] == str(float(expected[0])).encode()
    assert call(model, as_csv, CSV, "image/png, */*;q=0.1").content_type == JSON
    with pytest.raises(UnsupportedType):
        call(model, b"x", "image/png")
    with pytest.raises(NotAcceptable):
        call(model, as_csv, CSV, "image/png")
    with pytest.raises(BadPayload, match="Unable to evaluate payload provided"):
        call(model, "1,2", CSV)


def test_without_model_fn_the_folders_model_is_loaded(source: Source) -> None:
    pytest.importorskip("sklearn")
    import joblib
    from sklearn.dummy import DummyRegressor

    joblib.dump(DummyRegressor(strategy="constant", constant=4.0).fit([[0]], [1]), source.model_dir / "model.joblib")
    model = serve(source, "def predict_fn(value, model):\n    return model.predict(value) + 1\n")
    assert json.loads(call(model, "[[1]]").body) == [5.0]
    joblib.dump(1, source.model_dir / "other.joblib")
    joblib.dump(1, source.model_dir / "third.joblib")
    (source.model_dir / "model.joblib").unlink()
    with pytest.raises(LoadError, match="write a model_fn"):
        load(source)


def test_defaults_of_xgboosts_container(source: Source) -> None:
    xgboost = pytest.importorskip("xgboost")
    rows = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(rows, rows.sum(axis=1)), 2)
    booster.save_model(source.model_dir / "xgboost-model.json")
    expected = booster.predict(xgboost.DMatrix(rows)).tolist()
    code = """
    import os, xgboost
    def model_fn(model_dir):
        booster = xgboost.Booster()
        booster.load_model(os.path.join(model_dir, "xgboost-model.json"))
        return booster
    """
    as_csv = "\n".join(",".join(map(repr, row)) for row in rows.tolist())
    assert json.loads(call(serve(source, code), as_csv, CSV).body) == expected
    empty = serve(source, "GREETING = 1\n")
    assert json.loads(call(empty, as_csv, CSV).body) == expected
    with pytest.raises(BadPayload, match="Unable to evaluate"):
        call(empty, "1,2,3,4", CSV)


def test_the_program_may_have_another_name_and_place(source: Source) -> None:
    write(source, MODEL_FN + "    def predict_fn(value, model):\n        return 'root'\n", "serve.py")
    write(source, "def model_fn(d): return 1\ndef predict_fn(value, model): return 'deep'\n", "src/entry.py")
    assert json.loads(call(serve(source, SAGEMAKER_PROGRAM="serve.py"), "[1]").body) == "root"
    assert json.loads(call(serve(source, SAGEMAKER_PROGRAM="src/entry.py"), "[1]").body) == "deep"
    with pytest.raises(LoadError, match=r"SAGEMAKER_PROGRAM is 'no\.py'"):
        serve(source, SAGEMAKER_PROGRAM="no.py")


def test_the_submit_directory_is_the_containers_path(source: Source) -> None:
    folder = source.model_dir / "elsewhere"
    folder.mkdir()
    (folder / "inference.py").write_text("def model_fn(d): return 1\ndef predict_fn(v, m): return 'elsewhere'\n")
    model = serve(source, SAGEMAKER_SUBMIT_DIRECTORY="/opt/ml/model/elsewhere")
    assert json.loads(call(model, "[1]").body) == "elsewhere"
    write(source, "def model_fn(d): return 1\ndef predict_fn(v, m): return 'code'\n")
    model = serve(source, SAGEMAKER_SUBMIT_DIRECTORY="s3://bucket/sourcedir.tar.gz")
    assert json.loads(call(model, "[1]").body) == "code"


def test_modules_beside_it_in_lib_and_in_the_requirements_are_found(source: Source) -> None:
    write(source, "NAME = 'beside'\n", "beside_module.py")
    write(source, "NAME = 'lib'\n", "lib/lib_module.py")
    (source.ml / "deps").mkdir()
    (source.ml / "deps" / "deps_module.py").write_text("NAME = 'deps'\n")
    model = serve(
        source,
        """
        import beside_module, lib_module, deps_module
        def model_fn(model_dir):
            return [m.NAME for m in (beside_module, lib_module, deps_module)]
        def predict_fn(value, model):
            return model
        """,
    )
    assert json.loads(call(model, "[1]").body) == ["beside", "lib", "deps"]


@pytest.mark.parametrize(
    ("returned", "body", "kind"),
    [
        ("b'bytes'", b"bytes", JSON),
        ("'text'", b"text", JSON),
        ("bytearray(b'x')", b"x", JSON),
        ("None", b"", JSON),
        ("{'a': 1}", b'{"a": 1}', JSON),
        ("[1, 2]", b"[1, 2]", JSON),
        ("('a,b', 'text/csv')", b"a,b", CSV),
        ("(b'z', 'image/png')", b"z", "image/png"),
    ],
)
def test_what_output_fn_may_return(returned: str, body: bytes, kind: str, source: Source) -> None:
    code = f"def model_fn(d): return 1\ndef predict_fn(v, m): return v\ndef output_fn(p, a): return {returned}\n"
    answer = call(serve(source, code), "[1]")
    assert (answer.body, answer.content_type) == (body, kind)


def test_json_and_csv_arrive_as_text_and_everything_else_as_bytes(source: Source) -> None:
    code = """
    def model_fn(d): return 1
    def input_fn(body, content_type): return type(body).__name__
    def predict_fn(v, m): return v
    """
    model = serve(source, code)
    kinds = ["application/json; charset=utf-8", CSV, "image/png", "application/jsonlines", ""]
    assert [json.loads(call(model, "1", kind).body) for kind in kinds] == ["str", "str", "bytes", "bytes", "str"]
    with pytest.raises(BadPayload, match="not UTF-8"):
        call(model, b"\xff", JSON)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def model_fn(): return 1\n", "model_fn in inference.py must take 1 arguments, or 2 with the context"),
        ("def model_fn(d): return 1\ninput_fn = 3\n", "input_fn in inference.py is not a function"),
        ("def model_fn(d): return 1\ndef predict_fn(v): return 1\n", "predict_fn in inference.py must take 2"),
    ],
)
def test_functions_of_the_wrong_shape(code: str, words: str, source: Source) -> None:
    write(source, code)
    with pytest.raises(LoadError) as caught:
        load(source)
    assert words in str(caught.value)


@pytest.mark.parametrize("workers", ["0", "-1", "many", "65"])
def test_the_number_of_workers_is_checked(workers: str, source: Source) -> None:
    with pytest.raises(LoadError, match="SAGEMAKER_MODEL_SERVER_WORKERS"):
        serve(source, MODEL_FN, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    assert serve(source, SAGEMAKER_MODEL_SERVER_WORKERS="3").workers == 3


def test_an_exception_may_name_its_status() -> None:
    class Toolkit(Exception):
        status_code = 422

    class Odd(Exception):
        status_code = "no"

    assert [status_of(error) for error in (Toolkit(), Odd(), ValueError(), BadPayload("x"))] == [422, 500, 500, 400]


def test_code_that_fails_at_import_is_traced_and_summed_up(source: Source, caplog: Any) -> None:
    write(source, "import there_is_no_such_module\n")
    with pytest.raises(ModuleNotFoundError) as caught:
        load(source)
    assert "inference" not in sys.modules
    report_failure(caught.value)
    assert "Traceback" in caplog.records[0].getMessage()
    last = caplog.records[-1].getMessage()
    assert last.startswith("The model could not be loaded: the module 'there_is_no_such_module' is missing")
    assert "\n" not in last


def test_a_plain_refusal_has_no_traceback(caplog: Any) -> None:
    report_failure(LoadError("nothing\nhere"))
    assert [record.getMessage() for record in caplog.records] == ["The model could not be loaded: nothing here"]
