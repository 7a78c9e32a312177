"""The folded kernel is the same function as the layers, ties included."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import jaxcnn.fused
import torchcnn.fused
from parity.contract.backend import Backend
from parity.contract.data.datasets import digits, pixels
from parity.contract.recipe import Mode, Recipe
from parity.contract.state import initial_state
from parity.subjects.subject import MODES
from tests.conftest import COMPILES, step

FEW = st.integers(-2, 2).map(float)
"""So few values that most windows have ties, and many have nothing above zero."""


def by_hand(candidates: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ReLU and pool of (16, 4, P), and the gradient of each candidate: the first's."""
    winner = np.argmax(candidates, axis=1)  # NumPy's is the first
    largest = np.take_along_axis(candidates, winner[:, None], axis=1)[:, 0]
    routed = np.zeros_like(candidates)
    np.put_along_axis(routed, winner[:, None], (gradient * (largest > 0))[:, None], axis=1)
    return np.maximum(largest, 0), routed


def in_torch(products: np.ndarray, bias: np.ndarray, gradient: np.ndarray) -> list[np.ndarray]:
    inputs = [torch.tensor(array, requires_grad=True) for array in (products, bias)]
    pool = torchcnn.fused.relu_pool(*inputs)
    gradients = torch.autograd.grad(pool, inputs, torch.tensor(gradient))
    return [pool.detach().numpy(), *(array.numpy() for array in gradients)]


def in_jax(products: np.ndarray, bias: np.ndarray, gradient: np.ndarray) -> list[np.ndarray]:
    pool, pull_back = jax.vjp(jaxcnn.fused.relu_pool, jnp.asarray(products), jnp.asarray(bias))
    return [np.asarray(array) for array in (pool, *pull_back(jnp.asarray(gradient)))]


@given(
    arrays(np.float32, (16, 4, 3), elements=FEW),
    arrays(np.float32, (16,), elements=FEW),
    arrays(np.float32, (16, 3), elements=FEW),
)
@settings(max_examples=40, deadline=None)
def test_the_first_of_equal_candidates_gets_the_gradient_and_zero_passes_none(
    products: np.ndarray, bias: np.ndarray, gradient: np.ndarray
) -> None:
    pool, routed = by_hand(products + bias[:, None, None], gradient)
    for got in (in_torch(products, bias, gradient), in_jax(products, bias, gradient)):
        np.testing.assert_array_equal(got[0], pool)
        np.testing.assert_array_equal(got[1], routed)
        np.testing.assert_array_equal(got[2], routed.sum(axis=(1, 2)))


@pytest.mark.parametrize(
    ("backend", "mode", "batch"),
    [
        ("torchcnn", "eager", 1),
        ("torchcnn", "eager", 7),
        pytest.param("torchcnn", "jit", 7, marks=COMPILES),
        ("jaxcnn", "eager", 7),
        ("jaxcnn", "jit", 1),
        ("jaxcnn", "jit", 7),
    ],
    indirect=["backend"],
)
def test_each_stage_is_that_of_the_layers(backend: Backend, mode: Mode, batch: int) -> None:
    """In float64; exact where nothing is added up, else to rounding."""
    train = digits().train
    images, labels = pixels(train.images[:batch], "float64"), train.labels[:batch]
    traces = []
    for kernel in ("layers", "fused"):
        recipe = Recipe(device="cpu", dtype="float64", mode=mode, kernel=kernel)
        with backend.session(recipe, initial_state(0, "float64")) as session:
            traces.append(session.trace(images, labels))
    layers, fused = traces
    for stage, value in layers.items():
        np.testing.assert_allclose(fused[stage], value, rtol=1e-11, atol=1e-14, err_msg=stage)


@pytest.mark.parametrize(
    "backend", [pytest.param("torchcnn", marks=COMPILES), "jaxcnn"], indirect=True
)
def test_a_training_prints_the_losses_of_the_layers(backend: Backend) -> None:
    lines = []
    for kernel in ("layers", "fused"):
        recipe = Recipe(
            dataset="digits",
            limit=150,
            epochs=1,
            device="cpu",
            mode="jit",
            kernel=kernel,
            dtype="float64",
        )
        lines.append([str(epoch).rpartition(",")[0] for epoch in backend.fit(recipe).epochs])
    assert lines[0] == lines[1]


def test_what_is_measured_faster_is_the_default_on_a_cpu(backend: Backend) -> None:
    def kernel(mode: Mode) -> str:
        return backend.resolve(Recipe(device="cpu", mode=mode)).kernel

    eager = {"torchcnn": "fused", "jaxcnn": "layers"}
    assert (kernel("jit"), kernel("eager")) == ("fused", eager[backend.__name__])


@pytest.mark.wrong_types
def test_what_is_measured_faster_is_the_default_on_a_gpu(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("jax.local_devices", lambda backend: [SimpleNamespace(platform="gpu")])
    kernels = [backend.resolve(Recipe(device="cuda", mode=mode)).kernel for mode in MODES]
    assert kernels == {"torchcnn": ["layers"] * 2, "jaxcnn": ["layers", "fused"]}[backend.__name__]


@COMPILES
def test_a_compiled_step_is_one_graph_and_an_update() -> None:
    """PyTorch would go on with more of them, and eagerly, without a word."""
    import torch._dynamo.utils

    images = np.random.RandomState(0).uniform(size=(4, 1, 28, 28)).astype(np.float32)
    recipe = Recipe(device="cpu", mode="jit", kernel="fused")
    with torchcnn.session(recipe, initial_state(0)) as session:
        torch._dynamo.utils.counters.clear()
        for _ in range(3):
            step(session, images, np.arange(4))
        counters = torch._dynamo.utils.counters
        assert counters["stats"]["unique_graphs"] == 1
        breaks = list(counters["graph_break"])
        assert all("Adam.step" in each or "Optimizer.zero_grad" in each for each in breaks)
