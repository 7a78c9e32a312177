"""Optimisers that differ from PyTorch's in one known way: the causes of another update."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad

Gradients = Sequence[Sequence[np.ndarray | None]]
"""Of each step, of each parameter."""


@dataclass(frozen=True)
class Other:
    """PyTorch's optimiser changed in one way."""

    cause: str
    explanation: str
    fix: str
    change: Callable[[Any], Any]
    """Changes an optimiser before its first step."""


def replay(
    factory: Callable[..., Any],
    start: Sequence[Sequence[np.ndarray]],
    gradients: Gradients,
    change: Callable[[Any], Any] = lambda _: None,
    *,
    late: int = 0,
) -> list[list[np.ndarray]]:
    """Return the parameters after each step from `start[step]`, which are fed each time.

    `late` steps of the schedule are made before the first update.
    """
    params = [nn.Parameter(torch.from_numpy(value.copy())) for value in start[0]]
    optimizer, scheduler = parts(factory(params))
    change(optimizer)
    for _ in range(late):
        if scheduler is not None:
            optimizer._opt_called = True
            scheduler.step()
    found = []
    for values, of_step in zip(start, gradients, strict=True):
        for param, value, gradient in zip(params, values, of_step, strict=True):
            param.data.copy_(torch.from_numpy(value))
            param.grad = None if gradient is None else torch.from_numpy(gradient.copy())
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        found.append([param.detach().numpy().copy() for param in params])
    return found


def parts(made: Any) -> tuple[Any, Any]:
    """Return optimiser and schedule of what a factory returns."""
    return (made[0], made[1]) if isinstance(made, tuple | list) else (made, None)


def _groups(**options: Any) -> Callable[[Any], None]:
    def change(optimizer: Any) -> None:
        for group in optimizer.param_groups:
            for name, value in options.items():
                if name not in group:
                    raise KeyError(name)
                group[name] = value(group) if callable(value) else value

    return change


def others(optimizer: Any) -> Iterator[Other]:
    """Yield each known way in which the other side's optimiser may differ."""
    group = optimizer.param_groups[0]
    yield from _decays(optimizer)
    for other in (1e-8, 1e-7, 1e-6, 1e-5, 1e-3, 1e-10, 1e-12, 0.0) if "eps" in group else ():
        if other != group["eps"]:
            yield Other(
                "adam-epsilon" if "betas" in group else "epsilon",
                f"PyTorch: epsilon {group['eps']:g}; JAX: {other:g}",
                f"eps={group['eps']:g} in JAX",
                _groups(eps=other),
            )
    yield from _moments(group, type(optimizer).__name__)
    for factor in (0.1, 10.0, 2.0, 0.5):
        yield Other(
            "learning-rate",
            f"JAX's learning rate is {factor:g} times PyTorch's",
            "give PyTorch's learning rate in JAX",
            _groups(lr=lambda group, f=factor: group["lr"] * f),
        )


def _decays(optimizer: Any) -> Iterator[Other]:
    """Yield other kinds and sizes of the weights' decay."""
    group = optimizer.param_groups[0]
    decays = {g.get("weight_decay", 0) for g in optimizer.param_groups}
    decay = max(decays)
    if "decoupled_weight_decay" in group and decay:
        coupled = not group["decoupled_weight_decay"]
        yield Other(
            "coupled-decay",
            f"PyTorch: {'in the gradient (L2)' if coupled else 'decoupled'}; JAX: the other",
            "optax.chain(optax.add_decayed_weights(w), optax.adam(lr))"
            if coupled
            else "optax.adamw(lr, weight_decay=w)",
            _groups(decoupled_weight_decay=coupled),
        )
    if len(decays) > 1:
        what = "JAX decays every parameter, PyTorch only some"
        yield Other("weight-decay", what, "give optax a mask", _groups(weight_decay=decay))
    for other in (0.0, 1e-4, 1e-2, 1e-3, 5e-4, 5e-2, 0.1):
        if "weight_decay" in group and other != decay:
            yield Other(
                "weight-decay",
                f"PyTorch: weight decay {decay:g}; JAX: {other:g}",
                f"weight_decay={decay:g} in JAX",
                _groups(weight_decay=other),
            )


def _moments(group: Mapping[str, Any], kind: str) -> Iterator[Other]:
    """Yield other coefficients of Adam's moments, and other momenta."""
    if "betas" in group:
        have = tuple(group["betas"])
        for b1 in (have[0], 0.9, 0.95, 0.8):
            for b2 in (have[1], 0.999, 0.99, 0.98, 0.95, 0.9):
                if (b1, b2) != have:
                    what, fix = (
                        f"PyTorch: {have}; JAX: {(b1, b2)}",
                        "give PyTorch's b1 and b2 in JAX",
                    )
                    yield Other("betas", what, fix, _groups(betas=(b1, b2)))
    if group.get("nesterov"):
        what = "PyTorch: Nesterov's momentum; JAX: the plain one"
        yield Other("nesterov", what, "nesterov=True in JAX", _groups(nesterov=False))
    elif group.get("momentum") and kind == "SGD":
        what = "PyTorch: plain momentum; JAX: Nesterov's"
        yield Other("nesterov", what, "nesterov=False in JAX", _groups(nesterov=True))
    for other in (0.0, 0.9, 0.99, 0.95, 0.5) if "momentum" in group else ():
        if other != group["momentum"]:
            yield Other(
                "momentum",
                f"PyTorch: momentum {group['momentum']:g}; JAX: {other:g}",
                f"momentum={group['momentum']:g} in JAX",
                _groups(momentum=other, nesterov=False),
            )


def by_hand(
    optimizer: Any, start: Sequence[Sequence[np.ndarray]], gradients: Gradients
) -> Iterator[tuple[str, str, str, list[list[np.ndarray]]]]:
    """Yield Adam and RMSprop with another place of epsilon, or no correction of the bias."""
    group = optimizer.param_groups[0]
    if {"betas", "eps", "weight_decay"} <= set(group):
        for root, cause, what, fix in (
            (
                "uncorrected",
                "adam-bias-correction",
                "JAX does not correct the bias of the moments",
                "divide by 1 - b^t in JAX",
            ),
            (
                "inside",
                "epsilon-place",
                "JAX adds epsilon inside of the root",
                "eps, not eps_root, in JAX",
            ),
            (
                "before",
                "epsilon-place",
                "JAX adds epsilon before the bias is corrected",
                "add epsilon behind the correction in JAX",
            ),
        ):
            yield cause, what, fix, _adam(group, start, gradients, root)
    elif {"alpha", "eps"} <= set(group):
        what = "PyTorch adds epsilon outside of the root, JAX inside"
        found = _rmsprop(group, start, gradients)
        yield "epsilon-place", what, "eps_in_sqrt=False in JAX", found


def _adam(
    group: Mapping[str, Any], start: Sequence[Sequence[np.ndarray]], gradients: Gradients, root: str
) -> list[list[np.ndarray]]:
    """Return the parameters after each step of Adam, whose root is taken otherwise."""
    (b1, b2), lr, eps = group["betas"], group["lr"], group["eps"]
    decay, decoupled = group["weight_decay"], group.get("decoupled_weight_decay", False)
    m = [np.zeros_like(x) for x in start[0]]
    v = [np.zeros_like(x) for x in start[0]]
    found = []
    for step, (values, of_step) in enumerate(zip(start, gradients, strict=True), 1):
        new = []
        for i, (p, g) in enumerate(zip(values, of_step, strict=True)):
            if g is None:
                new.append(p)
                continue
            g = g + (0 if decoupled else decay) * p
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = b2 * v[i] + (1 - b2) * g * g
            first = m[i] / (1 - b1**step)
            second = v[i] / (1 - b2**step)
            if root == "uncorrected":
                update = m[i] / (np.sqrt(v[i]) + eps)
            elif root == "inside":
                update = first / np.sqrt(second + eps)
            else:
                update = first / (np.sqrt(v[i]) + eps) * np.sqrt(1 - b2**step)
            new.append(p - lr * update - (lr * decay * p if decoupled else 0))
        found.append(new)
    return found


def _rmsprop(
    group: Mapping[str, Any], start: Sequence[Sequence[np.ndarray]], gradients: Gradients
) -> list[list[np.ndarray]]:
    """Return the parameters after each step of RMSprop with epsilon inside of the root."""
    lr, eps, alpha = group["lr"], group["eps"], group["alpha"]
    squares = [np.zeros_like(x) for x in start[0]]
    found = []
    for values, of_step in zip(start, gradients, strict=True):
        new = []
        for i, (p, g) in enumerate(zip(values, of_step, strict=True)):
            g = np.zeros_like(p) if g is None else g
            squares[i] = alpha * squares[i] + (1 - alpha) * g * g
            new.append(p - lr * g / np.sqrt(squares[i] + eps))
        found.append(new)
    return found


def clips() -> Iterator[tuple[str, str, str, Any]]:
    """Yield causes with a context in which PyTorch clips gradients' norm in JAX's way."""
    own = clip_grad._clip_grads_with_norm_

    def exact(parameters: Any, max_norm: float, norm: Tensor, *options: Any) -> None:
        own(parameters, max_norm, norm - 1e-6, *options)  # to which it adds 1e-6

    def value(parameters: Any, max_norm: float, *_: Any) -> None:
        clip_grad.clip_grad_value_(parameters, max_norm)

    for cause, what, fix, clip in (
        (
            "clip-epsilon",
            "PyTorch clips by max / (norm + 1e-6), JAX by max / norm",
            "divide by norm + 1e-6 in JAX",
            exact,
        ),
        (
            "clip-kind",
            "PyTorch clips the norm of all gradients, JAX each number",
            "optax.clip_by_global_norm in JAX",
            value,
        ),
        (
            "clip-missing",
            "PyTorch clips the norm of all gradients, JAX clips nothing",
            "optax.clip_by_global_norm in JAX",
            lambda *_: None,
        ),
    ):
        yield cause, what, fix, mock.patch.object(clip_grad, "_clip_grads_with_norm_", clip)
