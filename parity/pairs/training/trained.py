"""Both sides' steps of training: PyTorch's as they are, JAX's from the same parameters."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from parity.pairs.case import Case
from parity.pairs.forward.forced import ROUNDING, widening
from parity.pairs.jax_side.evaluator import Evaluator
from parity.pairs.jax_side.jaxprs import equations, traced
from parity.pairs.jax_side.precisions import narrow_types
from parity.pairs.jax_side.program import wide
from parity.pairs.jax_side.sources import user_line
from parity.pairs.jax_side.uses import live
from parity.pairs.mapping.leaves import nested
from parity.pairs.pair import Pair, PairError, required, user_code
from parity.pairs.torch_side.model import arrays, tensor
from parity.pairs.torch_side.operations import Operations
from parity.pairs.torch_side.recorded import OUTPUT
from parity.pairs.training import optimizers

LIMIT = 1e3 * ROUNDING


@dataclass
class Trained:
    """PyTorch's training: what each step starts at, its gradients, and the buffers behind it."""

    losses: list[float]
    start: list[dict[str, np.ndarray]]
    gradients: list[dict[str, np.ndarray | None]]
    end: dict[str, np.ndarray]
    frozen: list[dict[str, np.ndarray]] = field(default_factory=list)
    """By step, JAX's gradients of what PyTorch takes none of, by JAX's names."""


def loss_pair(case: Case) -> Pair:
    """Return the losses as a pair of functions of what PyTorch's model returns.

    Targets are data: no training takes a gradient of them.
    """
    ours, theirs = required(case.pair.loss, "loss")
    with torch.no_grad(), case.wide():
        outputs = case.torch.run(case.pair.inputs)
    flat, spec = tree_flatten(outputs)
    tensors = [i for i, x in enumerate(flat) if isinstance(x, Tensor)]
    arranged = [case.forced.arrangements[(OUTPUT, "in", 0), n] for n in range(case.program.outputs)]
    count = len(tensors)

    def call_torch(function: Any, *xs: Any) -> Any:
        full = list(flat)
        for i, x in zip(tensors, xs[:count], strict=True):
            full[i] = x
        return function(tree_unflatten(full, spec), *(x.detach() for x in xs[count:]))

    def call_jax(function: Any, *xs: Any) -> Any:
        import einops

        given = [
            einops.rearrange(x, pattern, **sizes)
            for x, (pattern, sizes) in zip(xs[:count], arranged, strict=True)
        ]
        targets = map(jax.lax.stop_gradient, xs[count:])
        return function(jax.tree.unflatten(case.program.structure, given), *targets)

    values = [x.detach().numpy() for x in arrays(outputs)]
    inputs = (*values, *case.pair.targets)
    return Pair(torch=ours, jax=theirs, inputs=inputs, call_torch=call_torch, call_jax=call_jax)


def train_torch(case: Case) -> Trained:
    """Train PyTorch's side; the state that it is left in is that of before."""
    loss_of, factory = (
        required(case.pair.loss, "loss")[0],
        required(case.pair.optimizer, "optimizer")[0],
    )
    held = {n: t for n, t in case.torch.tensors.items() if case.torch.leaves[n].trained}
    case.torch.set(case.values, copy=True)  # which the optimizer changes in place
    with user_code("PyTorch's optimizer"):
        optimizer, scheduler = optimizers.parts(factory(list(held.values())))
    _check_draws(case)
    found = Trained([], [], [], {})
    inputs, targets = [tensor(x) for x in case.pair.inputs], [tensor(x) for x in case.pair.targets]
    for _ in range(case.pair.steps):
        found.start.append(_copies(case.torch.tensors))
        optimizer.zero_grad()
        with torch.enable_grad(), case.wide(), user_code("PyTorch's training"):
            outputs = case.torch.run(inputs, train=True)
            loss = loss_of(outputs, *targets)
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


def _check_draws(case: Case) -> None:
    """Raise an error if random numbers move a side in train mode, which the other cannot have."""
    held, mode = _copies(case.torch.tensors), Operations()
    runs = []
    with torch.random.fork_rng(devices=[]), torch.no_grad(), case.wide():
        for seed in (0, 1):
            torch.manual_seed(seed)
            found = arrays(case.torch.run(case.pair.inputs, train=True, mode=mode))
            runs.append([*(x.clone() for x in found), *_copies(case.torch.tensors).values()])
            case.torch.set(held, copy=True)
    moved = any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(*runs, strict=True))
    drawn = next((f"{o.name}, {o.source}" for o in mode.made if o.draws and moved), None)
    program = case.jax.trace(case.jax_values, list(case.pair.inputs), train=True)
    names = {"random_bits", "random_gamma", "rng_uniform", "rng_bit_generator"}
    in_jax = (e for e in live(program.jaxpr) if e.primitive.name in names)
    drawn_jax = next((f"{e.primitive.name}, {user_line(e, ())}" for e in in_jax), None)
    for side, name, what in (("torch", "PyTorch", drawn), ("jax", "JAX", drawn_jax)):
        if what:
            raise PairError(
                f"{name}'s side draws random numbers in train mode ({what}): give Pair"
                f" train_{side}=, a call that draws none, or the numbers as an input"
            )


def _copies(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {n: t.detach().numpy().copy() for n, t in tensors.items()}


class JaxTraining:
    """JAX's step, from PyTorch's parameters: loss, gradients, buffers."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._trained = [n for n, leaf in case.jax.leaves.items() if leaf.trained]
        loss = required(case.pair.loss, "loss")[1]

        def loss_of(params: Any, buffers: Any, inputs: Any, targets: Any) -> Any:
            outputs, after = case.jax.call({**params, **buffers}, inputs, True)
            return loss(outputs, *targets), after

        def in_float64(*args: Any) -> Any:
            jaxpr, shape = traced(loss_of, *args)
            found = Evaluator(around=widening(None))(jaxpr, *jax.tree.leaves(args))
            return jax.tree.unflatten(jax.tree.structure(shape), found)

        self.narrow: dict[str, str] = {}
        """Where the optimizer computes in less than float64: type by file and line."""
        self._step = jax.jit(
            jax.value_and_grad(in_float64 if case.widen else loss_of, has_aux=True)
        )

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

        transform = required(self._case.pair.optimizer, "optimizer")[1]

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
                own, held = (
                    {n: jnp.asarray(values[n]) for n in self._trained}
                    for values in (self.values(start), self.values(filled))
                )
                for n in self._case.set_jax:
                    held[n] = jnp.zeros_like(own[n])
                for n, value in trained.frozen[len(found)].items() if trained.frozen else ():
                    held[n] = jnp.asarray(value)
                params, grads = nested(own), nested(held)
                if state is None:
                    state = transform.init(params)
                    self.narrow = narrow_types(equations(traced(step, params, grads, state)[0]))
                params, state = step(params, grads, state)
                found.append(_flat(params))
        return found


def _flat(tree: Any, name: str = "") -> dict[str, np.ndarray]:
    if not isinstance(tree, dict):
        return {name: np.asarray(tree)}
    start = name + "." if name else ""
    return {k: v for key, item in tree.items() for k, v in _flat(item, start + key).items()}
