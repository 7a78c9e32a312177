"""The first example: proved with its training, and a mistake in it is found."""

import dataclasses
from pathlib import Path
from typing import Any

from flax import nnx

import parity
from parity.pairs.examples import simple_cnn

REPOSITORY = Path(__file__).parents[3]


class WithoutRelu(simple_cnn.FlaxCNN):
    """The port with a mistake."""

    def __call__(self, x: Any) -> Any:
        x = nnx.max_pool(self.conv1(x), (2, 2), strides=(2, 2))
        return self.fc1(x.reshape(len(x), -1))


def test_the_tutorials_networks_are_the_same() -> None:
    proof = parity.prove(simple_cnn.pair())
    assert proof
    assert [(row.torch, row.jax) for row in proof.map] == [
        ("conv1.weight", "conv1.kernel"),
        ("conv1.bias", "conv1.bias"),
        ("fc1.weight", "fc1.kernel"),
        ("fc1.bias", "fc1.bias"),
    ]
    assert proof.summary["training"].startswith("0 differences in 3 steps")
    assert not proof.notes


def test_a_missing_relu_is_found_where_it_is() -> None:
    pair = dataclasses.replace(simple_cnn.pair(), jax=WithoutRelu(nnx.Rngs(0)))
    proof = parity.prove(pair)
    assert not proof
    assert {one.where for one in proof.differences} == {"between conv1 and fc1"}
    assert "activation" in [one.cause for one in proof.differences]


def test_it_is_forty_lines() -> None:
    text = Path(simple_cnn.__file__).read_text()
    assert len([line for line in text.splitlines() if line]) <= 40


def test_the_demo_begins_with_it() -> None:
    demo = (REPOSITORY / "Makefile").read_text().partition("\ndemo:")[2].partition("\n\n")[0]
    assert demo.index("parity prove parity.pairs.examples.simple_cnn") < demo.index(
        "torchcnn train"
    )
