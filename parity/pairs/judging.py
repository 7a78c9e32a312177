"""The proof of a pair, part by part."""

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import replace
from typing import Any, Literal

import jax
import numpy as np
import torch

from parity.contract.version import provenance
from parity.pairs.case import Case, prepare
from parity.pairs.forward.locate import differences
from parity.pairs.forward.lowprecision import low_precision
from parity.pairs.forward.places import accepted, grouped, layer_table
from parity.pairs.forward.repair import repair
from parity.pairs.gradients.regions import gradient_differences
from parity.pairs.jax_side.cpu import on_cpu
from parity.pairs.memory import trim
from parity.pairs.pair import Pair, PairError
from parity.pairs.planting.planted import counts, planted
from parity.pairs.proof import Difference, MapRow, Proof
from parity.pairs.rounding.float32 import judge_single
from parity.pairs.rounding.noise import set_rounding
from parity.pairs.torch_side.recording import Recording
from parity.pairs.training.steps import renamed, training_differences
from parity.pairs.training.trained import loss_pair

Progress = Callable[[str, int, int], None]


@on_cpu()
def prove(
    pair: Pair,
    *,
    seed: int = 0,
    weights: Literal["drawn", "given"] = "drawn",
    map: Sequence[MapRow] = (),
    progress: Progress = lambda *_: None,
) -> Proof:
    """Prove that a pair's two sides are the same computation, or locate every difference.

    `weights` drawn: all leaves are drawn anew from `seed`, so that nothing hides behind zeros or
    ones. `map` holds rows of the user's, which win. Both sides compute on the CPU: on a GPU JAX's
    products are of TF32. PairError: the pair cannot be proved as it is; NondeterminismError: a side
    differs from itself; DeviceError: JAX has no CPU here.
    """
    for name in ("torch", "jax"):
        if getattr(pair, name) is None:
            raise PairError(f"Pair: {name} is missing; give it, or record the other side")
    try:
        return copy_context().run(_prove, pair, seed, weights, map, progress)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or re.search(r"RESOURCE_EXHAUSTED|alloc", str(error)):
            raise PairError("out of memory; give a smaller batch or model") from error
        raise


def _prove(
    pair: Pair,
    seed: int,
    weights: str,
    rows: Sequence[MapRow],
    progress: Progress,
    *,
    nested: bool = False,
) -> Proof:
    case = prepare(pair, seed, weights, rows, progress)
    trim()
    repair(case, progress)
    progress("rounding", 2, 4)
    with np.errstate(invalid="ignore"):  # infinities, as of a mask, have no spread
        set_rounding(case)
    located = differences(case, progress)
    narrow, notes = low_precision(case)
    trim()
    case.notes += notes
    forward = [
        accepted(one, pair.accept) for one in [*(one.difference for one in located), *narrow]
    ]
    gradients, said = _gradients(case, forward, seed)
    trim()
    training, told, of_loss = _training(case, [*forward, *gradients], seed)
    float32, precision = ([], "") if nested else _float32(case, forward)
    every = grouped([*forward, *gradients, *training, *float32])
    counted = [one for one in every if one.accepted is None]
    layers = layer_table(case)
    summary = {"weights": _weights(case), "forward": _forward(forward, layers)}
    summary["gradients"] = said
    if told:
        summary["training"] = told
    summary["float32"] = precision
    same = not counted and not case.unmapped
    progress("planted mistakes", 3, 4)
    plants = counts(planted(case), of_loss) if same else {}
    if plants:
        summary["trust"] = _trust(plants)
    return Proof(
        same=same,
        differences=every,
        notes=case.notes,
        map=case.map.rows,
        layers=layers,
        coverage={**_coverage(case), "planted": plants},
        summary=summary,
        environment=environment(),
    )


def _gradients(
    case: Case, forward: Sequence[Difference], seed: int
) -> tuple[list[Difference], str]:
    if any(one.accepted is None for one in forward) or case.unmapped:
        differ = "the forward passes differ (--accept names a difference that is meant)"
        return [], f"not judged, since {differ}"
    if isinstance(case.pair.torch, Recording) and not case.pair.torch.differentiable:
        return ([], "not judged: the recording has other ones (torch.no_grad, or one's own)")
    try:
        found, compared = gradient_differences(case, seed)
    except ValueError as error:
        if "Reverse-mode differentiation" not in str(error):
            raise
        return [], "not judged: JAX has none of a loop that ends by itself (lax.while_loop)"
    meant = {str(one.torch): one.cause for one in forward}
    found = [
        replace(one, accepted=f"follows from {meant[str(one.torch)]}", cause=None)
        if str(one.torch) in meant
        else one
        for one in found
    ]
    found = [accepted(one, case.pair.accept) if one.accepted is None else one for one in found]
    if not compared:
        return [], "not judged, since nothing has one"
    return found, f"{_many(found)} in {compared} gradients of leaves, inputs and layers' values"


def _float32(case: Case, before: Sequence[Difference]) -> tuple[list[Difference], str]:
    if any(one.accepted is None for one in before) or case.unmapped:
        return [], "not judged, since the forward passes differ"
    with np.errstate(invalid="ignore", over="ignore"):
        found, said = judge_single(case)
    return [accepted(one, case.pair.accept) for one in found], said


def _training(
    case: Case, before: Sequence[Difference], seed: int
) -> tuple[list[Difference], str, Mapping[str, Any]]:
    """Return the differences, what to say, and what was planted into the loss."""
    pair = case.pair
    if pair.loss is None:
        return [], "", {}
    if isinstance(pair.torch, Recording):
        return [], "not judged, since a recording of PyTorch's side holds none", {}
    if any(one.accepted is None for one in before) or case.unmapped:
        return [], "not judged, since what comes before it differs", {}
    given = (loss_pair(case), seed, "drawn", (), lambda *_: None)
    losses = copy_context().run(_prove, *given, nested=True)
    found = [replace(renamed(one), accepted=None) for one in losses.differences]
    if pair.optimizer is None:
        said = f"the losses are {'the same' if losses.same else 'not the same'}"
        return found, said, losses.coverage["planted"]
    if not found:
        found = training_differences(case, updates_only=bool(before))
    found = [accepted(one, pair.accept) for one in found]
    what = (
        "updates; the rest follows from what is accepted"
        if before
        else ("loss, gradients, buffers, updates")
    )
    return found, f"{_many(found)} in {pair.steps} steps: {what}", losses.coverage["planted"]


def _trust(plants: Mapping[str, Any]) -> str:
    if not any(plants.values()):
        return "no mistake of the catalogue applies to the JAX side"
    said = f"this proof sees {plants['found']} of {plants['of']} mistakes planted into the JAX side"
    for what in ("not found", "without effect"):
        names = plants[what]
        if names:
            shown = ", ".join(names[:3]) + ", …" * (len(names) > 3)
            said += f"; {what}{' on these inputs' * (what == 'without effect')}: {shown}"
    return said


def environment() -> dict[str, Any]:
    """Return when and by what a proof was made, and the versions."""
    import flax
    import numpy as np

    return {
        **provenance(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "jax": jax.__version__,
        "flax": flax.__version__,
        "numpy": np.__version__,
    }


def _weights(case: Case) -> str:
    ours = {row.torch for row in case.map.rows}
    theirs = {row.jax for row in case.map.rows}
    have, want = len(case.torch.leaves), len(case.jax.leaves)
    if len(ours) == have and len(theirs) == want and have == want:
        return f"{have} of {have} leaves on each side mapped"
    return f"{len(ours)} of {have} leaves of PyTorch mapped to {len(theirs)} of {want} of JAX"


def _coverage(case: Case) -> dict[str, Any]:
    return {
        "layers": len(case.layers),
        "unmapped": case.unmapped,
        "not compared": case.forced.uncompared,
    }


def _many(differences: Sequence[Difference]) -> str:
    """Return how many differences are listed, and of how many places where these are more."""
    listed = grouped(differences)
    places = sum(1 + len(one.also) for one in listed)
    said = f"{len(listed)} difference{'s' * (len(listed) != 1)}"
    return said + f" at {places} places" * (places > len(listed))


def _forward(differences: Sequence[Difference], layers: Any) -> str:
    inside = {
        name for one in differences if one.kind == "inside" for name in [one.torch, *one.also]
    }
    many = _many(differences)
    if not layers:
        return f"{many}; compared as a whole, since no layers are called"
    other = [layer.torch for layer in layers if layer.inside is None]
    same = len(layers) - len(inside) - len(other)
    said = f"{many}, {same} of {len(layers)} layers the same function"
    if other:
        said += f"; not compared, since what they return has other sizes: {', '.join(other[:3])}"
    return said + ", …" * (len(other) > 3)
