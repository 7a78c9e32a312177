"""`jaxcnn` and `torchcnn` are mirror images: same modules, names, order and signatures."""

import ast
import inspect
from collections.abc import Set
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def modules(package: str) -> list[str]:
    return sorted(p.stem for p in (ROOT / package).glob("*.py") if p.stem != "__init__")


MODULES = modules("torchcnn")

PARAMETERS = {
    # Flax draws weights from a stream that is passed, PyTorch from one of its own
    ("model", "CNN"): {"rngs"}
}
"""Of the constructors of JAX's classes, what PyTorch's do not have."""

EXCEPTIONS = {
    # PyTorch's name for a device differs from JAX's; each is called by its framework's
    ("device", "torch_device"): "jax_device",
    # torchvision has to be helped to import
    ("data", "torchvision_datasets"): None,
    # PyTorch's layout is the canonical one and needs no table
    ("state", None): ["Row", "LAYOUT", "to_flax", "from_flax"],
    # JAX divides arrays over a mesh, PyTorch has processes only
    ("parallel", None): ["AXIS", "mesh", "on_shares"],
    # Optax's state is a value with a type of its own, PyTorch's lives in the optimiser
    ("optim", None): ["OptState"],
}


def public_names(package: str, module: str) -> list[str]:
    """Return what a module defines at its top level without a leading underscore, in order."""
    tree = ast.parse((ROOT / package / f"{module}.py").read_text())
    names = []
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.append(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
    return [name for name in names if not name.startswith("_")]


def mirrored(module: str) -> list[tuple[str, str]]:
    """Return the pairs of names that should mirror each other, PyTorch's first."""
    expected, extra = [], EXCEPTIONS.get((module, None), [])
    for name in public_names("torchcnn", module):
        other = EXCEPTIONS.get((module, name), name)
        if other is not None:
            expected.append((name, other))
    assert [b for _, b in expected] == [
        name for name in public_names("jaxcnn", module) if name not in extra
    ]
    return expected


def test_both_have_the_same_modules_and_exports() -> None:
    assert MODULES
    assert modules("jaxcnn") == MODULES
    stubs = [(ROOT / package / "__init__.pyi").read_text() for package in ("torchcnn", "jaxcnn")]
    assert stubs[0] == stubs[1]


@pytest.mark.parametrize("module", MODULES)
def test_twin_modules_have_the_same_public_names_and_signatures(module: str) -> None:
    twins = import_module(f"torchcnn.{module}"), import_module(f"jaxcnn.{module}")
    for names in mirrored(module):
        a, b = (getattr(twin, name) for twin, name in zip(twins, names, strict=True))
        if hasattr(a, "_fields"):
            assert a._fields == b._fields
        elif inspect.isclass(a):
            more = PARAMETERS.get((module, names[0]), set())
            assert methods(a) == methods(b, without=more)
        elif callable(a) and not hasattr(a, "__origin__"):  # a type of a function has the types
            assert parameters(a) == parameters(b), names
        elif not callable(a):
            assert a == b, names


def methods(cls: type, *, without: Set[str] = frozenset()) -> dict[str, list[object]]:
    """Return constructor and public methods; PyTorch's `forward` is Flax's `__call__`.

    A dataclass's constructor is its fields, which are what the frameworks differ in; so is the
    default of a dtype.
    """
    return {
        name: [p for p in parameters(value) if p[0] not in {*without, "dtype"}]
        for name, value in vars(cls).items()
        if inspect.isfunction(value)
        and value.__module__ == cls.__module__
        and (not name.startswith("_") or (name == "__init__" and not is_dataclass(cls)))
        and name != "forward"
    }


def parameters(function: object) -> list[tuple[str, object, object]]:
    """Return names, kinds and defaults; the types are what the frameworks differ in."""
    assert callable(function)
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_every_exception_is_needed() -> None:
    for (module, name), other in EXCEPTIONS.items():
        if name is not None:
            assert name in public_names("torchcnn", module)
            assert name not in public_names("jaxcnn", module)
            assert other is None or other in public_names("jaxcnn", module)
        else:
            assert not set(other) & set(public_names("torchcnn", module))
