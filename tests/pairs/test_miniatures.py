"""The miniatures are what they say: seen without a proof, and, of a sample, proved.

`python -m tests.pairs.every_miniature` proves all of them, from several seeds.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import linen, nnx
from torch import nn

from parity.pairs.judging import prove
from parity.pairs.pair import Pair
from tests.pairs.every_miniature import found, wanted
from tests.pairs.miniatures import MINIATURES, Miniature

RIGHT = [miniature for miniature in MINIATURES.values() if not miniature.differences]
WRONG = [miniature for miniature in MINIATURES.values() if miniature.differences]
FUNCTIONS = [
    miniature
    for miniature in MINIATURES.values()
    if miniature.name.startswith(("f-", "l-", "o-", "straight", "ties", "custom-"))
]
"""Those without parameters, whose sides can be compared as they are."""


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


SAMPLE = [
    "mlp", "mlp-bias-lacks", "mlp-softmax-added", "mlp-bfloat16", "seq2seq-logits", "vit",
    "vit-transposed", "gpt-rope-interleaved",
    "cnn-flatten-nhwc", "cnn-same-padding", "decoder-unflipped", "soft-experts", "lstm-scan",
    "island-float32", "stopped-not", "t-batchnorm-nnx", "t-clip-epsilon", "two-in-cnn",
    "thumbnail-aliased", "l-smoothing-others", "mlp-quick-gelu", "gru-candidate", "ties-half",
    "ties-min", "custom-beside-max", "padded-zeros", "experts-not-normalised", "lstm-gate-order",
    "gru-update", "gru-backwards", "gru-linen-clipped", "o-halves", "o-same", "o-tiled",
    "o-unmasked", "o-rotated",
]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_a_right_one_is_proved_and_each_mistake_is_located_and_named(name: str) -> None:
    miniature = MINIATURES[name]
    proof = prove(miniature.build(1), seed=1)
    assert found(proof) == wanted(miniature)
    assert proof.same == (not miniature.differences)
    if proof.same:
        assert 0 < proof.coverage["planted"]["found"] == proof.coverage["planted"]["of"]
    for word in miniature.notes:
        assert any(word in note for note in proof.notes)


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
