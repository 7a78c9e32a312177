"""Training: optimisers, schedules, clipping, weight decay, running statistics, losses."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from parity.pairs.pair import Pair
from tests.pairs.miniatures.registry import Expected, floats, inside, right, tokens, wrong


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 12)
        self.fc2 = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))


class FlaxClassifier(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(8, 12, rngs=rngs)
        self.logits = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.logits(jnp.tanh(self.hidden(x)))


def cross_entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def smoothing(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=0.1)


def adam(params: Iterable[Tensor]) -> Optimizer:
    return Adam(params, lr=0.01, betas=(0.9, 0.999), eps=1e-8)


def adam_l2(params: Iterable[Tensor]) -> Optimizer:
    return Adam(params, lr=0.01, weight_decay=0.05)


def adamw(params: Iterable[Tensor]) -> Optimizer:
    return AdamW(params, lr=0.01, weight_decay=0.05)


def adamw_kernels(params: Iterable[Tensor]) -> Optimizer:
    params = list(params)
    kernels = [p for p in params if p.ndim > 1]
    biases = [p for p in params if p.ndim == 1]
    return AdamW([{"params": kernels}, {"params": biases, "weight_decay": 0.0}], 0.01, (0.9, 0.95))


def decayed(decay: float, **options: Any) -> Any:
    return optax.adamw(0.01, b2=0.95, weight_decay=decay, **options)


def kernels_only(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def rmsprop(params: Iterable[Tensor]) -> Optimizer:
    return RMSprop(params, lr=0.01, alpha=0.95, eps=1e-3)


def nesterov(params: Iterable[Tensor]) -> Optimizer:
    return SGD(params, lr=0.1, momentum=0.9, nesterov=True)


def clipped(exact: bool) -> Callable[[Iterable[Tensor]], Optimizer]:
    """SGD of clipped gradients: by PyTorch's function, or divided by the norm itself."""

    def clip(optimizer: Optimizer, *_: Any) -> None:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        if not exact:
            clip_grad_norm_(params, 0.05)
            return
        norm = torch.stack([p.grad.square().sum() for p in params]).sum().sqrt()
        for p in params:
            p.grad *= torch.clamp(0.05 / norm, max=1.0)

    def factory(params: Iterable[Tensor]) -> Optimizer:
        optimizer = SGD(params, lr=0.1, momentum=0.9)
        optimizer.register_step_pre_hook(clip)
        return optimizer

    return factory


CLIPPED = optax.chain(optax.clip_by_global_norm(0.05), optax.sgd(0.1, 0.9))


def cosine(params: Iterable[Tensor]) -> tuple[Optimizer, CosineAnnealingLR]:
    optimizer = AdamW(params, lr=0.02, weight_decay=0.01)
    return optimizer, CosineAnnealingLR(optimizer, T_max=6)


def cosine_port(offset: int = 0, steps: int = 6) -> Any:
    schedule = optax.cosine_decay_schedule(0.02, steps)
    return optax.adamw(lambda count: schedule(count + offset), weight_decay=0.01)


def warmup(params: Iterable[Tensor]) -> tuple[Optimizer, LambdaLR]:
    optimizer = SGD(params, lr=0.3)
    return optimizer, LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4))


WARMUP = optax.sgd(optax.linear_schedule(0.3 / 4, 0.3, 3))


def uncorrected() -> optax.GradientTransformation:
    """Adam, whose moments are used as they are, though they start at zero."""

    def init(params: Any) -> tuple[Any, Any]:
        return jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state[0], updates)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state[1], updates)
        return jax.tree.map(lambda m, v: -0.01 * m / (jnp.sqrt(v) + 1e-8), m, v), (m, v)

    return optax.GradientTransformation(init, update)


def _optimizer(name: str, cause: str, **options: Any) -> Any:
    return wrong(name, inside("optimizer", cause, "training"), **options)


@right("t-adam", ours=adam, theirs=optax.adam(0.01))
@right("t-adamw-kernels", ours=adamw_kernels, theirs=decayed(0.01, mask=kernels_only))
@right("t-rmsprop", ours=rmsprop, theirs=optax.rmsprop(0.01, 0.95, 1e-3, eps_in_sqrt=False))
@right("t-nesterov", ours=nesterov, theirs=optax.sgd(0.1, 0.9, nesterov=True))
@right("t-clipped", ours=clipped(exact=True), theirs=CLIPPED)
@right("t-cosine", ours=cosine, theirs=cosine_port(), steps=4)
@right("t-warmup", notes=("float32",), ours=warmup, theirs=WARMUP, steps=5)
@right(
    "t-coupled", ours=adam_l2, theirs=optax.chain(optax.add_decayed_weights(0.05), optax.adam(0.01))
)
@_optimizer(
    "t-decoupled", "coupled-decay", ours=adam_l2, theirs=optax.adamw(0.01, weight_decay=0.05)
)
@_optimizer("t-decay", "weight-decay", ours=adamw, theirs=optax.adamw(0.01))
@_optimizer("t-decays-biases", "weight-decay", ours=adamw_kernels, theirs=decayed(0.01))
@_optimizer("t-adam-epsilon", "adam-epsilon", ours=adam, theirs=optax.adam(0.01, eps=1e-6))
@_optimizer("t-betas", "betas", ours=adam, theirs=optax.adam(0.01, b2=0.99))
@_optimizer("t-uncorrected", "adam-bias-correction", ours=adam, theirs=uncorrected())
@_optimizer("t-rmsprop-root", "epsilon-place", ours=rmsprop, theirs=optax.rmsprop(0.01, 0.95, 1e-3))
@_optimizer("t-momentum", "nesterov", ours=nesterov, theirs=optax.sgd(0.1, 0.9))
@_optimizer("t-clip-epsilon", "clip-epsilon", ours=clipped(exact=False), theirs=CLIPPED)
@_optimizer(
    "t-clip-kind",
    "clip-kind",
    ours=clipped(exact=False),
    theirs=optax.chain(optax.clip(0.05), optax.sgd(0.1, 0.9)),
)
@_optimizer("t-clip-missing", "clip-missing", ours=clipped(exact=False), theirs=optax.sgd(0.1, 0.9))
@_optimizer("t-cosine-offset", "schedule-offset", ours=cosine, theirs=cosine_port(offset=1))
@wrong(
    "t-loss",
    Expected("training", "between", ("output", "loss"), "label-smoothing"),
    ours=adam,
    theirs=optax.adam(0.01),
    loss=smoothing,
)
def trained(
    seed: int,
    *,
    ours: Callable[..., Any],
    theirs: Any,
    loss: Callable[..., Tensor] = F.cross_entropy,
    steps: int = 3,
) -> Pair:
    return Pair(
        torch=Classifier(),
        jax=FlaxClassifier(nnx.Rngs(seed)),
        inputs=(floats(seed, 6, 8),),
        loss=(loss, cross_entropy),
        targets=(tokens(seed, 5, 6),),
        optimizer=(ours, theirs),
        steps=steps,
    )


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3)
        self.bn = nn.BatchNorm1d(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.bn(self.conv(x)).relu(), 0.2, self.training)
        return self.fc(x.mean(-1))


class OwnBatchNorm(nnx.Module):
    """Keeps its running statistics as PyTorch does, unless asked otherwise."""

    def __init__(self, width: int, momentum: float, unbiased: bool) -> None:
        self.scale, self.bias = nnx.Param(jnp.ones(width)), nnx.Param(jnp.zeros(width))
        self.mean, self.var = nnx.BatchStat(jnp.zeros(width)), nnx.BatchStat(jnp.ones(width))
        self.momentum, self.unbiased = momentum, unbiased
        self.use_running_average = False

    def __call__(self, x: Any) -> Any:
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = x.mean((0, 1)), x.var((0, 1))
            n = x.shape[0] * x.shape[1]
            kept = var * n / (n - 1) if self.unbiased else var
            self.mean[...] = self.mean[...] + self.momentum * (mean - self.mean[...])
            self.var[...] = self.var[...] + self.momentum * (kept - self.var[...])
        return (x - mean) * jax.lax.rsqrt(var + 1e-5) * self.scale[...] + self.bias[...]


class FlaxNormalised(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, library: bool, momentum: float, unbiased: bool) -> None:
        self.conv = nnx.Conv(3, 8, (3,), padding="VALID", rngs=rngs)
        if library:
            self.norm = nnx.BatchNorm(8, momentum=1 - momentum, epsilon=1e-5, rngs=rngs)
        else:
            self.norm = OwnBatchNorm(8, momentum, unbiased)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.dropout(jax.nn.relu(self.norm(self.conv(x))))
        return self.head(x.mean(1))


def _batch_norm(name: str, cause: str, **options: Any) -> Any:
    return wrong(name, inside("bn", cause, "training"), **options)


@right("t-batchnorm")
@_batch_norm("t-batchnorm-momentum", "momentum", momentum=0.01)
@_batch_norm("t-batchnorm-biased", "running-variance-unbiased", unbiased=False)
@_batch_norm("t-batchnorm-nnx", "running-variance-unbiased", library=True)
def batch_norm(
    seed: int, *, library: bool = False, momentum: float = 0.1, unbiased: bool = True
) -> Pair:
    return Pair(
        torch=Normalised(),
        jax=FlaxNormalised(nnx.Rngs(seed), library, momentum, unbiased),
        inputs=(floats(seed, 3, 3, 9),),
        call_jax=lambda net, x: net(x.transpose(0, 2, 1)),
        loss=(F.mse_loss, lambda y, t: jnp.mean((y - t) ** 2)),
        targets=(floats(seed + 100, 3, 2),),
        optimizer=(lambda params: SGD(params, lr=0.05), optax.sgd(0.05)),
    )
