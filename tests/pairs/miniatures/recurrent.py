"""Recurrent networks: cells by hand, by Flax, and PyTorch's fused ones."""

from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import linen, nnx
from torch import Tensor, nn

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import between, floats, inside, right, tokens, wrong


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.lstm = nn.LSTM(8, 10, batch_first=True)
        self.tag = nn.Linear(10, 4)

    def forward(self, ids: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.embed(ids))
        return self.tag(hidden)


def lstm_port(params: Any, ids: Any, order: str, forget: float, cell_tanh: bool) -> Any:
    x = params["table"][ids]

    def step(carry: Any, x: Any) -> Any:
        c, h = carry
        gates = x @ params["wx"] + params["bx"] + h @ params["wh"] + params["bh"]
        parts = dict(zip(order, jnp.split(gates, 4, -1), strict=True))
        c = jax.nn.sigmoid(parts["f"] + forget) * c
        c = c + jax.nn.sigmoid(parts["i"]) * jnp.tanh(parts["g"])
        h = jax.nn.sigmoid(parts["o"]) * (jnp.tanh(c) if cell_tanh else c)
        return (c, h), h

    start = jnp.zeros((x.shape[0], 10), x.dtype)
    _, hidden = jax.lax.scan(step, (start, start), x.swapaxes(0, 1))
    return hidden.swapaxes(0, 1) @ params["tag"] + params["tag_bias"]


@right("lstm-scan")
@wrong("lstm-gate-order", inside("lstm", "gate-order"), order="ifog")
@wrong("lstm-forget-bias", inside("lstm", "constant"), forget=1.0)
@wrong("lstm-no-tanh", inside("lstm", "activation"), cell_tanh=False)
def lstm(seed: int, *, order: str = "ifgo", forget: float = 0.0, cell_tanh: bool = True) -> Pair:
    shapes = {"table": (12, 8), "wx": (8, 40), "wh": (10, 40), "tag": (10, 4)}
    params: dict[str, Any] = {
        name: jnp.asarray(floats(seed + i, *shape)) / 3
        for i, (name, shape) in enumerate(shapes.items())
    }
    params |= {"bx": jnp.zeros(40), "bh": jnp.zeros(40), "tag_bias": jnp.zeros(4)}

    def port(params: Any, ids: Any) -> Any:
        return lstm_port(params, ids, order, forget, cell_tanh)

    return Pair(torch=Tagger(), jax=(port, params), inputs=(tokens(seed, 12, 2, 6),))


class FlaxTagger(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.emb = nnx.Embed(12, 8, rngs=rngs)
        self.rnn = nnx.RNN(nnx.OptimizedLSTMCell(8, 10, rngs=rngs))
        self.head = nnx.Linear(10, 4, rngs=rngs)

    def __call__(self, ids: Any) -> Any:
        x = self.emb(ids)
        start = jnp.zeros((x.shape[0], 10), x.dtype)
        hidden: Any = self.rnn(x, initial_carry=(start, start))
        return self.head(hidden)


@right("lstm-nnx", notes=("lstm.bias",))
def lstm_nnx(seed: int) -> Pair:
    """PyTorch's cell has two biases, of which only the sum matters; Flax's has one."""
    return Pair(torch=Tagger(), jax=FlaxTagger(nnx.Rngs(seed)), inputs=(tokens(seed, 12, 3, 5),))


class Summary(nn.Module):
    """Its recurrent layer reads both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 8, batch_first=True, bidirectional=True)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.gru(x)
        return self.out(hidden)


def gru_scan(p: Any, x: Any, before: bool, swapped: bool) -> Any:
    def step(h: Any, x: Any) -> Any:
        xr, xz, xn = jnp.split(x @ p["w_x"] + p["b_x"], 3, -1)
        hr, hz, hn = jnp.split(h @ p["w_h"] + p["b_h"], 3, -1)
        r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
        hn = (r * h) @ p["w_h"][:, 16:] + p["b_h"][16:] if before else r * hn
        n = jnp.tanh(xn + hn)
        h = z * n + (1 - z) * h if swapped else (1 - z) * n + z * h
        return h, h

    return jax.lax.scan(step, jnp.zeros((x.shape[1], 8), x.dtype), x)[1]


@right("gru-scan")
@wrong("gru-candidate", inside("gru", "cell-candidate"), before=True)
@wrong("gru-update", inside("gru", "gate-complement"), swapped=True)
@wrong("gru-backwards", inside("gru", "sequence-order"), unflipped=True)
def gru(seed: int, *, before: bool = False, swapped: bool = False, unflipped: bool = False) -> Pair:
    def params_of(seed: int) -> dict[str, Any]:
        return {
            "w_x": jnp.asarray(floats(seed, 6, 24)) / 2,
            "b_x": jnp.asarray(floats(seed + 1, 24)) / 9,
            "w_h": jnp.asarray(floats(seed + 2, 8, 24)) / 3,
            "b_h": jnp.asarray(floats(seed + 3, 24)) / 9,
        }

    def port(params: Any, x: Any) -> Any:
        x = x.swapaxes(0, 1)
        forward = gru_scan(params["forward"], x, before, swapped)
        backward = gru_scan(params["backward"], x[::-1], before, swapped)
        backward = backward if unflipped else backward[::-1]
        y = jnp.concatenate((forward, backward), -1).swapaxes(0, 1)
        return y @ params["out"]["w"] + params["out"]["b"]

    params = {
        "forward": params_of(seed),
        "backward": params_of(seed + 10),
        "out": {"w": jnp.asarray(floats(seed, 16, 3)), "b": jnp.zeros(3)},
    }
    return Pair(torch=Summary(), jax=(port, params), inputs=(floats(seed, 2, 7, 6),))


class Gated(nn.Module):
    """A GRU by hand, each gate a Linear; the layers are called once a step."""

    def __init__(self) -> None:
        super().__init__()
        self.xr, self.xz, self.xn = (nn.Linear(5, 9) for _ in range(3))
        self.hr, self.hz = (nn.Linear(9, 9, bias=False) for _ in range(2))
        self.hn = nn.Linear(9, 9)
        self.head = nn.Linear(9, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = x.new_zeros(len(x), 9)
        states = []
        for at in x.unbind(1):
            r = torch.sigmoid(self.xr(at) + self.hr(h))
            z = torch.sigmoid(self.xz(at) + self.hz(h))
            n = torch.tanh(self.xn(at) + r * self.hn(h))
            h = (1 - z) * n + z * h
            states.append(h)
        return self.head(h), torch.stack(states, 1)


class LinenGated(linen.Module):
    clipped: bool = False

    @linen.compact
    def __call__(self, x: Any) -> tuple[Any, Any]:
        cell = linen.GRUCell(9)
        h = jnp.zeros((x.shape[0], 9), x.dtype)
        states = []
        for t in range(x.shape[1]):
            h, _ = cell(h, x[:, t])
            states.append(h)
        last = jnp.clip(h, -0.1, 0.1) if self.clipped else h
        return linen.Dense(2)(last), jnp.stack(states, 1)


@right("gru-linen")
@wrong("gru-linen-clipped", between("hn", "head", "clip"), clipped=True)
def gru_linen(seed: int, **options: Any) -> Pair:
    x = floats(seed, 3, 4, 5)
    net = LinenGated(**options)
    return Pair(torch=Gated(), jax=(net, net.init(jax.random.key(seed), x)), inputs=(x,))
