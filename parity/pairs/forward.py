"""Both sides in float64, layer by layer: JAX is fed with PyTorch's values at every layer."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.core import Tracer
from torch.utils._python_dispatch import _disable_current_modes

from parity.pairs.jax_side import Program
from parity.pairs.jaxprs import Evaluator, Tag, source, widened
from parity.pairs.leaves import Node
from parity.pairs.mapping import Map
from parity.pairs.pair import PairError
from parity.pairs.patterns import patterns, rearranged
from parity.pairs.torch_side import Operations, Region, TorchSide, Variant, arrays, mark

Key = tuple[str, str, int]
"""(PyTorch's name of a layer, in or out, call); the model's outputs are ("output", "in", 0)."""
OUTPUT = "output"
LAST_PLACES = 64
"""Units in the last place of an array's largest value that need no further explanation: mistakes
lie 4 to 12 decades above."""
ROUNDING = 1e-11


@dataclass(frozen=True)
class Layer:
    """A layer of each side that hold the same leaves, and are called as often.

    `product`: JAX has no layers; it is the product with this leaf, and the sum with that one.

    Where one side has several layers stacked in one, PyTorch's name is `whole#i/n`, part i of n, or
    `a+b+c`, those that JAX has in one.
    """

    torch: str
    jax: str
    product: tuple[str, str | None] | None = None


def plain(name: str) -> str:
    """Return the name of the module that a part of it belongs to."""
    return name.split("#")[0].split("+")[-1]


def _add_stacked(found: "Recorded", layers: set[str], key: Key) -> None:
    """Add the arrays of the parts of a layer, and of the layers that are one in JAX."""
    name, way, call = key
    for layer in layers:
        if "#" in layer and layer.split("#")[0] == name:
            i, n = map(int, layer.split("#")[1].split("/"))
            found.arrays[layer, way, call] = [
                np.split(x, n, axis=1 if x.ndim == 4 else -1)[i] if way == "out" else x
                for x in found.arrays[key]
            ]
            found.made_by[layer, way, call, 0] = found.made_by[*key, 0]
        elif "+" in layer and layer.split("+")[-1] == name:
            parts = [found.arrays.get((part, way, call)) for part in layer.split("+")]
            if all(parts):
                first = [part[0] for part in parts if part]
                found.arrays[layer, way, call] = (
                    [np.concatenate(first, axis=-1)] if way == "out" else [first[0]]
                )
                for place, part in enumerate(layer.split("+")):
                    found.made_by[layer, way, call, place] = found.made_by[part, way, call, 0]


@dataclass
class Recorded:
    """PyTorch's run: what went into each layer and came out of it, and the operations between."""

    arrays: dict[Key, list[np.ndarray]] = field(default_factory=dict)
    made_by: dict[tuple[str, str, int, int], "int | str"] = field(default_factory=dict)
    """By key and place among the arrays: the operation that made it."""
    places: dict[tuple[str, str, int, int], int] = field(default_factory=dict)
    """Likewise: which of the operation's results it is."""
    operations: Sequence[Any] = ()

    def slice(self, key: Key) -> tuple[list[int], list[str]]:
        """Return the operations that a value is made by since the layers before it, and these."""
        todo = [made for (*of, _), made in self.made_by.items() if tuple(of) == key]
        numbers: set[int] = set()
        names: dict[str, None] = {}
        while todo:
            made = todo.pop()
            if isinstance(made, str):
                names[made] = None
            elif made not in numbers:
                numbers.add(made)
                todo += self.operations[made].parents
        return sorted(numbers), list(names)


def record(
    side: TorchSide,
    inputs: Sequence[Any],
    layers: set[str],
    *,
    variants: Mapping[int, Variant] | None = None,
    forced: Mapping[Key, list[np.ndarray]] | None = None,
    widen: bool = False,
    keep: Region | None = None,
) -> Recorded:
    """Run PyTorch's side and keep the values at its layers; `forced` ones are put in their place.

    `variants` are computed in place of the operations of these numbers.
    """
    found = Recorded()
    watched = {part for layer in layers for part in layer.split("#")[0].split("+")}

    def seen(layer: str, way: str, place: int, call: int, value: Any) -> Any:
        if layer not in watched:
            return value
        key = (layer, way, call)
        found.made_by[(*key, place)] = getattr(value, "_parity", "")
        found.places[(*key, place)] = getattr(value, "_parity_place", 0)
        found.arrays.setdefault(key, []).append(_numpy(value))
        _add_stacked(found, layers, key)
        with _disable_current_modes():  # these operations are not the user's
            if forced is not None and place < len(forced.get(key, ())):
                value = torch.from_numpy(forced[key][place].copy())
            return mark(value.view_as(value), f"{layer}:{way}")

    mode = Operations(variants=variants, widen=widen, keep=keep)
    with torch.no_grad():
        outputs = arrays(side.run(inputs, seen=seen, mode=mode))
        for place, value in enumerate(outputs):
            found.made_by[(OUTPUT, "in", 0, place)] = getattr(value, "_parity", "")
            found.places[(OUTPUT, "in", 0, place)] = getattr(value, "_parity_place", 0)
        found.arrays[(OUTPUT, "in", 0)] = [_numpy(value) for value in outputs]
    found.operations = mode.made
    return found


def _numpy(value: Any) -> np.ndarray:
    value = value.detach()
    return (value.double() if value.is_floating_point() else value).numpy().copy()


def shared_layers(found: Map, ours: Mapping[str, Node], theirs: Mapping[str, Node]) -> list[Layer]:
    """Return the innermost layers of both sides that hold the same leaves, in PyTorch's order."""
    to_jax: dict[str, set[str]] = {}
    to_torch: dict[str, set[str]] = {}
    for row in found.rows:
        to_jax.setdefault(row.torch, set()).add(row.jax)
        to_torch.setdefault(row.jax, set()).add(row.torch)
    by_leaves: dict[frozenset[str], list[Node]] = {}
    for node in theirs.values():
        held = frozenset(leaf for leaf in node.leaves if leaf in to_torch)
        if node.name and held:
            by_leaves.setdefault(held, []).append(node)
    layers: list[tuple[int, Layer]] = []

    def covers(name: str, taken: Sequence[str]) -> bool:
        return any(other == name or other.startswith(name + ".") for other in taken)

    def innermost(node: Node) -> tuple[int, int, int]:
        return len(node.leaves), -node.name.count("."), node.order

    for node in sorted(ours.values(), key=innermost):
        held = {leaf for leaf in node.leaves if leaf in to_jax}
        image = frozenset().union(*(to_jax[leaf] for leaf in held)) if held else frozenset()
        back = {leaf for name in image for leaf in to_torch[name]}
        if not node.name or not held or back != held:
            continue
        if covers(node.name, [layer.torch for _, layer in layers]):
            continue
        for other in sorted(by_leaves.get(image, ()), key=innermost):
            if not covers(other.name, [layer.jax for _, layer in layers]):
                layers.append((node.order, Layer(node.name, other.name)))
                break
    layers += _stacked_layers(found, ours, theirs, [layer for _, layer in layers])
    return [layer for _, layer in sorted(layers, key=lambda item: item[0])]


def _stacked_layers(
    found: Map, ours: Mapping[str, Node], theirs: Mapping[str, Node], taken: Sequence[Layer]
) -> list[tuple[int, Layer]]:
    """Return layers that one side has in one, and the other side apart."""
    layers: dict[Layer, int] = {}
    whole_j: dict[str, dict[int, str]] = {}
    for row in found.rows:
        mine, other = row.torch.rpartition(".")[0], row.jax.rpartition(".")[0]
        if mine not in ours or other not in theirs or not (mine and other):
            continue
        if any(_within(mine, layer.torch) or _within(other, layer.jax) for layer in taken):
            continue
        if len(ours[mine].leaves) > 2 or len(theirs[other].leaves) > 2:
            continue
        if row.torch_part and not row.jax_part:
            i, n, _ = row.torch_part
            layers[Layer(f"{mine}#{i}/{n}", other)] = ours[mine].order
        elif row.jax_part and not row.torch_part:
            whole_j.setdefault(other, {})[row.jax_part[0]] = mine
    for other, parts in whole_j.items():
        names = [parts[i] for i in sorted(parts)]
        layers[Layer("+".join(names), other)] = max(ours[name].order for name in names)
    return [(order, layer) for layer, order in layers.items()]


def products_of(layers: Sequence[Layer]) -> dict[str, tuple[str, str | None]]:
    """Return which leaf's product is which layer, and what is added to it."""
    return {layer.product[0]: (layer.jax, layer.product[1]) for layer in layers if layer.product}


def product_layers(found: Map, ours: Mapping[str, Node]) -> list[Layer]:
    """Return PyTorch's layers that are a product with one leaf of a JAX side without layers."""
    layers = []
    for node in sorted(ours.values(), key=lambda node: node.order):
        rows = [row for row in found.rows if row.torch in node.leaves]
        if (
            node.kind not in ("linear", "convolution", "embedding", "transposed")
            or len(node.leaves) > 2
        ):
            continue
        if {row.torch for row in rows} != set(node.leaves) or any(row.jax_part for row in rows):
            continue
        for part in dict.fromkeys(row.torch_part for row in rows):
            mine = [row for row in rows if row.torch_part == part]
            weight = next((row.jax for row in mine if row.torch.endswith(".weight")), None)
            bias = next((row.jax for row in mine if row.torch.endswith(".bias")), None)
            if weight is None:
                continue
            owner, _, last = weight.rpartition(".")
            name = owner if owner and last in ("w", "weight", "kernel", "W") else weight
            own = f"{node.name}#{part[0]}/{part[1]}" if part else node.name
            layers.append(Layer(own, name, (weight, bias)))
    names = [layer.jax for layer in layers]
    return [layer for layer in layers if names.count(layer.jax) == 1]


def _within(name: str, other: str) -> bool:
    return name == other or name.startswith(other + ".") or other.startswith(name + ".")


@dataclass
class Evidence:
    """How far JAX's value is from PyTorch's at one place, and what rounding explains of it."""

    key: Key
    place: int
    shape: tuple[int, ...]
    error: float
    scale: float
    arranged: tuple[str, dict[str, int]] = ("", {})
    """The pattern from PyTorch's layout to JAX's."""
    rounding: float = 0.0
    is_float: bool = True
    own: Any = None
    """JAX's value, kept where it is more than a few last places off."""
    equations: list[Any] = field(default_factory=list)
    """JAX's, evaluated since the layer before."""

    @property
    def size(self) -> float:
        """Of the error relative to scale."""
        return self.error / self.scale if self.scale else (0.0 if self.error == 0 else math.inf)

    @property
    def wrong(self) -> bool:
        """Whether it is more than rounding."""
        return not self.error <= self.rounding


@dataclass
class Forced:
    """JAX's run with PyTorch's values at each shared layer: evidence by place."""

    evidence: dict[tuple[Key, int], Evidence] = field(default_factory=dict)
    uncompared: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    arrangements: dict[tuple[Key, int], tuple[str, dict[str, int]]] = field(default_factory=dict)

    def at(self, key: Key) -> list[Evidence]:
        """Return the evidence of all arrays of a key."""
        return [found for (of, _), found in self.evidence.items() if of == key]

    @property
    def wrong(self) -> list[Evidence]:
        """Those outside rounding."""
        return [found for found in self.evidence.values() if found.wrong]


Around = Callable[[Any, list[Any], Callable[..., list[Any]]], list[Any]]


def force(
    program: Program,
    values: Mapping[str, np.ndarray],
    inputs: Sequence[Any],
    recorded: Recorded,
    layers: Sequence[Layer],
    *,
    around: Around | None = None,
    like: Forced | None = None,
    widen: bool = False,
    as_traced: bool = False,
    keep: bool = False,
) -> Forced:
    """Run JAX's side, each shared layer's inputs and outputs replaced by PyTorch's.

    `like` is an earlier run whose arrangements are used again; `keep` keeps all of JAX's arrays,
    and `as_traced` computes in the types of the program. PairError: other numbers of outputs.
    """
    torch_of = {layer.jax: layer.torch for layer in layers}
    found = Forced()
    used: dict[Key, set[int]] = {}
    window: list[Any] = []

    def match(key: Key, own: Any, *, output: bool = False) -> Any:
        """Compare an array with that of PyTorch's that it should be; return that one."""
        own_array = np.asarray(own, np.float64) if _is_float(own) else np.asarray(own)
        taken = used.setdefault(key, set())
        for place, truth in enumerate(recorded.arrays.get(key, ())):
            if place in taken or truth.size != own_array.size:
                continue
            if (truth.dtype.kind == "f") != _is_float(own):
                continue
            known = like.arrangements.get((key, place)) if like else None
            arranged = known or _arrangement(
                truth, own_array, recorded, usual_for(truth.ndim), flat=not output
            )
            if arranged is None:
                continue
            taken.add(place)
            forced = rearranged(truth, *arranged)
            _compare(found, (key, place), own_array, forced, arranged, truth.shape)
            if keep:
                found.evidence[key, place].own = own_array
            found.evidence[key, place].equations = (
                list(window) if found.evidence[key, place].wrong else []
            )
            window.clear()
            return jnp.asarray(forced, np.float64 if widen and _is_float(own) else own.dtype)
        if key[0] != OUTPUT and _is_float(own):
            found.uncompared.append(f"{key[0]}, {key[1]}put of shape {own_array.shape}")
        return own

    def usual_for(rank: int) -> str:
        """Return the last pattern that was certain for this rank."""
        seen = [
            e.arranged[0]
            for e in found.evidence.values()
            if len(e.shape) == rank and e.error <= 1e-9 * e.scale
        ]
        return seen[-1] if seen else ""

    def on_tag(tag: Tag, value: Any) -> Any:
        name = torch_of.get(tag.layer)
        if name is None:
            return value
        if tag.place == 0:
            found.calls[tag.layer] = max(found.calls.get(tag.layer, 0), tag.call + 1)
        return match((name, tag.way, tag.call), value)

    def logged(equation: Any, given: list[Any], evaluate: Callable[..., list[Any]]) -> list[Any]:
        window.append((equation, [_scalar(x) for x in given]))
        return around(equation, given, evaluate) if around else evaluate(*given)

    if widen:
        around = _widening(around)
    evaluator = Evaluator(on_tag, logged, products_of(layers), program.names)
    outputs, _ = program.run(evaluator, values, list(inputs), as_traced=as_traced)
    truth = recorded.arrays[OUTPUT, "in", 0]
    if len(outputs) != len(truth):
        raise PairError(
            f"PyTorch returns {len(truth)} arrays and JAX {len(outputs)}; let"
            " call_torch and call_jax return the same ones"
        )
    with jax.enable_x64(not as_traced):
        for place, (own, want) in enumerate(zip(outputs, truth, strict=True)):
            if own.size != want.size:
                raise PairError(
                    f"output {place} is {want.shape} in PyTorch and {own.shape} in JAX,"
                    " which no permutation of axes fits"
                )
            match((OUTPUT, "in", 0), own, output=True)
    return found


def _widening(around: Around | None) -> Around:
    def both(equation: Any, given: list[Any], _: Callable[..., list[Any]]) -> list[Any]:
        if around is None:
            return widened(equation, given)
        return around(equation, given, lambda *inputs: widened(equation, list(inputs)))

    return both


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.floating)


def _scalar(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 and not isinstance(value, Tracer) else None


def _compare(
    found: Forced,
    at: tuple[Key, int],
    own: np.ndarray,
    forced: np.ndarray,
    arranged: tuple[str, dict[str, int]],
    shape: tuple[int, ...],
) -> None:
    error, scale = distance(own, forced)
    found.arrangements[at] = arranged
    limit = LAST_PLACES * np.finfo(np.float64).eps * scale if own.dtype.kind == "f" else 0.0
    found.evidence[at] = Evidence(
        *at,
        shape,
        error,
        scale,
        arranged,
        limit,
        own.dtype.kind == "f",
        None if error <= limit else own,
    )


def distance(own: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return the largest error and the largest value; nan and inf agree with themselves."""
    if own.size == 0:
        return 0.0, 1.0
    if own.dtype.kind != "f" or truth.dtype.kind != "f":
        own, truth = own.astype(np.float64), truth.astype(np.float64)
    finite = np.isfinite(truth)
    with np.errstate(invalid="ignore"):
        off = np.abs(own - truth)
    alike = (own == truth) | (np.isnan(own) & np.isnan(truth))
    off = np.where(alike, 0, np.where(np.isnan(off), np.inf, off))
    scale = float(np.abs(truth[finite]).max(initial=0))
    return float(off.max()), scale or 1.0


def _arrangement(
    truth: np.ndarray, own: np.ndarray, recorded: Recorded, before: str, *, flat: bool
) -> tuple[str, dict[str, int]] | None:
    """Return the pattern that brings PyTorch's array to JAX's layout; `before` is the last one.

    Of those that fit the shapes, it is the one that fits the values; if none does, the usual one.
    """
    rank = truth.ndim
    last = (0, *range(2, rank), 1) if rank > 2 else ()
    first = [last] if last and truth.shape != own.shape else []
    options = []
    for option in itertools.islice(patterns(truth.shape, own.shape, first), 60):
        error, scale = distance(own, rearranged(truth, *option))
        if error <= 1e-9 * scale:
            return option
        options.append((error, option))
    if flat and truth.shape == own.shape and rank >= 2 and truth.dtype.kind == "f":
        found = _behind_flatten(truth, own, recorded)
        if found:
            return found
    if not options:
        return None
    if last and truth.shape != own.shape:
        usual = options[0]
    else:
        usual = next((o for o in options if truth.shape == own.shape), options[0])
    usual = next((o for o in options if o[1][0] == before), usual)
    best = max(options, key=lambda option: _alike(own, rearranged(truth, *option[1])))
    gain = _alike(own, rearranged(truth, *best[1])) - _alike(own, rearranged(truth, *usual[1]))
    return best[1] if gain > 0.3 else usual[1]


def _alike(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two arrays: near one in the right order, near none in another."""
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.vdot(a - a.mean(), b - b.mean()) / (a.std() * b.std() * max(a.size, 1))
    return float(found) if np.isfinite(found) else 0.0


def _behind_flatten(
    truth: np.ndarray, own: np.ndarray, recorded: Recorded
) -> tuple[str, dict[str, int]] | None:
    """Return the pattern where the last axis was flattened from others in another order."""
    length = truth.shape[-1]
    shapes = {
        array.shape[1:]
        for group in recorded.arrays.values()
        for array in group
        if array.ndim >= 3 and math.prod(array.shape[1:]) == length
    }
    shapes |= {(c, *s) for c, s in _pooled(recorded, length)}
    front = " ".join("abcdefgh"[: truth.ndim - 1])
    likely: list[tuple[float, tuple[str, dict[str, int]]]] = []
    for shape in shapes:
        atoms = "uvwxyz"[: len(shape)]
        sizes = dict(zip(atoms[:-1], shape, strict=False))
        for order in itertools.permutations(range(len(shape))):
            to = " ".join(atoms[i] for i in order)
            option = (f"{front} ({' '.join(atoms)}) -> {front} ({to})", sizes)
            moved = rearranged(truth, *option)
            error, scale = distance(own, moved)
            if error <= 1e-9 * scale:
                return option
            likely.append((_alike(own, moved), option))
    best = max(likely, key=lambda one: one[0], default=(0.0, None))
    return best[1] if best[0] > max(0.3 + _alike(own, truth), 0.5) else None


def _pooled(recorded: Recorded, length: int) -> list[tuple[int, tuple[int, ...]]]:
    """Return shapes of operations' results that a flatten of this length may have had."""
    found = []
    for operation in recorded.operations:
        shape = operation.shape
        if len(shape) >= 3 and math.prod(shape[1:]) == length:
            found.append((shape[1], tuple(shape[2:])))
    return found


def sources(equations: Sequence[Any], *, most: int = 4) -> str:
    """Return the operations of JAX's region with file and line, the most telling first."""
    lines: dict[str, list[str]] = {}
    for equation, _ in equations:
        lines.setdefault(source(equation), []).append(equation.primitive.name)
    parts = [f"{', '.join(dict.fromkeys(names))} ({line})" for line, names in lines.items()]
    return "; ".join(parts[-most:])
