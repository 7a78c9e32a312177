"""Both sides with the same weights: the map found, the weights drawn, the runs recorded."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from parity.contract.errors import NondeterminismError
from parity.pairs.forward.evidence import Forced
from parity.pairs.forward.forced import force
from parity.pairs.jax_side.jaxprs import equations
from parity.pairs.jax_side.models import jax_side
from parity.pairs.jax_side.precisions import NUMBERS, in_float32, narrow
from parity.pairs.jax_side.program import JaxSide, Program
from parity.pairs.jax_side.uses import uses
from parity.pairs.mapping.layers import Layer, is_stacked, plain, product_layers, shared_layers
from parity.pairs.mapping.leaves import Use, drawn
from parity.pairs.mapping.maps import Map, find_map
from parity.pairs.mapping.units import PART
from parity.pairs.pair import Pair, PairError
from parity.pairs.proof import MapRow
from parity.pairs.torch_side.model import TorchSide, arrays, torch_side
from parity.pairs.torch_side.operations import Operations, Wide, mark
from parity.pairs.torch_side.recorded import Recorded, record

Progress = Callable[[str, int, int], None]


@dataclass
class Case:
    """Both sides with the same weights, and PyTorch's values at every shared layer."""

    pair: Pair
    torch: TorchSide
    jax: JaxSide
    program: Program
    map: Map
    values: dict[str, np.ndarray]
    """PyTorch's leaves."""
    set_jax: dict[str, np.ndarray]
    """JAX's leaves that PyTorch lacks, set to what makes them vanish."""
    layers: list[Layer]
    used: tuple[dict[str, Use], dict[str, Use]]
    notes: list[str] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)
    recorded: Recorded = field(default_factory=Recorded)
    forced: Forced = field(default_factory=Forced)
    tables: bool = False
    """Whether a place is off by what PyTorch keeps in float32."""
    widen: bool = False
    """Whether a part of either side asks for less than float64, and is computed in it all the
    same."""
    islands: set[str] = field(default_factory=set)
    """The narrower types that a part asks for."""
    insists: bool = False
    """Whether PyTorch's side fails where some of it is float64 and some, as it asks, float32."""

    @property
    def single(self) -> dict[str, np.ndarray]:
        """Buffers without a twin that hold numbers rounded to float32, as rotary frequencies.

        JAX may compute them anew.
        """
        mapped = {row.torch for row in self.map.rows}
        found = {
            name: self.values[name]
            for name, leaf in self.torch.leaves.items()
            if not leaf.trained and name not in mapped and name in self.used[0]
        }
        return {n: v for n, v in found.items()
                if (v == v.astype(np.float32)).all() and (v != np.round(v)).any()}  # fmt: skip

    @contextlib.contextmanager
    def shaken(self) -> Iterator[None]:
        """Move those buffers within their rounding, for the time of the block."""
        rng, tables = np.random.default_rng(0), self.single
        self.torch.set(
            {n: v * (1 + rng.uniform(-1, 1, v.shape) * 2.0**-24) for n, v in tables.items()}
        )
        try:
            yield
        finally:
            self.torch.set(tables)

    @property
    def jax_values(self) -> dict[str, np.ndarray]:
        """JAX's leaves with PyTorch's numbers."""
        return {**self.map.jax_values(self.values, self.jax.leaves), **self.set_jax}

    def wide(self) -> AbstractContextManager[Any]:
        """Return what PyTorch computes in float64 in, whatever its parts ask for."""
        return Wide() if self.widen else contextlib.nullcontext()

    def record(self, **options: Any) -> Recorded:
        """Run PyTorch's side and keep its values."""
        names = {layer.torch for layer in self.layers}
        options = {"widen": self.widen, "like": self.recorded.operations, **options}
        return record(self.torch, self.pair.inputs, names, **options)

    def force(self, recorded: Recorded | None = None, **options: Any) -> Forced:
        """Run JAX's side with PyTorch's values at every shared layer."""
        return force(
            self.program,
            self.jax_values,
            self.pair.inputs,
            recorded or self.recorded,
            self.layers,
            **{"widen": self.widen, **options},
        )


def prepare(
    pair: Pair, seed: int, weights: str, rows: Sequence[MapRow], progress: Progress
) -> Case:
    """Find the map, draw the weights, and run both sides."""
    progress("weights", 0, 4)
    ours, theirs = torch_side(pair), jax_side(pair)
    for name, value in ours.tensors.items():
        mark(value, f"leaf:{name}")
    mode, insists = _first(ours, pair)
    NUMBERS.set(in_float32(x for operation in mode.made for x in operation.scalars))
    used_t: dict[str, Use] = {}
    for operation in mode.made:
        for place, parent in enumerate(operation.parents):
            if isinstance(parent, str) and parent.startswith("leaf:"):
                # one that an operation takes later counts as later than all parts of one before
                used_t.setdefault(parent[5:], Use(operation.number + 10 * PART * place))
    program = theirs.trace({n: leaf.value for n, leaf in theirs.leaves.items()}, list(pair.inputs))
    used_j = uses(program.jaxpr, program.names)
    live_t = {n: leaf for n, leaf in ours.leaves.items() if n in used_t or leaf.trained}
    live_j = theirs.leaves
    found = find_map(live_t, live_j, used_t, used_j, rows)
    values = {n: leaf.value.astype(np.float64) for n, leaf in ours.leaves.items()}
    if weights == "drawn":
        rng = np.random.default_rng(seed)
        mapped = {row.torch for row in found.rows}
        values |= {n: drawn(ours.leaves[n], rng) for n in ours.leaves if n in mapped}
    case = Case(pair, ours, theirs, program, found, values, {}, [], (used_t, used_j))
    _vanish(case)
    ours.set(values)
    case.layers = shared_layers(found, ours.nodes(), theirs.nodes())
    if not theirs.calls:
        case.layers = product_layers(found, ours.nodes())
    case.islands = {o.dtype for o in mode.made if o.island}
    case.islands |= narrow(equations(program.jaxpr))
    case.insists, case.widen = insists, insists or bool(case.islands)
    _run(case)
    _check_calls(case)
    return case


def _first(ours: TorchSide, pair: Pair) -> tuple[Operations, bool]:
    """Run PyTorch's side; return its operations, and whether it runs with no float64 in its parts.

    As where a part asks for float32, whose result meets the rest.
    """
    insists = False
    with torch.no_grad():
        try:
            first = arrays(ours.run(pair.inputs, mode=(mode := Operations())))
        except PairError as error:
            if "dtype" not in str(error.__cause__) and "Double" not in str(error.__cause__):
                raise
            insists = True
            first = arrays(ours.run(pair.inputs, mode=(mode := Operations(widen=True))))
        again = arrays(ours.run(pair.inputs, mode=Operations(widen=insists)))
    _require_equal(first, again, mode)
    return mode, insists


def _require_equal(first: Sequence[Any], again: Sequence[Any], mode: Operations) -> None:
    """Raise an error if two runs of PyTorch's side differ."""
    pairs = zip(first, again, strict=True)
    if all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs):
        return
    random = next((o for o in mode.made if o.draws), None)
    if random and ("dropout" in random.name or "bernoulli" in random.name):
        raise PairError(
            f"PyTorch's dropout at {random.source} cannot be switched off: give it"
            " training=self.training"
        )
    raise NondeterminismError(
        "the PyTorch side gives two results for the same inputs; draw no random numbers in eval"
        " mode" + (f" ({random.name}, {random.source})" if random else "")
    )


def _vanish(case: Case) -> None:
    """Set what only one side has to what makes it vanish, and say so; the rest is unmapped."""
    for names, leaves, side, used in (
        (case.map.alone_torch, case.torch.leaves, "PyTorch", case.used[0]),
        (case.map.alone_jax, case.jax.leaves, "JAX", case.used[1]),
    ):
        for name in names:
            leaf = leaves[name]
            if name not in used:
                case.notes.append(f"{side}'s {name} never influences the output")
                continue
            start = leaf.owner + "." if leaf.owner else ""
            owners = {other.owner for other in leaves.values()} - {leaf.owner}
            holds_layers = any(owner.startswith(start) for owner in owners)
            if leaf.vanishing is not None and not (leaf.vanishing and holds_layers):
                target = case.values if side == "PyTorch" else case.set_jax
                target[name] = np.full(leaf.shape, leaf.vanishing)
                what = "one" if leaf.vanishing else "zero"
                case.notes.append(
                    f"only {side} has {name}, which is set to {what}; a trained one would differ"
                )
            elif leaf.trained:
                case.unmapped.append(f"{side}'s {name} {leaf.shape}")
            else:
                case.notes.append(f"{side}'s buffer {name} has no twin, and keeps its value")


def _run(case: Case) -> None:
    case.recorded = case.record()
    case.forced = case.force()


def _check_calls(case: Case) -> None:
    """Leave out layers that one side calls more often; their callers take their place."""
    for _ in range(4):
        calls: dict[str, int] = {}
        for name, _, call in case.recorded.arrays:
            calls[name] = max(calls.get(name, 0), call + 1)
        unlike = [
            layer
            for layer in case.layers
            if calls.get(layer.torch) != case.forced.calls.get(layer.jax)
        ]
        if not unlike:
            return
        left_out = {layer.torch for layer in unlike}
        ours = {n: node for n, node in case.torch.nodes().items() if n not in left_out}
        names = {layer.jax for layer in unlike}
        theirs = {n: node for n, node in case.jax.nodes().items() if n not in names}
        case.layers = (
            shared_layers(case.map, ours, theirs)
            if theirs
            else [layer for layer in case.layers if layer.torch not in left_out]
        )
        first = unlike[0]
        said = (
            f"{first.torch} is called {calls.get(first.torch, 0)} times in PyTorch"
            f" and {case.forced.calls.get(first.jax, 0)} times in JAX"
        )
        kept = [layer.torch for layer in case.layers]
        recurrent = case.torch.nodes()[plain(first.torch)].kind == "recurrent"
        inside = any(plain(first.torch).startswith(name) for name in kept)
        rows = [row for row in case.map.rows if row.jax.startswith(f"{first.jax}.")]
        stacked = any(map(is_stacked, rows))
        if not (inside or recurrent or stacked or first.product):
            raise PairError(f"{said}; call both as often, or give functions to call them with")
        case.notes.append(said)
        _run(case)
