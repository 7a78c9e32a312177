"""float32: is each side as close to its own float64 as its rounding explains?

At every shared layer both get the same float32 numbers, so that an error is one of that layer, or
of the code before it, alone. The yardstick is stochastic arithmetic (`rounding`).
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from parity.pairs.case import Case
from parity.pairs.forward.forced import force
from parity.pairs.forward.places import place_of
from parity.pairs.proof import Difference
from parity.pairs.rounding.arithmetic import UNITS, evidence, pooled
from parity.pairs.rounding.dispatch import Perturbed
from parity.pairs.rounding.noise import noisy
from parity.pairs.torch_side.model import arrays
from parity.pairs.torch_side.operations import laid_out, mark
from parity.pairs.torch_side.recorded import Key

At = tuple[Key, int]
Arrays = Mapping[At, np.ndarray]
SAMPLES = 4
LAMBDA = 16.0
"""Four samples leave at most 7.8 σ in 1,200 right runs (`python -m benchmarks.rounding`), and
`rounding.LAMBDA` is for eight: twice as far is as sure, and reduced precision lies at 135 and more.
"""
LARGE = 20_000_000
"""Elements at layers, above which float32 is not judged: nine runs of each side are needed."""


@dataclass(frozen=True)
class Single:
    """How far a side's float32 is from its float64, in σ, at the worst place."""

    side: str
    ratios: Mapping[Key, float]
    sizes: Mapping[Key, float]

    @property
    def worst(self) -> float:
        """The largest ratio."""
        return max(self.ratios.values(), default=0.0)


def judge_single(case: Case) -> tuple[list[Difference], str]:
    """Return the places where a side's float32 is worse than rounding, and what to say."""
    size = sum(array.size for group in case.recorded.arrays.values() for array in group)
    if case.insists or case.islands - {"float32"}:
        return [], "not judged, since a part asks for a type of its own"
    if any(made.dtype.startswith("complex") for made in case.recorded.operations):
        return [], "not judged, since a part computes with complex numbers"
    if size > LARGE:
        return [], f"not judged: {size:,} elements at layers, more than {LARGE:,}"
    sides = [_jax(case), _torch(case)]
    found = [difference for side in sides for difference in _differences(case, side)]
    said = ", ".join(f"{side.side}: {side.worst:.1f} σ" for side in sides)
    verdict = "both are rounding" if not found else f"more than rounding's {LAMBDA:g} σ"
    return found, f"{said} from its float64 self: {verdict}"


def _judged(side: str, truth: Arrays, runs: list[Arrays], single: Arrays) -> Single:
    ratios: dict[Key, float] = {}
    sizes: dict[Key, float] = {}
    for at, right in truth.items():
        samples = [run[at] for run in runs if at in run and run[at].shape == right.shape]
        if at not in single or len(samples) < len(runs) or not right.size:
            continue
        ratio = evidence(right, single[at], pooled(right, samples))
        if ratio >= ratios.get(at[0], -1.0):
            scale = float(np.abs(right[np.isfinite(right)]).max(initial=0)) or 1.0
            ratios[at[0]] = ratio
            sizes[at[0]] = float(np.nanmax(np.abs(single[at] - right))) / scale
    return Single(side, ratios, sizes)


def _rounded(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: _to_single(value) for name, value in values.items()}


def _to_single(value: np.ndarray) -> np.ndarray:
    value = np.asarray(value)
    return value.astype(np.float32).astype(np.float64) if value.dtype.kind == "f" else value


def _jax(case: Case) -> Single:
    values = _rounded(case.jax_values)
    inputs = [_to_single(x) for x in case.pair.inputs]
    recorded = type(case.recorded)(
        {key: [_to_single(x) for x in group] for key, group in case.recorded.arrays.items()},
        case.recorded.made_by,
        case.recorded.places,
        case.recorded.operations,
    )

    def run(program: Any, around: Any, as_traced: bool) -> Arrays:
        found = force(
            program,
            values,
            inputs,
            recorded,
            case.layers,
            around=around,
            like=case.forced,
            widen=case.widen and not as_traced,
            as_traced=as_traced,
            keep=True,
        )
        return {at: np.asarray(e.own, np.float64) for at, e in found.evidence.items() if e.is_float}

    truth = run(case.program, None, False)
    runs = [
        run(case.program, noisy(np.random.default_rng(seed), UNITS["float32"]), False)
        for seed in range(SAMPLES)
    ]
    program = case.jax.trace(values, inputs, precise=False)
    return _judged("JAX", truth, runs, run(program, None, True))


def _torch(case: Case) -> Single:
    values = _rounded(case.values)
    forced = {key: [_to_single(x) for x in group] for key, group in case.recorded.arrays.items()}
    inputs = [_to_single(x) for x in case.pair.inputs]

    def run(mode: Any, dtype: torch.dtype) -> Arrays:
        found: dict[At, np.ndarray] = {}

        def seen(layer: str, way: str, place: int, call: int, value: Any) -> Any:
            key = (layer, way, call)
            if key not in forced or place >= len(forced[key]):
                return value
            if value.is_floating_point():
                found[key, place] = value.detach().double().numpy().copy()
            new = torch.from_numpy(forced[key][place]).to(value.dtype)
            return mark(laid_out(new, value.stride()), "")

        outputs = _run_torch(case, values, inputs, seen, mode, dtype)
        for place, value in enumerate(outputs):
            if value.is_floating_point():
                found[("output", "in", 0), place] = value.detach().double().numpy().copy()
        return found

    truth = run(None, torch.float64)
    runs = [run(Perturbed(seed=seed), torch.float64) for seed in range(SAMPLES)]
    return _judged("PyTorch", truth, runs, run(None, torch.float32))


def _run_torch(
    case: Case,
    values: Mapping[str, np.ndarray],
    inputs: list[Any],
    seen: Any,
    mode: Any,
    dtype: Any,
) -> Any:
    side = case.torch
    side.set(values)
    try:
        wide = case.wide() if dtype == torch.float64 else contextlib.nullcontext()
        with torch.no_grad(), wide:
            return arrays(side.run(inputs, seen=seen, mode=mode, dtype=dtype))
    finally:
        side.set(case.values)


def _differences(case: Case, side: Single) -> list[Difference]:
    found = []
    for key, ratio in side.ratios.items():
        if ratio <= LAMBDA:
            continue
        kind, ours, theirs = place_of(case, key)
        digits = max(1, round(24 - np.log2(ratio / 2)))
        found.append(
            Difference(
                stage="float32",
                kind=kind,
                torch=ours,
                jax=theirs,
                size=side.sizes[key],
                rounding=side.sizes[key] * LAMBDA / ratio,
                cause="low-precision",
                explanation=f"{side.side}'s float32 is {ratio:.0f} σ from its float64: about"
                f" {digits} bits, as of TF32 (11), bfloat16 (8) or float16 (11)",
                fix="jax.default_matmul_precision('highest')"
                if side.side == "JAX"
                else "torch.set_float32_matmul_precision('highest')",
            )
        )
    return found
