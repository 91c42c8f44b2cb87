"""User code of several containers in one process: whose module, whose variable, whose pickle."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from eyrie.modelserver.scope import CURRENT, Scope, ScopedEnviron


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Scope]]:
    path, environ, finders = list(sys.path), os.environ, list(sys.meta_path)
    scopes: list[Scope] = []

    def scope(number: int, env: dict[str, str] | None = None, **files: str) -> Scope:
        folder = tmp_path / str(number)
        for name, text in files.items():
            target = folder / (name.replace("__", "/") + ".py")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(dedent(text))
        made = Scope(f"_container_{number}", f"c-{number}", [str(folder)], env or {})
        scopes.append(made)
        return made

    yield scope
    for made in scopes:
        made.close()
    sys.path[:], os.environ, sys.meta_path[:] = path, environ, finders


def loaded(scope: Scope, name: str = "inference") -> Any:
    with scope.opened():
        return scope.module(name)


def test_two_containers_have_modules_of_the_same_names(make: Callable[..., Scope]) -> None:
    script = """
        import utils
        from utils import NAME as early
        def late():
            import utils as again
            from utils import NAME
            import package.inner
            from package import inner as other
            return (early, utils.NAME, again.NAME, NAME, package.inner.WHO, other.WHO)
    """
    first = make(
        0,
        inference=script,
        utils="NAME = 'a'",
        package____init__="",
        package__inner="import utils\nWHO = utils.NAME * 2",
    )
    second = make(
        1,
        inference=script,
        utils="NAME = 'b'",
        package____init__="",
        package__inner="from .deep import WHO",
        package__deep="import utils\nWHO = utils.NAME * 3",
    )
    one, two = loaded(first), loaded(second)
    assert one.late() == ("a", "a", "a", "a", "aa", "aa")
    assert two.late() == ("b", "b", "b", "b", "bbb", "bbb")
    assert not {"utils", "inference", "package"} & set(sys.modules)


def test_what_is_not_a_containers_own_is_imported_as_ever(make: Callable[..., Scope]) -> None:
    scope = make(0, inference="import json, os.path\nfrom collections import abc\nimport decimal as d\n")
    module = loaded(scope)
    assert module.json is sys.modules["json"]
    assert module.os is os
    assert module.abc is sys.modules["collections.abc"]
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        loaded(make(1, inference="import no_such_module"))


def test_a_folder_of_data_hides_no_installed_module(make: Callable[..., Scope], tmp_path: Path) -> None:
    (tmp_path / "0" / "decimal").mkdir(parents=True)
    (tmp_path / "0" / "wave").mkdir()
    (tmp_path / "0" / "wave" / "extra.py").write_text("")
    scope = make(0, inference="import decimal, wave")
    assert loaded(scope).decimal.__name__ == "decimal"
    assert scope.names == {"inference"}  # neither a folder of data nor, installed as it is, `wave`


def test_a_pickle_finds_the_classes_of_its_own_container(make: Callable[..., Scope]) -> None:
    script = """
        import pickle
        from parts import Part
        def read(data):
            return pickle.loads(data)
        def write():
            return pickle.dumps(Part())
    """
    first = make(0, inference=script, parts="class Part:\n    who = 'a'")
    second = make(1, inference=script, parts="class Part:\n    who = 'b'")
    trained = b"\x80\x04\x8c\x05parts\x8c\x04Part\x93)\x81."  # as a training script wrote it, under the plain name
    for scope, who in ((first, "a"), (second, "b")):
        with scope.opened():
            thing = scope.module("inference").read(trained)
        assert thing.who == who
        assert type(thing) is scope.module("parts").Part
        with scope.entered():
            assert scope.module("inference").read(scope.module("inference").write()).who == who
    assert "parts" not in sys.modules
    with first.entered(), pytest.raises(ImportError, match="several containers of this process have a module 'parts'"):
        first.module("inference").read(trained)


def test_a_dynamic_import_of_a_name_that_two_have_says_so(make: Callable[..., Scope]) -> None:
    script = "import importlib\ndef late(name):\n    return importlib.import_module(name)"
    first = make(0, inference=script, utils="", mine="WHO = 'a'")
    one = loaded(first)
    loaded(make(1, inference=script, utils=""))
    with first.entered():
        assert one.late("mine").WHO == "a"
        with pytest.raises(ImportError, match="several containers of this process have a module 'utils'"):
            one.late("utils")
    assert sys.modules["mine"] is first.module("mine")
    third = make(2, inference=script, mine="WHO = 'c'")
    assert loaded(third).late("json") is sys.modules["json"]
    with third.opened():
        assert importlib.import_module("mine").WHO == "c"


def test_environment_of_each_its_own(make: Callable[..., Scope], monkeypatch: Any) -> None:
    monkeypatch.setenv("SHARED", "s")
    script = """
        import os
        AT_IMPORT = os.environ["COLOUR"]
        def now():
            return os.getenv("COLOUR"), os.environ.get("SHARED"), os.environ.get("MISSING", "-")
        def change(value):
            os.environ["COLOUR"] = value
            os.environ.pop("SHARED")
    """
    first = make(0, {"COLOUR": "red"}, inference=script)
    second = make(1, {"COLOUR": "blue"}, inference=script)
    one, two = loaded(first), loaded(second)
    assert (one.AT_IMPORT, two.AT_IMPORT) == ("red", "blue")
    with first.entered():
        one.change("pink")
        assert one.now() == ("pink", None, "-")
        assert dict(os.environ)["COLOUR"] == "pink"
        assert "SHARED" not in os.environ
        with pytest.raises(TypeError):
            os.environ["COLOUR"] = 3  # type: ignore[assignment]
        with pytest.raises(KeyError):
            del os.environ["SHARED"]
    with second.entered():
        assert two.now() == ("blue", "s", "-")
        assert len(os.environ) == len(list(os.environ)) == len(os.environ.copy())
    assert isinstance(os.environ, ScopedEnviron)
    assert "COLOUR" not in os.environ
    os.environ["LATER"] = "x"
    assert os.environ.pop("LATER") == "x"


def test_a_thread_of_the_users_own_sees_what_all_share(make: Callable[..., Scope]) -> None:
    scope = make(0, {"COLOUR": "red"}, inference="")
    loaded(scope)
    seen: list[str | None] = []
    with scope.entered():
        assert CURRENT.get() is scope
        thread = threading.Thread(target=lambda: seen.append(os.environ.get("COLOUR")))
        thread.start()
        thread.join()
    assert seen == [None]
    assert CURRENT.get() is None


def test_a_closed_scope_leaves_nothing_behind(make: Callable[..., Scope]) -> None:
    before = set(sys.modules)
    scope = make(0, inference="import utils", utils="")
    loaded(scope)
    assert f"{scope.package}.utils" in sys.modules
    scope.close()
    assert set(sys.modules) == before
    broken = make(1, inference="import utils\nraise RuntimeError('no')", utils="")
    with pytest.raises(RuntimeError, match="no"):
        loaded(broken)
    assert set(sys.modules) == before


def test_classes_can_be_pickled_while_loading_under_either_name(make: Callable[..., Scope]) -> None:
    scope = make(0, inference="class Thing:\n    pass")
    with scope.opened():
        plain = importlib.import_module("inference")
        assert plain is scope.module("inference")
        assert plain.__spec__.name == "_container_0.inference"
        data = pickle.dumps(plain.Thing())
    assert type(pickle.loads(data)).__name__ == "Thing"
