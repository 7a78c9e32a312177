"""States and batches that show a mistake which real ones hardly ever show."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int64

from parity.contract.recipe import DType
from parity.contract.state import PARAMETERS, State, initial_state


def random_state(seed: int, dtype: DType) -> State:
    """Return a state of random numbers that use every bit of the precision."""
    stream = np.random.RandomState(seed % 2**32)
    params, adam_m, adam_v = (
        {name: stream.uniform(0.1, 1, p.shape).astype(dtype) for name, p in PARAMETERS.items()}
        for _ in range(3)
    )
    return State(params=params, adam_m=adam_m, adam_v=adam_v, step=7)


def coarse_state(seed: int, dtype: DType) -> State:
    """Return a state whose filters have weights and biases of -1/2, 0 and 1/2, and large logits.

    With the images of `coarse_batch`, the convolution is exact in any precision, many of its values
    are 0, and many windows of pooling hold their largest value twice: what ReLU's derivative is at
    0 and which of equals pooling passes on is seen here, and hardly ever on real images. Logits of
    some hundreds overflow a softmax that does not subtract their maximum.
    """
    stream = np.random.RandomState(seed % 2**32)
    state = initial_state(seed, dtype)
    for name in ("conv1.weight", "conv1.bias"):
        state.params[name][:] = stream.choice([-0.5, 0, 0.5], size=state.params[name].shape)
    state.params["fc1.weight"][:] *= 100
    for name, p in PARAMETERS.items():
        state.adam_m[name][:] = 1e-2 * stream.standard_normal(p.shape)
        state.adam_v[name][:] = 1e-4 * stream.uniform(size=p.shape)
    return dataclasses.replace(state, step=3)


def coarse_batch(
    seed: int, batch_size: int, dtype: DType
) -> tuple[Float[np.ndarray, "B 1 28 28"], Int64[np.ndarray, "B"]]:
    """Return images of 0, 1/2 and 1, and their labels."""
    stream = np.random.RandomState(seed % 2**32)
    images = stream.choice([0, 0.5, 1], size=(batch_size, 1, 28, 28)).astype(dtype)
    return images, stream.randint(0, 10, batch_size).astype(np.int64)


def numbers(state: State) -> Float[np.ndarray, "81631"]:
    """Return all numbers of a state in a row: parameters, first and second moments, step."""
    arrays = state.named().values()
    return np.concatenate([*(array.ravel() for array in arrays), [state.step]])


def trained_state(seed: int, dtype: DType, *, step: int) -> State:
    """Return a state as it may be after many steps: moments of the size that gradients have."""
    stream = np.random.RandomState(seed % 2**32)
    state = initial_state(seed, dtype)
    for name, p in PARAMETERS.items():
        state.adam_m[name][:] = 1e-3 * stream.standard_normal(p.shape)
        state.adam_v[name][:] = 1e-5 * stream.uniform(0.5, 1, p.shape)
    return dataclasses.replace(state, step=step)


def tied_state(seed: int, dtype: DType) -> State:
    """Return a state whose logits are near-ties, in pairs: which is larger, float32 can tell.

    The logits of classes 2j and 2j + 1 differ by less than float16 or bfloat16 resolve, and by more
    than rounding to float32 does: few numbers are summed, none of them is negative.
    """
    stream = np.random.RandomState(seed % 2**32)
    state = initial_state(seed, dtype)
    for name in PARAMETERS:
        state.params[name][:] = 0
    taps, weight = state.params["conv1.weight"], state.params["fc1.weight"].reshape(10, 16, 13, 13)
    taps[np.arange(16), 0, stream.randint(0, 3, 16), stream.randint(0, 3, 16)] = stream.uniform(
        0.5, 1, 16
    )
    for pair in range(0, 10, 2):
        places = (stream.permutation(16)[:12], stream.randint(2, 11, 12), stream.randint(3, 10, 12))
        weight[pair][places] = stream.uniform(0.5, 2, 12)
        weight[pair + 1][places] = weight[pair][places] * (1 + stream.uniform(-2e-4, 2e-4, 12))
    return state
