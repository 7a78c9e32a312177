"""The catalogue of porting mistakes, and how one is planted into a backend, or into the contract.

`faults.toml` lists the mistakes as edits of source. A planted backend is the package imported anew
from the edited source; the files and the modules imported before are left alone. The contract's
functions, to which everything refers already, get the edited code for as long as it is planted.
"""

import contextlib
import importlib.abc
import importlib.machinery
import inspect
import sys
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from types import CodeType, FunctionType, ModuleType

from parity.contract.recipe import DType
from parity.subjects.subject import BACKENDS

TWINS = ("torch", "jax")
"""Backends that mistakes are planted into."""

CONTRACT = "contract"
"""Where mistakes are planted that all subjects then share."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A piece of a module's source, and what takes its place."""

    module: str
    old: str
    """Stands in the source exactly once."""
    new: str

    def apply(self, source: str) -> str:
        """Return the edited source.

        Raises:
            ValueError: the old text is not there exactly once.
        """
        if source.count(self.old) != 1:
            raise ValueError(f"{self.module}: {source.count(self.old)} places read {self.old!r}")
        return source.replace(self.old, self.new)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A porting mistake."""

    name: str
    stage: str
    """What the name of the first stage that differs begins with."""
    edits: dict[str, tuple[Edit, ...]]
    """By backend, as subjects name it; or of CONTRACT."""
    dtype: DType = "float32"
    """The precision in which it is a mistake."""
    only: str = ""
    """Why one of the backends cannot have it."""


def catalogue() -> list[Fault]:
    """Return all mistakes of `faults.toml`, in its order."""
    text = resources.files("parity.subjects").joinpath("faults.toml").read_text(encoding="utf-8")
    faults = []
    for entry in tomllib.loads(text)["faults"]:
        edits = {}
        for backend in (*TWINS, CONTRACT):
            rows = entry.get(backend, entry.get("both") if backend in TWINS else None)
            if rows is not None:
                edits[backend] = tuple(Edit(module=m, old=old, new=new) for m, old, new in rows)
        if "adam" in entry:
            edits = adam_by_hand(**entry["adam"])
        fields = {key: entry[key] for key in ("name", "stage", "dtype", "only") if key in entry}
        faults.append(Fault(**fields, edits=edits))
    return faults


@contextlib.contextmanager
def planted(backend: str, edits: Sequence[Edit]) -> Iterator[None]:
    """Make the harness find a backend, or the contract, with edited source in this block.

    Raises:
        ValueError: an edit does not fit the source, or changes no function of the contract.
    """
    if backend == CONTRACT:
        with _swapped(edits):
            yield
        return
    package = BACKENDS[backend]
    finder = _Finder(package, edits)
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


@contextlib.contextmanager
def _swapped(edits: Sequence[Edit]) -> Iterator[None]:
    """Give functions of the contract the code of their edited source."""
    with contextlib.ExitStack() as stack:
        for edit in edits:
            module = importlib.import_module(f"parity.contract.{edit.module}")
            edited = ModuleType(module.__name__)
            edited.__file__ = module.__file__
            source = edit.apply(inspect.getsource(module))
            exec(compile(source, edited.__name__, "exec"), vars(edited))  # noqa: S102 - our own
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
    own = [value for value in vars(module).values() if _belongs(value, module)]
    owners = [module, *(value for value in own if isinstance(value, type))]
    return {
        f"{owner.__name__}.{name}": value
        for owner in owners
        for name, value in vars(owner).items()
        if isinstance(value, FunctionType) and _belongs(value, module)
    }


def _belongs(value: object, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def adam_by_hand(
    *,
    m: str = "b1 * m + (1 - b1) * g",
    v: str = "b2 * v + (1 - b2) * g**2",
    update: str = "lr * m / (1 - b1**t) / ((v / (1 - b2**t)) ** 0.5 + eps)",
) -> dict[str, tuple[Edit, ...]]:
    """Return edits that put an Adam written by hand in place of each library's.

    Args:
        m: the first moment after a step, from the parameter p, its gradient g and the moment m.
        v: the second one, from p, g, the new m and the moment v.
        update: what is subtracted from p, from p, g, the new m and v, the step t, lr, b1, b2, eps.
    """
    expressions = {"M": m, "V": v, "UPDATE": update}
    return {
        backend: tuple(
            Edit(module="optim", old=old, new=_filled(new, expressions)) for old, new in rows
        )
        for backend, rows in _ADAM_BY_HAND.items()
    }


def _filled(template: str, expressions: dict[str, str]) -> str:
    for name, expression in expressions.items():
        template = template.replace(f"<{name}>", expression)
    return template


_ADAM_BY_HAND = {
    "torch": [
        (
            "def adam(",
            """class _ByHand(torch.optim.Adam):
    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, (b1, b2), eps = group["lr"], group["betas"], group["eps"]
            for p in group["params"]:
                state, g = self.state[p], p.grad
                state["step"] += 1
                t, m, v = float(state["step"]), state["exp_avg"], state["exp_avg_sq"]
                m.copy_(<M>)
                v.copy_(<V>)
                p -= <UPDATE>


def adam(""",
        ),
        ("return torch.optim.Adam(", "return _ByHand("),
    ],
    "jax": [
        (
            "@functools.cache",
            """def _by_hand(lr, b1, b2, eps):
    import jax

    def update(gradients, state, params):
        t = state[0].count + 1
        m = jax.tree.map(lambda p, g, m: <M>, params, gradients, state[0].mu)
        v = jax.tree.map(lambda p, g, m, v: <V>, params, gradients, m, state[0].nu)
        updates = jax.tree.map(lambda p, g, m, v: -(<UPDATE>), params, gradients, m, v)
        return updates, (state[0]._replace(count=t, mu=m, nu=v), state[1])

    return optax.GradientTransformation(optax.adam(lr).init, update)


@functools.cache""",
        ),
        (
            """return optax.adam(
        learning_rate=lr, b1=b1, b2=b2, eps=eps, eps_root=0.0, mu_dtype=None, nesterov=False
    )""",
            "return _by_hand(lr, b1, b2, eps)",
        ),
    ],
}


def _modules_of(package: str) -> dict[str, ModuleType]:
    return {
        name: module
        for name, module in sys.modules.items()
        if name == package or name.startswith(f"{package}.")
    }


class _Finder(importlib.abc.MetaPathFinder):
    """Finds a package's edited modules."""

    def __init__(self, package: str, edits: Sequence[Edit]) -> None:
        self._edits: dict[str, list[Edit]] = {}
        for edit in edits:
            self._edits.setdefault(f"{package}.{edit.module}", []).append(edit)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where an edited module comes from; None for any other one."""
        if name not in self._edits:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin, self._edits[name])
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a module's source after its edits."""

    def __init__(self, name: str, path: str, edits: list[Edit]) -> None:
        super().__init__(name, path)
        self._edits = edits

    def get_code(self, fullname: str) -> CodeType:
        """Return the edited code, past the cache of compiled files."""
        source = self.get_source(fullname) or ""
        for edit in self._edits:
            source = edit.apply(source)
        return compile(source, self.path, "exec")
