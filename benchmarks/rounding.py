"""Measure how far right float32 code is from float64 in σ of stochastic arithmetic.

`python -m benchmarks.rounding functions` prints the error of elementary functions in units, and
`python -m benchmarks.rounding [SEEDS]` for each program of the tests the largest |error|/σ
of JAX (op by op, and jit) and PyTorch, median and maximum over seeds, then what reduced precision
makes, then how the largest depends on the samples and the floor of σ.
"""

import sys
from collections import defaultdict

import jax
import numpy as np
import torch

from parity.pairs.rounding import arithmetic
from tests.pairs import precision
from tests.pairs.programs import PROGRAMS, Program

SETTINGS = [(samples, floor) for samples in (2, 4, 8) for floor in (0.0, 0.25, 0.5)]
FUNCTIONS = """exp exp2 expm1 log log1p log2 tanh sigmoid erf erfc rsqrt sin cos tan arcsin arccos
arctan sinh cosh arcsinh arccosh arctanh cbrt i0 i0e erfinv"""
POSITIVE = ("log", "log2", "log1p", "rsqrt", "arccosh")


def ratio(truth: list, runs: list, found: list, floor: float = arithmetic.FLOOR) -> float:
    """Return the largest |error|/σ over all outputs."""
    sigmas = [
        arithmetic.pooled(out, [run[place] for run in runs], floor=floor)
        for place, out in enumerate(truth)
    ]
    return max(map(arithmetic.evidence, truth, found, sigmas))


def reduced(program: Program, arrays: list, sides: dict) -> dict[str, float]:
    """Return |error|/σ of less precise code: products of few bits, a float16 weight."""
    half = [arrays[0], arrays[1].astype(np.float16).astype(np.float32), *arrays[2:]]
    found = {}
    for side, fewer in (("jax", precision.jax_reduced), ("torch", precision.torch_reduced)):
        truth, runs = sides[side]
        for name, bits, last in (("TF32", 10, False), ("bfloat16, one product", 7, True)):
            found[f"{name}, {side}"] = ratio(truth, runs, fewer(program, arrays, bits, last=last))
    for side, outputs in (("jax", precision.jax_outputs), ("torch", precision.torch_outputs)):
        truth, runs = sides[side]
        found[f"float16 weight, {side}"] = ratio(truth, runs, outputs(program, half))
    return found


def functions() -> None:
    """Print the rms and the largest relative error of each function, in units."""
    special = {"sigmoid": "expit", "erf": "erf", "erfc": "erfc", "i0e": "i0e", "erfinv": "erfinv"}
    print(f"{'function':9} {'JAX':>14} {'PyTorch':>14}   rms, maximum, in 2^-24")
    for name in FUNCTIONS.split():
        bound = 0.99 if name in ("arcsin", "arccos", "arctanh", "erfinv") else 8.0
        low = {"arccosh": 1.0}.get(name, 1e-3 if name in POSITIVE else -bound)
        x = np.random.default_rng(0).uniform(low, bound, 10**5).astype(np.float32)
        function = jax.lax.rsqrt if name == "rsqrt" else getattr(jax.numpy, name, None)
        function = function or getattr(jax.scipy.special, special[name])
        with jax.enable_x64(True):
            truth = np.asarray(function(x.astype(np.float64)))
        other = getattr(torch, name, None) or getattr(torch.special, name, None)
        found = [function(x), other(torch.from_numpy(x)) if other else truth]
        errors = [np.abs(np.asarray(y, np.float64) / truth - 1) * 2**24 for y in found]
        cells = [f"{np.sqrt(np.square(e).mean()):6.2f} {e.max():7.1f}" for e in errors]
        print(f"{name:9} {' '.join(cells)}")


def main(seeds: int) -> None:
    """Print the tables."""
    settings, low, everything = defaultdict(list), defaultdict(list), []
    products = ("mlp", "deep", "conv_bn", "conv_bn_eval", "attention", "vit_block", "lstm", "wide")
    print(
        f"{'program':18} {'op by op':>13} {'jit':>13} {'PyTorch':>13}   median, maximum of {seeds}"
    )
    for name, program in PROGRAMS.items():
        rows = defaultdict(list)
        for seed in range(seeds):
            arrays = program.draw(seed)
            sides = {
                "jax": precision.jax_runs(program, arrays, seed),
                "torch": precision.torch_runs(program, arrays, seed),
            }
            found = {
                "op by op": ("jax", precision.jax_outputs(program, arrays, jit=False)),
                "jit": ("jax", precision.jax_outputs(program, arrays, jit=True)),
                "PyTorch": ("torch", precision.torch_outputs(program, arrays)),
            }
            for way, (side, outputs) in found.items():
                truth, runs = sides[side]
                for samples, floor in SETTINGS:
                    value = ratio(truth, runs[:samples], outputs, floor)
                    settings[samples, floor].append(value)
                    if (samples, floor) == (arithmetic.SAMPLES, arithmetic.FLOOR):
                        rows[way].append(value)
            if name in products:
                for kind, value in reduced(program, arrays, sides).items():
                    low[name, kind].append(value)
        everything += [value for values in rows.values() for value in values]
        cells = [f"{np.median(rows[way]):6.2f} {max(rows[way]):6.2f}" for way in rows]
        print(f"{name:18} " + " ".join(cells), flush=True)
    print("\nall right runs: quantiles 50, 90, 99, 99.9 %, maximum")
    print(len(everything), np.quantile(everything, [0.5, 0.9, 0.99, 0.999, 1]).round(2))
    print("\nreduced precision: minimum and median over seeds")
    for (name, kind), values in low.items():
        print(f"{name:18} {kind:28} {min(values):10.0f} {np.median(values):10.0f}")
    print("\nsamples, floor: 50, 90, 99, 99.9 %, maximum")
    for key, values in settings.items():
        print(*key, np.quantile(values, [0.5, 0.9, 0.99, 0.999, 1]).round(2))


if __name__ == "__main__":
    if sys.argv[1:] == ["functions"]:
        functions()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
