import json
import re
from pathlib import Path
from typing import Any

import pytest

from parity.contract.errors import RecipeError
from parity.contract.recipe import Recipe


def test_the_defaults_are_the_tutorials_recipe() -> None:
    recipe = Recipe()
    assert (recipe.dataset, recipe.epochs, recipe.batch_size, recipe.lr) == ("mnist", 10, 64, 1e-3)


@pytest.mark.wrong_types
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


def test_a_recipe_survives_its_json() -> None:
    recipe = Recipe(dataset="digits", data_dir=Path("a/b"), lr=0.1 + 0.2, limit=7, dtype="float64")
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"momentum": 0.9}, "unknown ['momentum']"),
        ({"seed": None}, "seed must be an integer"),
        ({"b2": 0.99}, "b2 must be 0.999, got 0.99"),
        ({"data_dir": 7}, "data_dir must be a path, got 7"),
    ],
)
def test_json_of_another_recipe_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(reason)):
        Recipe.from_json({**Recipe().to_json(), **change})


@pytest.mark.parametrize("field", sorted(set(Recipe().to_json()) - {"kernel"}))
def test_json_without_a_field_is_refused(field: str) -> None:
    values = Recipe().to_json()
    del values[field]
    with pytest.raises(RecipeError, match=f"missing \\['{field}'\\]"):
        Recipe.from_json(values)


def test_json_from_before_there_were_kernels_means_layer_by_layer() -> None:
    values = Recipe().to_json()
    del values["kernel"]
    assert Recipe.from_json(values) == Recipe(kernel="layers")
