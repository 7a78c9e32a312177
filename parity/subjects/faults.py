"""The catalogue of porting mistakes, and how one is planted into a backend, or into the contract.

`faults.toml` lists the mistakes as edits of source. A planted backend is the package imported anew
from edited source; files are left alone. The contract's functions get the edited code for a while.
"""

import contextlib
import importlib
import re
import sys
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import NamedTuple

from parity.contract.recipe import DType
from parity.subjects.subject import BACKENDS
from parity.subjects.workers import PLANTED

_TOML = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

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
    processes: int = 1
    """Of how many it is a mistake."""
    only: str = ""
    """Why one of the backends cannot have it."""


def catalogue() -> list[Fault]:
    """Return all mistakes of `faults.toml`, in its order."""
    faults = []
    for entry in map(dict, _TOML["faults"]):
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
    adam = _TOML["adam"]
    expressions = adam["right"] | wrong
    return {
        backend: tuple(
            Edit(module, old, re.sub(r"<(\w+)>", lambda place: expressions[place[1]], new))
            for module, old, new in adam[backend]
        )
        for backend in TWINS
    }


def planted(backend: str, edits: Sequence[Edit]) -> contextlib.AbstractContextManager[None]:
    """Make the harness find a backend, or the contract, with edited source in this block.

    It raises ValueError if an edit does not fit the source, or changes no function of the contract.
    """
    return _planted(backend, edits)


@contextlib.contextmanager
def _planted(backend: str, edits: Sequence[Edit]) -> Iterator[None]:
    PLANTED.append((backend, tuple(edits)))
    try:
        if backend == CONTRACT:
            with _swapped(edits):
                yield
        else:
            with _imported_anew(BACKENDS[backend], edits):
                yield
    finally:
        PLANTED.pop()


@contextlib.contextmanager
def _imported_anew(package: str, edits: Sequence[Edit]) -> Iterator[None]:
    unedited, before = SourceFileLoader.get_code, _modules_of(package)

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        own = [edit for edit in edits if fullname == f"{package}.{edit.module}"]
        return _edited(self.path, own) if own else unedited(self, fullname)

    for name in before:
        del sys.modules[name]
    SourceFileLoader.get_code = get_code
    try:
        for edit in edits:
            importlib.import_module(f"{package}.{edit.module}")
        with warnings.catch_warnings(action="ignore"):  # a framework may complain of a mistake
            yield
    finally:
        del SourceFileLoader.get_code
        for name in _modules_of(package):
            del sys.modules[name]
        sys.modules.update(before)


def _modules_of(package: str) -> dict[str, ModuleType]:
    return {n: module for n, module in sys.modules.items() if f"{n}.".startswith(f"{package}.")}


def _edited(file: str, edits: Sequence[Edit]) -> CodeType:
    source = Path(file).read_text(encoding="utf-8")
    for edit in edits:
        if (count := source.count(edit.old)) != 1:
            raise ValueError(f"{edit.module}: {count} places read {edit.old!r}")
        source = source.replace(edit.old, edit.new)
    return compile(source, file, "exec")


@contextlib.contextmanager
def _swapped(edits: Sequence[Edit]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in dict.fromkeys(edit.module for edit in edits):
            own = [edit for edit in edits if edit.module == name]
            module = importlib.import_module(f"parity.contract.{name}")
            edited = ModuleType(module.__name__)
            edited.__file__ = module.__file__
            exec(_edited(str(module.__file__), own), vars(edited))  # noqa: S102 - this project's source, edited by faults.toml
            old, new = _functions(module), _functions(edited)
            changed = [key for key in new if new[key].__code__ != old[key].__code__]
            if not changed:
                raise ValueError(f"{name}: no function changes with {own[0].new!r}")
            for key in changed:
                stack.callback(setattr, old[key], "__code__", old[key].__code__)
                old[key].__code__ = new[key].__code__
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
