import numpy as np
import pytest

from parity.contract.errors import StateError
from parity.contract.state import PARAMETERS, State, initial_state


def changed(group: str, name: str, array: np.ndarray | None) -> dict[str, dict[str, np.ndarray]]:
    state = initial_state(0)
    groups = {"params": state.params, "adam_m": state.adam_m, "adam_v": state.adam_v}
    groups[group] = {**groups[group]}
    groups[group].pop(name, None)
    if array is not None:
        groups[group][name] = array
    return groups


def test_the_network_has_the_tutorials_27210_parameters() -> None:
    sizes = [int(np.prod(shape)) for shape, _ in PARAMETERS.values()]
    assert sizes == [144, 16, 27_040, 10]


def test_weights_and_biases_are_uniform_up_to_one_over_the_root_of_fan_in() -> None:
    values = {name: [] for name in PARAMETERS}
    for seed in range(20):
        for name, array in initial_state(seed).params.items():
            values[name].append(array.ravel())
    for name, (_, fan_in) in PARAMETERS.items():
        drawn = np.concatenate(values[name]) * np.sqrt(fan_in)
        assert np.abs(drawn).max() <= 1
        # the mean of n draws from U(-1, 1) has a standard deviation of sqrt(1/3n)
        assert abs(drawn.mean()) < 5 * np.sqrt(1 / (3 * drawn.size))
        assert abs((drawn**2).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / drawn.size)


def test_float64_starts_from_the_same_numbers_as_float32() -> None:
    single, double = initial_state(3, "float32"), initial_state(3, "float64")
    for name, value in single.params.items():
        assert double.params[name].dtype == np.float64
        np.testing.assert_array_equal(double.params[name], value)


def test_another_precision_is_a_copy() -> None:
    state = initial_state(0)
    double = state.astype("float64")
    assert double.dtype == np.float64
    np.testing.assert_array_equal(double.params["fc1.bias"], state.params["fc1.bias"])
    assert not np.shares_memory(
        state.astype("float32").params["fc1.bias"], state.params["fc1.bias"]
    )


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("fc1.bias", None, "missing"),
        ("fc2.bias", np.zeros(10, np.float32), "unknown"),
        ("fc1.bias", np.zeros(11, np.float32), "expected"),
        ("fc1.bias", np.zeros(10, np.float64), "expected"),
    ],
)
@pytest.mark.parametrize("group", ["params", "adam_m", "adam_v"])
def test_a_state_of_another_structure_is_refused(
    group: str, name: str, array: np.ndarray | None, message: str
) -> None:
    with pytest.raises(StateError, match=f"{group}.*{message}"):
        State(**changed(group, name, array), step=0)


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(StateError, match="step"):
        State(**changed("params", "", None), step=-1)
