import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from parity.contract.backend import Backend
from parity.contract.errors import StateError
from parity.contract.recipe import DType, Recipe
from parity.contract.state import PARAMETERS, State, initial_state


def random_state(seed: int, dtype: DType, step: int = 3) -> State:
    stream = np.random.RandomState(seed)
    groups = [
        {
            name: stream.standard_normal(shape).astype(dtype)
            for name, (shape, _) in PARAMETERS.items()
        }
        for _ in range(3)
    ]
    return State(params=groups[0], adam_m=groups[1], adam_v=groups[2], step=step)


def round_trip(backend: Backend, state: State, recipe: Recipe) -> State:
    with backend.session(recipe, state) as session:
        return session.export()


@given(
    st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64"]), st.integers(0, 2**31 - 1)
)
@example(seed=0, dtype="float32", step=2**24 + 1)  # which a float32 is not
@settings(
    max_examples=10,
    deadline=None,  # the first example imports a framework
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # a backend has no state
)
def test_a_state_survives_the_round_trip_to_the_bit(
    backend: Backend, seed: int, dtype: DType, step: int
) -> None:
    state = random_state(seed, dtype, step)
    back = round_trip(backend, state, Recipe(dtype=dtype))
    assert back.step == step
    for group in ("params", "adam_m", "adam_v"):
        for name, value in getattr(state, group).items():
            np.testing.assert_array_equal(getattr(back, group)[name], value, strict=True)


def test_neither_side_aliases_the_others_memory(backend: Backend) -> None:
    state = random_state(0, "float32")
    kept = {name: value.copy() for name, value in state.params.items()}
    with backend.session(Recipe(), state) as session:
        for value in state.params.values():
            value[...] = 0
        exported, again = session.export(), session.export()
    for name, value in exported.params.items():
        np.testing.assert_array_equal(value, kept[name])
        value[...] = 0
        np.testing.assert_array_equal(again.params[name], kept[name])


def test_a_state_of_another_dtype_is_refused(backend: Backend) -> None:
    with pytest.raises(StateError, match=r"float32.*float64"):
        round_trip(backend, initial_state(0, "float32"), Recipe(dtype="float64"))


def test_adams_steps_must_agree() -> None:
    import torchcnn

    recipe = torchcnn.resolve(Recipe())
    native = torchcnn.import_state(initial_state(0), recipe)
    next(iter(native.optimizer.state.values()))["step"] += 1
    with pytest.raises(StateError, match="different numbers of steps"):
        torchcnn.export_state(native)
