"""What both subjects start from, judged by its definition: pixels, batch order, initial weights.

These come from the contract, which the subjects share: a mistake in it makes no two of them differ,
so that it has to be looked for here.
"""

import numpy as np

from parity.contract.batches import batches
from parity.contract.data.datasets import pixels
from parity.contract.recipe import Recipe
from parity.contract.state import PARAMETERS, initial_state
from parity.judge.compare import Comparison, compare, misfit
from parity.truth.rounding import exact

INPUTS = {"conv1.weight": 9, "conv1.bias": 9, "fc1.weight": 2704, "fc1.bias": 2704}
"""Numbers that one output of a parameter's layer sums."""

FALSE_ALARM = 1e-8
"""Chance that initial weights as they should be are called too small."""


def judge_pixels() -> Comparison:
    """Compare the network's input for each grey value k with the float32 number nearest k/255."""
    grey = np.arange(256, dtype=np.uint8)
    images = np.broadcast_to(grey[:, None, None], (256, 28, 28))
    nearest = np.array([np.float32(k / 255) for k in range(256)])
    return compare("data", pixels(images)[:, 0, 0, 0], exact(nearest))


def judge_order(recipe: Recipe, examples: int) -> Comparison:
    """Require of two epochs that each visits every example once, in batches of the recipe's size.

    Only the last batch may be smaller, and the second epoch has another order than the first.
    """
    orders = []
    for epoch in (1, 2):
        order = list(
            batches(seed=recipe.seed, epoch=epoch, examples=examples, batch_size=recipe.batch_size)
        )
        sizes = [len(batch) for batch in order]
        full, rest = divmod(examples, recipe.batch_size)
        if sizes != [recipe.batch_size] * full + [rest] * (rest > 0):
            return misfit(
                "data",
                f"comes in {len(sizes)} batches of {max(sizes, default=0)} at most, {sum(sizes)} of"
                f" {examples} examples, in epoch {epoch}",
            )
        orders.append(np.concatenate(order))
        if not np.array_equal(np.sort(orders[-1]), np.arange(examples)):
            return misfit("data", f"does not visit every example once in epoch {epoch}")
    if examples > 10 and np.array_equal(orders[0], orders[1]):
        return misfit("data", "comes in the same order in two epochs")
    return compare("data", np.sort(orders[0]), exact(np.arange(examples)))


def judge_initial(seed: int) -> Comparison:
    """Require that the initial weights and biases fill U(±1/√n), n the inputs of an output.

    The largest magnitude of k such numbers is at most 1/√n, and below p^(1/k)/√n with chance p.
    """
    params = initial_state(seed).params
    for name, n in INPUTS.items():
        limit, largest = np.float32(1 / np.sqrt(n)), np.abs(params[name]).max()
        least = limit * FALSE_ALARM ** (1 / params[name].size)
        if not least <= largest <= limit:
            return misfit(
                "init", f"draws {name} up to {largest:.3g} in magnitude, should be 1/√{n}"
            )
    return compare("init", np.array(len(params)), exact(np.array(len(PARAMETERS))))
