"""Training: the loss, the gradients in train mode, the optimiser and the buffers, step by step.

Each step starts at PyTorch's parameters, and the optimisers are given PyTorch's gradients, so that
each difference is seen where it is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from parity.pairs import optimizers
from parity.pairs.forward import OUTPUT, ROUNDING, distance, plain
from parity.pairs.jax_side import wide
from parity.pairs.locate import Case
from parity.pairs.mapping import part_of
from parity.pairs.pair import Pair, user_code
from parity.pairs.proof import Difference, Kind
from parity.pairs.torch_side import arrays, tensor

LIMIT = 1e3 * ROUNDING


@dataclass
class Trained:
    """PyTorch's training: what each step starts at, its gradients, and the buffers behind it."""

    losses: list[float]
    start: list[dict[str, np.ndarray]]
    gradients: list[dict[str, np.ndarray | None]]
    end: dict[str, np.ndarray]


def loss_pair(case: Case) -> Pair:
    """Return the losses as a pair of functions of what PyTorch's model returns."""
    assert case.pair.loss is not None  # noqa: S101 - the caller has asked
    ours, theirs = case.pair.loss
    with torch.no_grad():
        outputs = case.torch.run(case.pair.inputs)
    flat, spec = tree_flatten(outputs)
    tensors = [i for i, x in enumerate(flat) if isinstance(x, Tensor)]
    arranged = [case.forced.arrangements[(OUTPUT, "in", 0), n] for n in range(case.program.outputs)]
    count = len(tensors)

    def call_torch(function: Any, *xs: Any) -> Any:
        full = list(flat)
        for i, x in zip(tensors, xs[:count], strict=True):
            full[i] = x
        return function(tree_unflatten(full, spec), *xs[count:])

    def call_jax(function: Any, *xs: Any) -> Any:
        import einops

        given = [
            einops.rearrange(x, pattern, **sizes)
            for x, (pattern, sizes) in zip(xs[:count], arranged, strict=True)
        ]
        return function(jax.tree.unflatten(case.program.structure, given), *xs[count:])

    values = [x.detach().numpy() for x in arrays(outputs)]
    inputs = (*values, *case.pair.targets)
    return Pair(torch=ours, jax=theirs, inputs=inputs, call_torch=call_torch, call_jax=call_jax)


def train_torch(case: Case) -> Trained:
    """Train PyTorch's side; the state that it is left in is that of before."""
    assert case.pair.loss is not None and case.pair.optimizer is not None  # noqa: S101, PT018
    held = {n: t for n, t in case.torch.tensors.items() if case.torch.leaves[n].trained}
    case.torch.set(case.values)
    with user_code("PyTorch's optimizer"):
        optimizer, scheduler = optimizers.parts(case.pair.optimizer[0](list(held.values())))
    found = Trained([], [], [], {})
    inputs, targets = [tensor(x) for x in case.pair.inputs], [tensor(x) for x in case.pair.targets]
    for _ in range(case.pair.steps):
        found.start.append(_copies(case.torch.tensors))
        optimizer.zero_grad()
        with torch.enable_grad(), user_code("PyTorch's training"):
            outputs = case.torch.run(inputs, train=True)
            loss = case.pair.loss[0](outputs, *targets)
            loss.backward()
        found.losses.append(float(loss.detach()))
        found.gradients.append(
            {n: None if t.grad is None else t.grad.double().numpy().copy() for n, t in held.items()}
        )
        with user_code("PyTorch's optimizer"):
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    found.end = _copies(case.torch.tensors)
    case.torch.set(case.values)
    return found


def _copies(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {n: t.detach().numpy().copy() for n, t in tensors.items()}


class JaxTraining:
    """JAX's step, from PyTorch's parameters: loss, gradients, buffers."""

    def __init__(self, case: Case) -> None:
        assert case.pair.loss is not None  # noqa: S101
        self._case = case
        self._trained = [n for n, leaf in case.jax.leaves.items() if leaf.trained]
        loss = case.pair.loss[1]

        def loss_of(params: Any, buffers: Any, inputs: Any, targets: Any) -> Any:
            outputs, after = case.jax.call({**params, **buffers}, inputs, True)
            return loss(outputs, *targets), after

        self._step = jax.jit(jax.value_and_grad(loss_of, has_aux=True))

    def values(self, torch_values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return JAX's leaves with PyTorch's numbers."""
        case = self._case
        return {**case.map.jax_values(torch_values, case.jax.leaves), **case.set_jax}

    def step(self, torch_values: dict[str, np.ndarray]) -> tuple[float, Any, Any]:
        """Return loss, gradients and buffers after one step's forward and backward pass."""
        values = self.values(torch_values)
        pair = self._case.pair
        with jax.enable_x64(True), user_code("JAX's training"):
            params = {n: jnp.asarray(values[n]) for n in self._trained}
            buffers = {n: jnp.asarray(v) for n, v in values.items() if n not in params}
            inputs, targets = (
                [jnp.asarray(wide(x)) for x in group] for group in (pair.inputs, pair.targets)
            )
            (loss, after), gradients = self._step(params, buffers, inputs, targets)
        return float(loss), gradients, after

    def updates(self, trained: Trained) -> list[dict[str, np.ndarray]]:
        """Return JAX's parameters after each update, from PyTorch's parameters and gradients."""
        import optax

        assert self._case.pair.optimizer is not None  # noqa: S101
        transform = self._case.pair.optimizer[1]

        @jax.jit
        def step(params: Any, grads: Any, state: Any) -> tuple[Any, Any]:
            updates, state = transform.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        found = []
        state = None
        with jax.enable_x64(True), user_code("JAX's optimizer"):
            for start, gradients in zip(trained.start, trained.gradients, strict=True):
                filled = {
                    n: np.zeros_like(value) if (given := gradients.get(n)) is None else given
                    for n, value in start.items()
                }
                own = {n: jnp.asarray(self.values(start)[n]) for n in self._trained}
                held = {n: jnp.asarray(self.values(filled)[n]) for n in self._trained}
                for n in self._case.set_jax:
                    held[n] = jnp.zeros_like(own[n])
                params, grads = _nested(own), _nested(held)
                state = transform.init(params) if state is None else state
                params, state = step(params, grads, state)
                found.append(_flat(params))
        return found


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        inner = tree
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return tree


def _flat(tree: Any, name: str = "") -> dict[str, np.ndarray]:
    if not isinstance(tree, dict):
        return {name: np.asarray(tree)}
    start = name + "." if name else ""
    return {k: v for key, item in tree.items() for k, v in _flat(item, start + key).items()}


def training_differences(case: Case, *, updates_only: bool = False) -> list[Difference]:
    """Compare the trainings; return what differs in buffers, gradients and updates.

    `updates_only`: an accepted difference changes all but the updates.
    """
    trained = train_torch(case)
    theirs = JaxTraining(case)
    found: dict[tuple[str, str], Difference] = {}
    buffers: list[dict[str, np.ndarray]] = []
    for step, start in enumerate(() if updates_only else trained.start):
        loss, gradients, after = theirs.step(start)
        buffers.append({n: np.asarray(v) for n, v in after.items()})
        if abs(loss - trained.losses[step]) > LIMIT * max(abs(trained.losses[step]), 1.0):
            size = abs(loss - trained.losses[step]) / abs(trained.losses[step])
            found.setdefault(
                ("loss", ""), _of("between", (OUTPUT, "loss"), size, step, "the loss in train mode")
            )
        _gradients(case, step, trained, gradients, found)
    if not updates_only:
        _buffers(case, trained, buffers, found)
    _optimizer(case, trained, theirs, found)
    return list(found.values())


def _of(kind: Kind, place: Any, size: float, step: int, what: str) -> Difference:
    return Difference(
        stage="training",
        kind=kind,
        torch=place,
        jax=place,
        size=size,
        rounding=LIMIT,
        explanation=f"step {step + 1}: {what}",
    )


def _gradients(
    case: Case, step: int, trained: Trained, gradients: Any, found: dict[Any, Difference]
) -> None:
    for row in case.map.rows:
        if row.jax not in gradients or row.torch not in trained.gradients[step]:
            continue
        want = trained.gradients[step][row.torch]
        owner = row.torch.rpartition(".")[0]
        want = np.zeros(case.torch.leaves[row.torch].shape) if want is None else want
        own = case.map.to_torch(row, np.asarray(gradients[row.jax], np.float64))
        error, _ = distance(own, part_of(want, row.torch_part))
        scale = (
            max(
                float(np.abs(g).max(initial=0))
                for n, g in trained.gradients[step].items()
                if g is not None and n.rpartition(".")[0] == owner
            )
            if (want.any())
            else 1.0
        )
        if error > LIMIT * scale:
            said = _of(
                "inside",
                _layer(case, owner),
                error / scale,
                step,
                f"the gradient of {row.torch} in train mode",
            )
            found.setdefault(("gradient", owner), said)


def _layer(case: Case, owner: str) -> str:
    return next(
        (
            plain(layer.torch)
            for layer in case.layers
            if owner == plain(layer.torch) or owner.startswith(plain(layer.torch) + ".")
        ),
        owner,
    )


def _buffers(
    case: Case, trained: Trained, buffers: list[dict[str, np.ndarray]], found: dict[Any, Difference]
) -> None:
    """Compare running statistics after each step, each from PyTorch's before it."""
    ends = [*trained.start[1:], trained.end]
    for row in case.map.rows:
        if case.torch.leaves[row.torch].trained or row.jax not in buffers[0]:
            continue
        owner = row.torch.rpartition(".")[0]
        for step, (before, end) in enumerate(zip(trained.start, ends, strict=True)):
            own = case.map.to_torch(row, buffers[step][row.jax].astype(np.float64))
            error, scale = distance(own, end[row.torch])
            if error <= LIMIT * scale:
                continue
            said = _of("inside", _layer(case, owner), error / scale, step, row.torch)
            cause = _running(case, owner, before[row.torch], end[row.torch], own)
            if cause:
                said = replace(said, cause=cause[0], explanation=cause[1], fix=cause[2])
            key = ("buffer", owner)
            if key not in found or (found[key].cause is None and cause):
                found[key] = said
            break


def _running(
    case: Case, owner: str, before: np.ndarray, ours: np.ndarray, theirs: np.ndarray
) -> tuple[str, str, str] | None:
    """Return why running statistics differ: JAX's are a·before + b·(the batch's)."""
    module = case.torch.net.get_submodule(owner) if owner else case.torch.net
    momentum = getattr(module, "momentum", None)
    if not momentum:
        return None
    batch = (ours - (1 - momentum) * before) / momentum
    system = np.stack([before.ravel(), batch.ravel()], 1)
    if len(system) < 2:
        return None
    (a, b), *_ = np.linalg.lstsq(system, theirs.ravel(), rcond=None)
    if np.abs(system @ (a, b) - theirs.ravel()).max() > LIMIT * np.abs(theirs).max():
        return None
    if abs(a + b - 1) < 1e-9:
        return (
            "momentum",
            f"PyTorch: {momentum:g} of the new value; JAX: {b:.6g}",
            f"momentum={1 - momentum:g} in Flax, which weighs the old value",
        )
    if abs(a - (1 - momentum)) < 1e-9:
        return (
            "running-variance-unbiased",
            "PyTorch keeps the variance divided by n - 1; JAX divided by n",
            "multiply the batch's variance by n / (n - 1) in JAX",
        )
    return (
        "momentum",
        f"PyTorch: {momentum:g} of the new value; JAX: {1 - a:.6g}, and the variance"
        " is divided otherwise",
        f"momentum={1 - momentum:g} in Flax",
    )


def _optimizer(
    case: Case, trained: Trained, theirs: JaxTraining, found: dict[Any, Difference]
) -> None:
    """Compare each update, from the same parameters and gradients."""
    names = list(trained.gradients[0])
    start = [[values[n] for n in names] for values in trained.start]
    gradients = [[values[n] for n in names] for values in trained.gradients]
    ends = [[values[n] for n in names] for values in [*trained.start[1:], trained.end]]
    own = theirs.updates(trained)

    def off(want: Sequence[Sequence[np.ndarray]]) -> float:
        worst = 0.0
        for step, values in enumerate(want):
            by_name = {**trained.start[step], **dict(zip(names, values, strict=True))}
            expected = theirs.values(by_name)
            for row in case.map.rows:
                if row.jax in own[step]:
                    error, scale = distance(own[step][row.jax], expected[row.jax])
                    worst = max(worst, error / scale)
        return worst

    size = off(ends)
    if size <= LIMIT:
        return
    said = _of("inside", "optimizer", size, 0, "the update, from the same gradients")
    cause = _optimizer_cause(case, start, gradients, off)
    if cause:
        said = replace(said, cause=cause[0], explanation=cause[1], fix=cause[2])
    found["optimizer", ""] = said


def _optimizer_cause(case: Case, start: Any, gradients: Any, off: Any) -> Any:
    assert case.pair.optimizer is not None  # noqa: S101
    factory = case.pair.optimizer[0]
    optimizer, scheduler = optimizers.parts(
        factory([torch.nn.Parameter(torch.from_numpy(v.copy())) for v in start[0]])
    )
    with optimizers.exact_clip():
        if off(optimizers.replay(factory, start, gradients)) <= LIMIT:
            return (
                "clip-epsilon",
                "PyTorch clips by max / (norm + 1e-6), JAX by max / norm",
                "divide by norm + 1e-6 in JAX",
            )
    if scheduler is not None:
        for late in (1, 2):
            try:
                tried = optimizers.replay(factory, start, gradients, late=late)
            except ValueError:  # a schedule of so many steps and no more
                break
            if off(tried) <= LIMIT:
                return (
                    "schedule-offset",
                    f"JAX's schedule is {late} step{'s' * (late > 1)} ahead",
                    "count JAX's steps from 0",
                )
    for cause, explanation, fix, values in optimizers.by_hand(optimizer, start, gradients):
        if off(values) <= LIMIT:
            return cause, explanation, fix
    for other in optimizers.others(optimizer):
        try:
            tried = optimizers.replay(factory, start, gradients, other.change)
        except (KeyError, ValueError, RuntimeError):
            continue
        if off(tried) <= LIMIT:
            return other.cause, other.explanation, other.fix
    return None


def renamed(difference: Difference) -> Difference:
    """Return a difference of the losses as one of the training."""
    place = (OUTPUT, "loss")
    return replace(difference, stage="training", kind="between", torch=place, jax=place)
