"""What keeps the user code of several containers, or of several models, apart in one process.

Each has a scope: its own modules, its own environment variables, its own mark in the log. Alone in its process, a
container needs none and gets none.

- Modules: the container's code folders become a package of their own (`_container_0`, say), and `import utils` in its
  code means `_container_0.utils`: its modules are run with an `__import__` of their own. Two containers may both have
  an `inference.py` and a `utils.py`. A pickle that names `utils.Thing` finds the container's own while it is loaded.
- Environment: `os.environ` gives each container its own variables over those that all share, in the threads that run
  its code. Threads that user code itself starts see the shared ones.
- Not apart: what libraries keep for a whole process (random state, default dtypes, warning filters), the working
  directory, the C library's `getenv`, and a crash. Built requirements are found by all: containers whose requirements
  disagree cannot share a process, and are refused (`requirements`).
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from eyrie.modelserver.log import SPEAKER

CURRENT: ContextVar[Scope | None] = ContextVar("CURRENT", default=None)  # whose code this thread runs


class Scope:
    """One container's, or one model's, surroundings."""

    def __init__(self, package: str, label: str, folders: Sequence[str], env: Mapping[str, str]) -> None:
        """`package`: the name of its package, unique in this process; `label`: its mark in the log, or ""; `folders`:
        its code, the first one first; `env`: its variables.
        """
        self.package = package
        self.label = label
        self.folders = list(folders)
        self.env: dict[str, str | None] = dict(env)  # None: deleted here
        self.names: frozenset[str] = frozenset()  # of its own modules; known once it is open
        self.builtins = dict(vars(builtins), __import__=self._import)
        self.loading = False

    def open(self) -> None:
        """Make its modules importable, and its variables readable."""
        finder = _finder()
        finder.forget_aliases()
        self.names = frozenset(name for folder in self.folders for name in _importable(Path(folder)))
        module = ModuleType(self.package)
        module.__path__ = list(self.folders)
        sys.modules[self.package] = module
        finder.scopes[self.package] = self
        if not isinstance(os.environ, ScopedEnviron):
            os.environ = ScopedEnviron(os.environ)  # noqa: B003  # it holds what the old one holds

    def close(self) -> None:
        """Forget its modules."""
        _finder().scopes.pop(self.package, None)
        for name in [n for n in sys.modules if n == self.package or n.startswith(self.package + ".")]:
            del sys.modules[name]
        _finder().forget_aliases()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Run code of this scope in this thread."""
        token, speaker = CURRENT.set(self), SPEAKER.set(self.label)
        try:
            yield
        finally:
            CURRENT.reset(token)
            SPEAKER.reset(speaker)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Load in this scope: its modules are found under their plain names too, for pickles. One scope at a time."""
        self.open()
        self.loading = True
        try:
            with self.entered():
                yield
        except BaseException:
            self.close()
            raise
        finally:
            self.loading = False
            _finder().forget_aliases()

    def module(self, name: str) -> ModuleType:
        """One of its modules, imported if need be."""
        return importlib.import_module(f"{self.package}.{name}")

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """`__import__` of its modules: its own names mean its own modules."""
        top = name.partition(".")[0]
        if level or top not in self.names:
            return __import__(name, globals, locals, fromlist or (), level)
        if isinstance(fromlist, list):  # the C interface, which will look under the plain name: an unpickler
            return importlib.import_module(name)
        leaf = __import__(f"{self.package}.{name}", globals, locals, fromlist or (), 0)
        return leaf if fromlist else sys.modules[f"{self.package}.{top}"]


def _importable(folder: Path) -> Iterator[str]:
    """The top-level names that a folder of code offers, as they would be found behind what is imported already."""
    endings = importlib.machinery.all_suffixes()
    for entry in folder.iterdir() if folder.is_dir() else ():
        name = entry.name.partition(".")[0]
        if name and name not in sys.modules and (_is_module(entry, name, endings) or _is_package(entry, name)):
            yield name


def _is_module(entry: Path, name: str, endings: Sequence[str]) -> bool:
    return any(entry.name == name + ending for ending in endings) or (entry / "__init__.py").is_file()


def _is_package(entry: Path, name: str) -> bool:
    """A folder of code without `__init__.py`; it counts only where nothing else of that name is installed."""
    return entry.is_dir() and any(entry.glob("*.py")) and importlib.util.find_spec(name) is None


class _Finder:
    """On sys.meta_path: finds modules of scopes under their own names and, while pickles are read, under plain ones."""

    def __init__(self) -> None:
        self.scopes: dict[str, Scope] = {}

    def contested(self, scope: Scope) -> frozenset[str]:
        """The names of a scope that another one has too."""
        others = (other.names for other in self.scopes.values() if other is not scope)
        return scope.names.intersection(*[frozenset().union(*others)])

    def forget_aliases(self) -> None:
        """Drop the plain names of all scopes' modules: the next scope may have the same ones."""
        for name, module in list(sys.modules.items()):
            own = getattr(module, "__name__", None) or ""
            if own != name and own.partition(".")[0] in self.scopes:
                del sys.modules[name]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The protocol of sys.meta_path."""
        top, _, rest = name.partition(".")
        owner = self.scopes.get(top)
        if owner is not None and rest:
            return _own_spec(owner, name, path)
        scope = CURRENT.get()
        if scope is None or top not in scope.names:
            return None
        if not scope.loading and top in self.contested(scope):
            raise ImportError(f"several containers of this process have a module {top!r}: use an import statement")
        return importlib.machinery.ModuleSpec(name, _Alias(scope))


def _finder() -> _Finder:
    """This process's finder, in front of all others."""
    for found in sys.meta_path:
        if isinstance(found, _Finder):
            return found
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    return finder


def _own_spec(scope: Scope, name: str, path: Sequence[str] | None) -> importlib.machinery.ModuleSpec | None:
    spec = importlib.machinery.PathFinder.find_spec(name, path)
    if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
        spec.loader = _Own(scope, spec.loader.name, spec.loader.path)
    return spec


class _Own(importlib.machinery.SourceFileLoader):
    """Runs a module of a scope with the scope's own `__import__`."""

    def __init__(self, scope: Scope, name: str, path: str) -> None:
        super().__init__(name, path)
        self._scope = scope

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        module.__dict__["__builtins__"] = self._scope.builtins
        super().exec_module(module)


class _Alias(importlib.abc.Loader):
    """Gives a plain name the module that a scope knows by its own."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._spec: importlib.machinery.ModuleSpec | None = None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The scope's module."""
        module = self._scope.module(spec.name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; the import system has put the alias's spec over its own."""
        module.__spec__ = self._spec


class ScopedEnviron(os._Environ[str]):
    """`os.environ` where a thread that runs a scope's code sees and changes that scope's variables."""

    def __init__(self, whole: os._Environ[str]) -> None:
        super().__init__(
            whole._data,  # type: ignore[attr-defined]  # shared, so that older references see the same
            whole.encodekey,
            whole.decodekey,
            whole.encodevalue,
            whole.decodevalue,
        )

    def __getitem__(self, key: str) -> str:
        scope = CURRENT.get()
        if scope is not None and key in scope.env:
            value = scope.env[key]
            if value is None:
                raise KeyError(key)
            return value
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: str) -> None:
        scope = CURRENT.get()
        if scope is None:
            super().__setitem__(key, value)
        else:
            self.encodekey(key), self.encodevalue(value)  # TypeError for what is no text, as ever
            scope.env[key] = value

    def __delitem__(self, key: str) -> None:
        scope = CURRENT.get()
        if scope is None:
            super().__delitem__(key)
        else:
            self[key]  # KeyError where there is none
            scope.env[key] = None

    def __iter__(self) -> Iterator[str]:
        scope = CURRENT.get()
        if scope is None:
            yield from super().__iter__()
            return
        yield from [key for key, value in scope.env.items() if value is not None]
        yield from [key for key in super().__iter__() if key not in scope.env]

    def __len__(self) -> int:
        return sum(1 for _ in self)
