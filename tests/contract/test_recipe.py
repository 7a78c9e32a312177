import json
from typing import Any

import pytest

from parity.contract.errors import RecipeError
from parity.contract.recipe import Recipe


def test_the_defaults_are_the_tutorials_recipe() -> None:
    recipe = Recipe()
    assert (recipe.dataset, recipe.epochs, recipe.batch_size, recipe.lr) == ("mnist", 10, 64, 1e-3)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("dataset", "cifar", "mnist, fashion_mnist, kmnist, digits"),
        ("device", "gpu", "auto, cpu, cuda, tpu"),
        ("mode", "fast", "auto, jit, eager"),
        ("dtype", "float16", "float32, float64"),
        ("epochs", 0, "at least 1"),
        ("epochs", 2.5, "integer"),
        ("epochs", True, "integer"),
        ("batch_size", -64, "at least 1"),
        ("seed", -1, "at least 0"),
        ("limit", 0, "at least 1"),
        ("lr", 0.0, "above 0"),
        ("lr", -1e-3, "above 0"),
        ("lr", float("nan"), "finite"),
        ("lr", float("inf"), "finite"),
        ("lr", "0.1", "number"),
        ("data_dir", 7, "path"),
    ],
)
def test_a_bad_value_is_refused_by_field_value_and_what_is_allowed(
    field: str, value: Any, allowed: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(**{field: value})
    message = str(caught.value)
    assert message.startswith(field)
    assert repr(value) in message
    assert allowed in message


def test_json_holds_every_hyperparameter() -> None:
    fields = json.loads(json.dumps(Recipe(dataset="digits", seed=7).to_json()))
    assert fields["seed"] == 7
    assert (fields["b1"], fields["b2"], fields["eps"]) == (0.9, 0.999, 1e-8)
