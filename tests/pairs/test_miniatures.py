"""The miniatures are what they say, as far as can be seen without a proof."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
from flax import linen, nnx
from torch import nn

from parity.pairs.pair import Pair
from tests.pairs.miniatures import MINIATURES, Miniature

RIGHT = [miniature for miniature in MINIATURES.values() if not miniature.differences]
WRONG = [miniature for miniature in MINIATURES.values() if miniature.differences]
FUNCTIONS = [
    miniature
    for miniature in MINIATURES.values()
    if miniature.name.startswith(("f-", "l-", "straight", "ties"))
]
"""Those without parameters, whose sides can be compared as they are."""
TRAINED = [miniature for miniature in MINIATURES.values() if miniature.name.startswith("t-")]

each = pytest.mark.parametrize("miniature", MINIATURES.values(), ids=MINIATURES)


def torch_model(pair: Pair) -> Callable[..., Any]:
    """Return PyTorch's side as a function of its inputs."""
    net = pair.torch.eval() if isinstance(pair.torch, nn.Module) else pair.torch
    call = pair.call_torch or (lambda net, *inputs: net(*inputs))
    return lambda *inputs: call(net, *inputs)


def jax_model(pair: Pair) -> Callable[..., Any]:
    """Return JAX's side as a function of its inputs."""
    net, call = pair.jax, pair.call_jax or (lambda net, *inputs: net(*inputs))
    if isinstance(net, nnx.Module):
        net.eval()
        graph, variables = nnx.split(net)
        # made anew in each call, so that it can be traced
        return lambda *inputs: call(nnx.merge(graph, variables, copy=True), *inputs)
    if isinstance(net, tuple) and isinstance(net[0], linen.Module):
        net = net[0].bind(net[1])
    elif isinstance(net, tuple):
        function, params = net
        net = lambda *inputs: function(params, *inputs)  # noqa: E731 - shorter than a def
    return lambda *inputs: call(net, *inputs)


def leaves(outputs: Any) -> Iterator[np.ndarray]:
    """Yield the arrays of nested outputs."""
    for leaf in jax.tree.leaves(outputs):
        yield leaf.detach().numpy() if isinstance(leaf, torch.Tensor) else np.asarray(leaf)


def outputs(pair: Pair) -> tuple[Any, Any]:
    """Return what each side computes."""
    ours = torch_model(pair)(*map(torch.from_numpy, pair.inputs))
    return ours, jax_model(pair)(*map(jax.numpy.asarray, pair.inputs))


def test_half_of_them_are_right() -> None:
    single = [miniature for miniature in WRONG if len(miniature.differences) == 1]
    assert len(RIGHT) >= 33
    assert len(single) >= 33
    assert 4 <= len(WRONG) - len(single) <= 6


@each
def test_both_sides_run_to_outputs_of_the_same_shapes(miniature: Miniature) -> None:
    pair = miniature.build(0)
    ours = torch_model(pair)(*map(torch.from_numpy, pair.inputs))
    theirs = jax.eval_shape(jax_model(pair), *pair.inputs)  # compiles nothing
    for a, b in zip(leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert sorted(a.shape) == sorted(b.shape)
        assert np.isfinite(a).all()


def test_places_are_between_layers_that_exist() -> None:
    for miniature in WRONG:
        pair = miniature.build(0)
        layers = {"input", "output", "loss"} | ({"optimizer"} if pair.optimizer else set())
        if isinstance(pair.torch, nn.Module):
            layers |= {name for name, net in pair.torch.named_modules() if [*net.parameters()]}
        for difference in miniature.differences:
            where = difference.torch
            assert (difference.kind == "inside") == isinstance(where, str), miniature.name
            assert ({where} if isinstance(where, str) else {*where}) <= layers, miniature.name


def test_miniatures_are_built_anew_from_their_seeds() -> None:
    for miniature in MINIATURES.values():
        first, again, other = (miniature.build(seed) for seed in (0, 0, 1))
        for a, b, c in zip(state(first), state(again), state(other), strict=True):
            assert np.array_equal(a, b), miniature.name
            assert a.shape == c.shape, miniature.name
        assert any(
            not np.array_equal(a, b) for a, b in zip(state(first), state(other), strict=True)
        )
        if isinstance(first.torch, nn.Module):
            assert first.torch is not again.torch, miniature.name


def state(pair: Pair) -> list[np.ndarray]:
    """Return the inputs of a pair and all weights of its two sides."""
    ours = [*pair.torch.state_dict().values()] if isinstance(pair.torch, nn.Module) else []
    theirs = pair.jax
    if isinstance(theirs, nnx.Module):
        theirs = nnx.state(theirs, (nnx.Param, nnx.BatchStat))
    arrays = [leaf for leaf in jax.tree.leaves(theirs) if isinstance(leaf, jax.Array)]
    return [*pair.inputs, *leaves(ours), *leaves(arrays)]


@pytest.mark.parametrize("miniature", FUNCTIONS, ids=lambda miniature: miniature.name)
def test_functions_without_parameters_agree_if_they_are_right(miniature: Miniature) -> None:
    forward = all(difference.stage == "forward" for difference in miniature.differences)
    stages = {difference.stage for difference in miniature.differences}
    with jax.enable_x64(True):
        pair = in_float64(miniature.build(0))
        ours, theirs = gradients(pair) if "gradients" in stages else outputs(pair)
        errors = [np.abs(a - b).max() for a, b in zip(leaves(ours), leaves(theirs), strict=True)]
    rounding = 1e-6 if miniature.notes else 1e-12
    assert (max(errors) < rounding) == (not miniature.differences)
    assert forward or max(errors) > 0.1


def in_float64(pair: Pair) -> Pair:
    """Return the pair with inputs in float64."""
    inputs = [x.astype(np.float64) if x.dtype == np.float32 else x for x in pair.inputs]
    return Pair(torch=pair.torch, jax=pair.jax, inputs=inputs)


def gradients(pair: Pair) -> tuple[torch.Tensor, jax.Array]:
    """Return the gradient of each side's sum with respect to its first input."""
    x = torch.from_numpy(pair.inputs[0]).requires_grad_()
    (ours,) = torch.autograd.grad(torch_model(pair)(x).sum(), x)
    model = jax_model(pair)
    return ours, jax.grad(lambda x: model(x).sum())(jax.numpy.asarray(pair.inputs[0]))


@pytest.mark.parametrize("miniature", TRAINED, ids=lambda miniature: miniature.name)
def test_each_side_can_make_a_step(miniature: Miniature) -> None:
    pair = miniature.build(0)
    assert pair.loss is not None
    assert pair.optimizer is not None
    ours, theirs = outputs(pair)
    loss = pair.loss[0](ours, *map(torch.from_numpy, pair.targets))
    loss.backward()
    made = pair.optimizer[0](pair.torch.parameters())
    optimizer, *schedules = made if isinstance(made, tuple) else (made,)
    before = [p.detach().clone() for p in pair.torch.parameters()]
    optimizer.step()
    for schedule in schedules:
        schedule.step()
    assert not all(torch.equal(a, b) for a, b in zip(before, pair.torch.parameters(), strict=True))
    assert pair.loss[1](theirs, *pair.targets).shape == ()
    params = nnx.state(pair.jax, nnx.Param)
    updates, _ = pair.optimizer[1].update(params, pair.optimizer[1].init(params), params)
    assert jax.tree.structure(optax.apply_updates(params, updates)) == jax.tree.structure(params)
