"""The catalogue of porting mistakes, and how one is planted into a backend, or into the contract.

`faults.toml` lists the mistakes as edits of source. A planted backend is the package imported anew
from the edited source; the files and the modules imported before are left alone. The contract's
functions, to which everything refers already, get the edited code for as long as it is planted.
"""

import contextlib
import importlib.abc
import importlib.machinery
import re
import sys
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from parity.contract.recipe import DType
from parity.subjects.subject import BACKENDS

TWINS = ("torch", "jax")
"""Backends that mistakes are planted into."""

CONTRACT = "contract"
"""Where mistakes are planted that all subjects then share."""


class Edit(NamedTuple):
    """A piece of a module's source, and what takes its place."""

    module: str
    old: str
    """Stands in the source exactly once."""
    new: str

    def apply(self, source: str) -> str:
        """Return the edited source; raise ValueError if the old text is not there exactly once."""
        if source.count(self.old) != 1:
            raise ValueError(f"{self.module}: {source.count(self.old)} places read {self.old!r}")
        return source.replace(self.old, self.new)


Edits = dict[str, tuple[Edit, ...]]
"""By backend, as subjects name it; or of CONTRACT."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A porting mistake."""

    name: str
    stage: str
    """What the name of the first stage that differs begins with."""
    edits: Edits
    dtype: DType = "float32"
    """The precision in which it is a mistake."""
    only: str = ""
    """Why one of the backends cannot have it."""


def catalogue() -> list[Fault]:
    """Return all mistakes of `faults.toml`, in its order."""
    faults = []
    for entry in _toml()["faults"]:
        if "both" in entry:
            entry |= dict.fromkeys(TWINS, entry.pop("both"))
        places = [place for place in (*TWINS, CONTRACT) if place in entry]
        edits = {place: tuple(Edit(*row) for row in entry.pop(place)) for place in places}
        if "adam" in entry:
            edits = adam_by_hand(**entry.pop("adam"))
        faults.append(Fault(**entry, edits=edits))
    return faults


def adam_by_hand(**wrong: str) -> Edits:
    """Return edits to an Adam written by hand, whose expressions are right except those given."""
    adam = _toml()["adam"]
    expressions = adam["right"] | wrong
    return {
        backend: tuple(
            Edit(module, old, re.sub(r"<(\w+)>", lambda place: expressions[place[1]], new))
            for module, old, new in adam[backend]
        )
        for backend in TWINS
    }


def _toml() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def planted(backend: str, edits: Sequence[Edit]) -> contextlib.AbstractContextManager[None]:
    """Make the harness find a backend, or the contract, with edited source in this block.

    Raises:
        ValueError: an edit does not fit the source, or changes no function of the contract.
    """
    return _swapped(edits) if backend == CONTRACT else _imported_anew(BACKENDS[backend], edits)


@contextlib.contextmanager
def _imported_anew(package: str, edits: Sequence[Edit]) -> Iterator[None]:
    finder = _EditedModules(package, edits)
    before = _modules_of(package)
    for name in before:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        for edit in edits:
            importlib.import_module(f"{package}.{edit.module}")
        with warnings.catch_warnings():  # a framework may well complain of what is done to it
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.meta_path.remove(finder)
        for name in _modules_of(package):
            del sys.modules[name]
        sys.modules.update(before)


def _modules_of(package: str) -> dict[str, ModuleType]:
    return {n: module for n, module in sys.modules.items() if f"{n}.".startswith(f"{package}.")}


class _EditedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that edits are of, and runs their edited source."""

    def __init__(self, package: str, edits: Sequence[Edit]) -> None:
        self._package, self._edits = package, edits

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not self._edits_of(name):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        _run(module, self._edits_of(module.__name__))

    def _edits_of(self, name: str) -> list[Edit]:
        return [edit for edit in self._edits if name == f"{self._package}.{edit.module}"]


def _run(module: ModuleType, edits: Sequence[Edit]) -> None:
    """Fill a module from its file's source after its edits."""
    file = str(module.__file__)
    source = Path(file).read_text(encoding="utf-8")
    for edit in edits:
        source = edit.apply(source)
    exec(compile(source, file, "exec"), vars(module))  # noqa: S102 - our own


@contextlib.contextmanager
def _swapped(edits: Sequence[Edit]) -> Iterator[None]:
    """Give functions of the contract the code of their edited source."""
    with contextlib.ExitStack() as stack:
        for edit in edits:
            module = importlib.import_module(f"parity.contract.{edit.module}")
            edited = ModuleType(module.__name__)
            edited.__file__ = module.__file__
            _run(edited, [edit])
            old, new = _functions(module), _functions(edited)
            changed = [name for name in new if new[name].__code__ != old[name].__code__]
            if not changed:
                raise ValueError(f"{edit.module}: no function changes with {edit.new!r}")
            for name in changed:
                stack.callback(setattr, old[name], "__code__", old[name].__code__)
                old[name].__code__ = new[name].__code__
        yield


def _functions(module: ModuleType) -> dict[str, FunctionType]:
    """Return a module's own functions and those of its classes."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    return {
        f"{owner.__name__}.{name}": value
        for owner in (module, *classes)
        for name, value in vars(owner).items()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__
    }
