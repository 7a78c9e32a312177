"""Training: the loss, the gradients in train mode, the optimiser and the buffers, step by step.

Each step starts at PyTorch's parameters, and the optimisers are given PyTorch's gradients, so that
each difference is seen where it is made.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from parity.pairs.case import Case
from parity.pairs.forward.evidence import limit as few
from parity.pairs.mapping.arrangement import distance
from parity.pairs.mapping.layers import plain
from parity.pairs.mapping.maps import part_of
from parity.pairs.pair import required
from parity.pairs.proof import Difference, Kind
from parity.pairs.torch_side.recorded import OUTPUT
from parity.pairs.training import optimizers
from parity.pairs.training.trained import LIMIT, JaxTraining, Trained, train_torch

UPDATE = 1e-9
"""Of the largest update, from the same gradients: far above rounding. What is added to a parameter
is known to the parameter's last places, besides."""


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
        trained.frozen.append(_frozen(case, gradients))
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
        if row.torch in case.torch.frozen:
            continue  # the updates show whether JAX trains it
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
            if want.any()
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


def _frozen(case: Case, gradients: Any) -> dict[str, np.ndarray]:
    """Return JAX's gradients of what PyTorch takes none of, by JAX's names."""
    rows = [row for row in case.map.rows if row.torch in case.torch.frozen and row.jax in gradients]
    return {row.jax: np.asarray(gradients[row.jax], np.float64) for row in rows}


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
    moved = _unfrozen(case, trained, own, theirs)
    if moved:
        found["frozen", ""] = moved

    for line, dtype in list(theirs.narrow.items())[:1]:
        case.notes.append(f"the JAX optimizer computes a part in {dtype} ({line})")

    def off(want: Sequence[Sequence[np.ndarray]]) -> tuple[float, float, int]:
        """Return the largest error over what is allowed, and over the update, and its step."""
        worst, at, size = 0.0, 0, 0.0
        for step, values in enumerate(want):
            before = theirs.values(trained.start[step])
            by_name = {**trained.start[step], **dict(zip(names, values, strict=True))}
            expected = theirs.values(by_name)
            for row in case.map.rows:
                if row.jax not in own[step] or any(row.jax in held for held in trained.frozen):
                    continue
                error, scale = distance(own[step][row.jax], expected[row.jax])
                change = np.abs(expected[row.jax] - before[row.jax])
                update = float(change[np.isfinite(change)].max(initial=0))
                allowed = _limit(theirs, step) * update + few(scale)
                worst, at = max((worst, at), (error / allowed, step), key=lambda one: one[0])
                size = max(size, error / (update or 1.0))
        return worst, size, at

    worst, size, at = off(ends)
    if worst <= 1:
        return
    said = _of("inside", "optimizer", size, at, "the update, from the same gradients")
    said = replace(said, rounding=_limit(theirs, at))
    causes = _optimizer_causes(case, start, gradients, lambda want: off(want)[0] <= 1)
    if not causes:
        found["optimizer", ""] = said
    for cause, explanation, fix in causes:
        named = replace(said, cause=cause, explanation=explanation, fix=fix)
        found["optimizer", cause] = named


def _unfrozen(
    case: Case, trained: Trained, own: Sequence[Any], theirs: JaxTraining
) -> Difference | None:
    """Return the difference that JAX trains what PyTorch takes no gradient of."""
    for step, held in enumerate(trained.frozen):
        before = theirs.values(trained.start[step])
        for name in held:
            error, scale = distance(own[step][name], before[name])
            if error > few(scale):
                torch = next(row.torch for row in case.map.rows if row.jax == name)
                layer = _layer(case, torch.rpartition(".")[0])
                said = _of("inside", layer, error / scale, step, f"the update of {torch}")
                what = f"PyTorch has {torch} frozen (requires_grad=False); JAX trains it"
                fix = "mask it in JAX's optimizer, as by optax.masked"
                return replace(said, cause="frozen", explanation=what, fix=fix)
    return None


def _limit(theirs: JaxTraining, step: int) -> float:
    """Return what part of an update's largest number rounding explains.

    Where JAX's optimiser has a factor in float32, as of `optax.inject_hyperparams`, a rate that is
    rounded once may be raised to the step's number; the power has a few last places of its own.
    """
    return (step + 4) * 2.0**-24 if theirs.narrow else UPDATE


def _optimizer_causes(
    case: Case, start: Any, gradients: Any, fits: Callable[[Any], bool]
) -> list[tuple[str, ...]]:
    """Return what gives JAX's updates, as (cause, explanation, fix): one, or clipping and one."""
    factory = required(case.pair.optimizer, "optimizer")[0]
    made = factory([torch.nn.Parameter(torch.from_numpy(v.copy())) for v in start[0]])
    optimizer, scheduler = optimizers.parts(made)

    def replayed(*change: Any, **options: Any) -> bool:
        try:
            return fits(optimizers.replay(factory, start, gradients, *change, **options))
        except (KeyError, ValueError, RuntimeError):  # one that has no such option, or step
            return False

    clips = list(optimizers.clips())
    for *cause, clipping in clips:
        with clipping:
            if replayed():
                return [tuple(cause)]
    for late in (1, 2) if scheduler is not None else ():
        if replayed(late=late):
            what = f"JAX's schedule is {late} step{'s' * (late > 1)} ahead"
            return [("schedule-offset", what, "count JAX's steps from 0")]
    for *cause, values in optimizers.by_hand(optimizer, start, gradients):
        if fits(values):
            return [tuple(cause)]
    for clip, clipping in [((), contextlib.nullcontext()), *((c[:3], c[3]) for c in clips[:1])]:
        with clipping:
            for other in optimizers.others(optimizer):
                if replayed(other.change):
                    found = (other.cause, other.explanation, other.fix)
                    return [clip, found] if clip else [found]
    return []


def renamed(difference: Difference) -> Difference:
    """Return a difference of the losses as one of the training."""
    place = (OUTPUT, "loss")
    return replace(difference, stage="training", kind="between", torch=place, jax=place)
