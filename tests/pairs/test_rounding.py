"""Stochastic arithmetic: σ explains right code's rounding, and no reduced precision."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jax import lax
from torch.utils._python_dispatch import _get_current_dispatch_mode

from parity.pairs.rounding import arithmetic
from parity.pairs.rounding.arithmetic import LAMBDA, UNITS, evidence, inexact, pooled
from parity.pairs.rounding.dispatch import Perturbed
from parity.pairs.rounding.jaxpr import perturbed, spread
from tests.pairs import precision
from tests.pairs.programs import PROGRAMS

UNIT = UNITS["float32"]
SIDES = {
    "jax": (precision.jax_runs, precision.jax_outputs, precision.jax_reduced),
    "torch": (precision.torch_runs, precision.torch_outputs, precision.torch_reduced),
}
PROGRAM_NAMES = ["layer_norm_far", "log_softmax", "variance_one_pass", "roots"]
WITH_PRODUCTS = ["mlp", "conv_bn"]


def ratio(runs: tuple[list[Any], list[Any]], outputs: list[Any]) -> float:
    truth, samples = runs
    sigmas = [pooled(out, [run[i] for run in samples]) for i, out in enumerate(truth)]
    return max(map(evidence, truth, outputs, sigmas))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_rounding_explains_right_code(name: str, side: str) -> None:
    runs, outputs, _ = SIDES[side]
    arrays = PROGRAMS[name].draw(1)
    assert 0.1 < ratio(runs(PROGRAMS[name], arrays, 1), outputs(PROGRAMS[name], arrays)) < LAMBDA


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", WITH_PRODUCTS)
def test_rounding_explains_no_reduced_precision(name: str, side: str) -> None:
    runs, outputs, reduced = SIDES[side]
    program = PROGRAMS[name]
    arrays = program.draw(2)
    half = [arrays[0], arrays[1].astype(np.float16).astype(np.float32), *arrays[2:]]
    sampled = runs(program, arrays, 2)
    assert ratio(sampled, outputs(program, arrays)) < LAMBDA
    assert ratio(sampled, outputs(program, half)) > 10 * LAMBDA
    assert ratio(sampled, reduced(program, arrays, 10)) > 10 * LAMBDA
    assert ratio(sampled, reduced(program, arrays, 7, last=True)) > 10 * LAMBDA


KERNELS: dict[str, tuple[Callable[..., torch.Tensor], Any]] = {
    "smaller": (lambda x: F.interpolate(x, (5, 7), mode="bilinear", antialias=True), (2, 3, 12, 9)),
    "cubic": (lambda x: F.interpolate(x, (9, 20), mode="bicubic", antialias=True), (2, 3, 30, 8)),
    "area": (lambda x: F.interpolate(x, (11, 15), mode="area"), (2, 3, 7, 9)),
    "fold": (lambda x: F.fold(x, (6, 6), 3), (2, 27, 16)),
    "add at": (lambda x: x.index_put((torch.tensor([0, 1, 1]),), x[:3], accumulate=True), (4, 3)),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_rounding_explains_what_a_kernel_makes_inside(kernel: str) -> None:
    function, shape = KERNELS[kernel]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        truth, got = function(x.double()).numpy(), function(x).double().numpy()
        runs = []
        for seed in range(4):
            with Perturbed(seed=seed):
                runs.append(function(x.double()).numpy())
    assert 0.05 < evidence(truth, got, pooled(truth, runs)) < LAMBDA


def test_an_element_of_a_factor_errs_by_its_matrix() -> None:
    spread = arithmetic.relative_spread("qr", np.diag([3.0, 1e-9]), (), UNIT)
    np.testing.assert_allclose(spread, UNIT * 2**0.5 * 3.0, rtol=1e-12)


def test_jit_lies_as_near_as_op_by_op() -> None:
    program = PROGRAMS["layer_norm"]
    arrays = program.draw(3)
    runs = precision.jax_runs(program, arrays, 3)
    assert ratio(runs, precision.jax_outputs(program, arrays, jit=True)) < LAMBDA


def shake(function: Callable[..., Any], *arrays: np.ndarray) -> tuple[list[Any], list[Any]]:
    """Return a JAX function's float64 outputs, and those of one perturbed run."""
    rng = np.random.default_rng(0)

    def after(equation: Any, inputs: list[Any], outputs: list[Any]) -> list[Any]:
        name = equation.primitive.name
        return perturbed(name, equation.params, inputs, outputs, unit=UNIT, rng=rng)

    with jax.enable_x64(True):
        closed = jax.make_jaxpr(function)(*arrays)
        return precision.evaluate(closed, [*arrays]), precision.evaluate(
            closed, [*arrays], after=after
        )


X = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize(
    "move",
    [
        lambda x: jnp.pad(x.T.reshape(4, 12)[::-1, 1:], 1),
        lambda x: jnp.where(x > 0, -x, jnp.abs(x))[jnp.array([3, 1])],
        lambda x: jnp.clip(jnp.maximum(x, x[::-1]), -1, 1).max(0),
        lambda x: jnp.concatenate([jnp.sort(x), jnp.floor(x) + jnp.sign(x)]),
        lambda x: lax.stop_gradient(x) * 4.0 / 2.0,
        lambda x: jnp.arange(8.0) * 3 - 7,
        lambda x: jnp.zeros((3, 8)).at[1].set(x[0]),
        lambda x: jnp.sum(x[:, :1], 1),
    ],
)
def test_jax_moves_are_exact(move: Callable[..., Any]) -> None:
    truth, moved = shake(move, X)
    for a, b in zip(truth, moved, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize(
    "move",
    [
        lambda x: x.T.reshape(4, 12).flip(0)[:, 1:].contiguous().roll(2),
        lambda x: torch.where(x > 0, -x, x.abs())[torch.tensor([3, 1])],
        lambda x: x.maximum(x.flip(0)).clamp(-1, 1).amax(0).relu_(),
        lambda x: torch.cat([x.sort().values, x.floor().add_(x.sign())]),
        lambda x: x.detach().clone().mul_(4.0) / 2.0,
        lambda x: torch.arange(8.0, dtype=x.dtype) * 3 - 7,
        lambda x: torch.zeros(3, 8, dtype=x.dtype).index_fill_(0, torch.tensor(1), 3).copy_(x[:3]),
        lambda x: torch.nn.functional.interpolate(x[None], scale_factor=0.5),
        lambda x: torch.nn.functional.max_pool1d(torch.nn.functional.pad(x, (1, 1)), 2),
    ],
)
def test_torch_moves_are_exact(move: Callable[..., Any]) -> None:
    x = torch.from_numpy(X)
    mode = Perturbed()
    with torch.no_grad(), mode:
        moved = move(x)
    assert torch.equal(move(x), moved)
    assert not mode.without_rule


def test_a_cancellation_keeps_the_error_of_its_terms() -> None:
    x, y = np.full(2000, 1e4), np.linspace(1.1, 1.9, 2000)
    (truth,), (moved,) = shake(lambda x, y: (x * 1.1 + y) - x * 1.1, x, y)
    error = np.asarray(moved) - np.asarray(truth)
    assert 1 < error.std() / (UNIT * 1.1e4) < 3
    with torch.no_grad(), Perturbed():
        a, b = torch.from_numpy(x), torch.from_numpy(y)
        error = ((a * 1.1 + b) - a * 1.1).numpy() - np.asarray(truth)
    assert 1 < error.std() / (UNIT * 1.1e4) < 3


def test_a_product_errs_by_its_own_terms() -> None:
    x = np.stack([X[0], 1e-6 * X[1]])
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(jnp.dot)(x, X.T)
        (equation,) = closed.eqns
        product = [x @ X.T]
        (sigma,) = spread("dot_general", equation.params, [x, X.T], product, unit=UNIT)
    assert sigma is not None
    terms = x[:, None] * X[None]
    expected = UNIT * np.sqrt(8 * (np.square(terms).sum(-1) / 2 + np.square(terms.sum(-1)) / 3))
    np.testing.assert_allclose(sigma, expected, rtol=1e-5)
    assert sigma[1].max() < 1e-4 * sigma[0].min()


def test_scattering_errs_only_where_something_is_added() -> None:
    x = np.full(5, 1.1)
    (truth,), (moved,) = shake(lambda x: x.at[jnp.array([1, 1, 3])].add(0.3), x)
    np.testing.assert_array_equal(
        np.asarray(truth) != np.asarray(moved), [False, True, False, True, False]
    )


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32"])
def test_a_cast_errs_by_its_own_unit(name: str) -> None:
    def cast(x: Any) -> Any:
        return x.astype(name).astype(float)

    x = X / 3
    (truth,), (moved,) = shake(cast, x)
    error = np.abs((np.asarray(moved) - np.asarray(truth)) / x).max()
    assert 0.5 < error / UNITS[name] < 6
    with torch.no_grad(), Perturbed():
        y = torch.from_numpy(x).to(getattr(torch, name)).to(torch.float64)
    assert 0.5 < np.abs(y.numpy() / x - 1).max() / UNITS[name] < 6


def test_what_float32_holds_is_not_inexact() -> None:
    values = np.array([0.0, 1.5, -3e30, 2.0**-100, 0.1, 1 + 2.0**-24])
    values[2] = np.float32(values[2])
    assert inexact(values, UNIT).tolist() == [False] * 4 + [True] * 2


def test_in_place_and_out_are_perturbed_as_well() -> None:
    x = torch.from_numpy(X) + 0.1
    out = torch.empty(0, dtype=torch.float64)
    with torch.no_grad(), Perturbed():
        y = x.clone()
        assert y.mul_(1.1) is y
        assert torch.mm(x, x.T, out=out) is out
        z = x.clone()
        z[1:3].add_(0.3)
    assert 0 < (y / (x * 1.1) - 1).abs().max() < 2 * UNIT
    assert 0 < (out - x @ x.T).abs().max() < 1e-4
    assert torch.equal((z != x).any(1), torch.tensor([False, True, True, False, False, False]))
    assert (z[1:3] != x[1:3] + 0.3).all()


def test_batch_statistics_are_updated_once() -> None:
    norm = torch.nn.BatchNorm1d(8).double()
    with torch.no_grad(), Perturbed():
        norm(torch.from_numpy(X))
    expected = 0.1 * torch.from_numpy(X).mean(0)
    assert norm.num_batches_tracked == 1
    assert 0 < (norm.running_mean - expected).abs().max() < 1e-6  # type: ignore[operator]


def test_nothing_is_left_behind_when_the_code_raises() -> None:
    x = torch.from_numpy(X)
    with pytest.raises(RuntimeError, match="shape"), torch.no_grad(), Perturbed():
        _ = torch.nn.functional.layer_norm(x, (8,)) @ x
    assert _get_current_dispatch_mode() is None
    assert torch.equal(x * 1.1, torch.from_numpy(X * 1.1))


def test_one_seed_makes_one_run() -> None:
    first, again, other = (_softmax(seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def _softmax(seed: int) -> torch.Tensor:
    with torch.no_grad(), Perturbed(seed=seed):
        return torch.softmax(torch.from_numpy(X), -1)


def test_operations_without_a_rule_are_listed() -> None:
    with torch.no_grad(), (mode := Perturbed()):
        torch.linalg.cholesky(torch.eye(5).double())
    assert mode.without_rule == {"aten.linalg_cholesky_ex.default"}


def test_an_element_of_no_spread_has_a_part_of_the_tensors() -> None:
    truth, moved = np.zeros(4), np.array([1.0, 1.0, 1.0, 0.0])
    assert pooled(truth, [moved, -moved])[3] == arithmetic.FLOOR * np.sqrt(0.75)


def test_evidence_is_infinite_where_only_one_side_is_finite() -> None:
    truth = np.array([1.0, np.inf, np.nan])
    assert evidence(truth, truth, np.ones(3)) == 0
    assert evidence(truth, np.array([np.nan, np.inf, np.nan]), np.ones(3)) == np.inf
