"""What is trained by chance, and what is frozen; optimisers that differ twice."""

import functools
from dataclasses import replace
from typing import Any

import jax
import optax
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from parity.pairs.judging import prove
from parity.pairs.pair import Pair, PairError
from tests.pairs.miniatures.registry import floats


class Dropped(nn.Module):
    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.fc, self.draw = nn.Linear(4, 3), draw

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return y * self.draw(y) if self.training else y


def dropped(draw: Any, port: Any = None) -> Pair:
    return Pair(
        torch=Dropped(draw),
        jax=port or nnx.Linear(4, 3, rngs=nnx.Rngs(0)),
        inputs=(floats(0, 6, 4),),
        loss=(lambda y: (y**2).mean(), lambda y: (y**2).mean()),
        optimizer=(lambda p: torch.optim.SGD(p, lr=0.1), optax.sgd(0.1)),
    )


@pytest.mark.parametrize(
    "draw",
    [
        lambda y: y.new_empty(len(y), 1).bernoulli_(0.9).div_(0.9),
        lambda y: torch.bernoulli(torch.full_like(y, 0.8)) / 0.8,
    ],
    ids=["bernoulli_", "bernoulli"],
)
def test_a_path_that_is_dropped_by_chance_is_kept(draw: Any) -> None:
    assert prove(dropped(draw)).same


def test_random_numbers_in_train_mode_are_refused_with_their_line() -> None:
    with pytest.raises(
        PairError, match=r"PyTorch's side draws .*rand.*test_train_mode.py.*train_to"
    ):
        prove(dropped(lambda y: torch.rand_like(y)))
    noise = functools.partial(jax.random.uniform, shape=(6, 3))
    pair = replace(
        dropped(lambda y: 1.0), train_jax=lambda net, x: net(x) * noise(jax.random.key(0))
    )
    with pytest.raises(PairError, match=r"JAX's side draws .*random_bits.*train_jax="):
        prove(pair)


def test_epsilon_is_named_also_beside_another_rule_of_clipping() -> None:
    class Clipped(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            params = [p for group in self.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(params, 0.01)
            return super().step(closure)

    ours = functools.partial(Clipped, lr=1e-3, eps=1e-8)
    theirs = optax.chain(optax.clip_by_global_norm(0.01), optax.adam(1e-3, eps=1e-3))
    pair = replace(dropped(lambda y: 1.0), optimizer=(ours, theirs))
    causes = [difference.cause for difference in prove(pair).differences]
    assert causes == ["clip-epsilon", "adam-epsilon"]


def test_an_optimizer_with_betas_and_no_epsilon_is_judged() -> None:
    class Lion(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 1e-3, "betas": (0.9, 0.99)})

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            for p in self.param_groups[0]["params"]:
                p.add_(p.grad.sign(), alpha=-1e-3)

    pair = replace(dropped(lambda y: 1.0), optimizer=(Lion, optax.lion(1e-2)))
    assert [difference.where for difference in prove(pair).differences] == ["inside optimizer"]


def test_what_is_frozen_is_judged_by_whether_jax_trains_it() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    net[0].requires_grad_(False)
    port = nnx.Sequential(*(nnx.Linear(a, b, rngs=nnx.Rngs(0)) for a, b in ((4, 3), (3, 2))))

    def pair(theirs: Any) -> Pair:
        ours = functools.partial(torch.optim.SGD, lr=0.1)
        trained = dropped(torch.ones_like, port)
        return replace(trained, torch=net, inputs=(floats(0, 5, 4),), optimizer=(ours, theirs))

    (found,) = prove(pair(optax.sgd(0.1))).differences
    assert (found.where, found.cause) == ("inside 0", "frozen")
    labels = {"layers": {"0": "held", "1": "trained"}}
    masked = optax.multi_transform({"held": optax.set_to_zero(), "trained": optax.sgd(0.1)}, labels)
    proof = prove(pair(masked))
    assert proof.same, proof
    assert any("takes no gradient of 0.weight" in note for note in proof.notes)


def test_attention_that_could_draw_is_no_random_number() -> None:
    def attend(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return attend(self.fc(x))

    class FlaxAttend(nnx.Module):
        def __init__(self) -> None:
            self.fc = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            y = self.fc(x)
            return jax.nn.softmax(y @ y.swapaxes(-1, -2) / 2.0) @ y

    pair = replace(
        dropped(lambda y: 1.0), torch=Attend(), jax=FlaxAttend(), inputs=(floats(0, 2, 3, 4),)
    )
    assert prove(pair).same
