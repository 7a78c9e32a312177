"""Each framework's own checkpoints: lossless both ways, and used as its users use them."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import torch
from flax import nnx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

import jaxcnn
import torchcnn
from parity.contract.backend import Backend
from parity.contract.data.datasets import digits, pixels
from parity.contract.errors import OutputError
from parity.contract.recipe import DType, Recipe
from tests.checkpoints import assert_same, checkpoint, random_state, refused
from tests.conftest import step

NAMES = {"torchcnn": "model.pt", "jaxcnn": "model"}


def target(backend: Backend, folder: Path) -> Path:
    return folder / NAMES[backend.__name__]


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float32", "float64"]),
    step=st.integers(0, 2**31 - 1),
    loss_sum=st.floats(allow_nan=False, allow_infinity=False),
)
@example(seed=0, dtype="float32", step=2**24 + 1, loss_sum=0.0)  # which a float32 is not
@settings(
    max_examples=5,
    deadline=None,  # the first example imports a framework
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # a backend has no state
)
def test_what_was_written_is_read_to_the_bit(
    backend: Backend,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    dtype: DType,
    step: int,
    loss_sum: float,
) -> None:
    path = target(backend, tmp_path_factory.mktemp("native"))
    written = checkpoint(seed, dtype, state=random_state(seed, dtype, step), loss_sum=loss_sum)
    backend.write_native(path, written)
    assert_same(backend.read_native(path), written)


def test_one_that_is_there_is_replaced_and_nothing_else_left(
    backend: Backend, tmp_path: Path
) -> None:
    path = target(backend, tmp_path)
    for seed in (1, 2):
        backend.write_native(path, checkpoint(seed))
    assert_same(backend.read_native(path), checkpoint(2))
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_error_that_names_it(
    backend: Backend, tmp_path: Path
) -> None:
    path = target(backend, tmp_path / "gone")
    with pytest.raises(OutputError, match=f"cannot write {path}: No such file"):
        backend.write_native(path, checkpoint())


@pytest.mark.parametrize("there", ["nothing", "a file", "a folder"])
def test_what_is_no_checkpoint_is_refused_by_name(
    backend: Backend, there: str, tmp_path: Path
) -> None:
    path = target(backend, tmp_path)
    if there == "a file":
        path.write_bytes(b"not a checkpoint")
    elif there == "a folder":
        path.mkdir()
    with refused(str(path)):
        backend.read_native(path)


class SimpleCNN(nn.Module):
    """The tutorial's network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(16 * 13 * 13, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.conv1(x)))
        return self.fc1(x.view(x.size(0), -1))


def logits(native: Any, images: np.ndarray) -> np.ndarray:
    """The tutorial's network with the weights of a checkpoint, by its own forward."""
    model = SimpleCNN()
    model.load_state_dict({name: torch.from_numpy(a) for name, a in native.state.params.items()})
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def test_the_tutorials_state_dict_is_read_with_documented_defaults(tmp_path: Path) -> None:
    model, images = SimpleCNN(), pixels(digits().test.images[:9])
    torch.save(model.state_dict(), tmp_path / "cnn.pt")
    read = torchcnn.read_native(tmp_path / "cnn.pt")
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(logits(read, images), expected)
    assert (read.recipe, read.dataset_sha256) == (Recipe(), None)
    assert (read.epoch, read.batch, read.loss_sum, read.epochs) == (1, 0, 0.0, ())
    assert read.state.step == 0
    moments = [*read.state.adam_m.values(), *read.state.adam_v.values()]
    assert not any(moment.any() for moment in moments)


def test_a_state_dict_of_doubles_is_of_float64(tmp_path: Path) -> None:
    torch.save(SimpleCNN().double().state_dict(), tmp_path / "cnn.pt")
    assert torchcnn.read_native(tmp_path / "cnn.pt").recipe.dtype == "float64"


def test_adams_state_is_read_where_a_loop_of_ones_own_saved_it(tmp_path: Path) -> None:
    model = SimpleCNN()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        nn.functional.cross_entropy(model(torch.rand(4, 1, 28, 28)), torch.arange(4)).backward()
        optimizer.step()
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "cnn.pt")
    read = torchcnn.read_native(tmp_path / "cnn.pt")
    assert (read.state.step, read.recipe, read.epoch) == (3, Recipe(lr=0.01), 1)
    for name, value in model.named_parameters():
        exp_avg_sq = optimizer.state[value]["exp_avg_sq"].numpy()
        np.testing.assert_array_equal(read.state.adam_v[name], exp_avg_sq, strict=True)


def test_pytorchs_users_go_on_from_it_with_their_own_loop(tmp_path: Path) -> None:
    """Two steps of the tutorial's loop give what two of this project's give."""
    recipe = Recipe(dataset="digits", device="cpu", dtype="float32")
    written = checkpoint(recipe=recipe, state=random_state(0))
    torchcnn.write_native(tmp_path / "cnn.pt", written)
    model = SimpleCNN()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    loaded = torch.load(tmp_path / "cnn.pt", weights_only=True)
    model.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])
    assert (loaded["checkpoint"]["epoch"], optimizer.param_groups[0]["lr"]) == (2, 1e-3)
    assert optimizer.param_groups[0]["fused"] is None  # so it goes on wherever its user puts it

    images, labels = pixels(digits().train.images[:64]), digits().train.labels[:64]
    with torchcnn.session(recipe, written.state) as session:
        for _ in range(2):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(
                model(torch.from_numpy(images)), torch.from_numpy(labels)
            )
            loss.backward()
            optimizer.step()
            assert step(session, images, labels) == pytest.approx(float(loss.detach()), rel=1e-5)
        after = session.export()
    assert after.step == 33
    for name, value in model.named_parameters():
        np.testing.assert_allclose(value.detach().numpy(), after.params[name], rtol=0, atol=1e-6)


def test_flaxs_users_go_on_from_it_with_their_own_loop(tmp_path: Path) -> None:
    """Optax's state as optax.adam makes it, Flax's parameters as the model has them."""
    written = checkpoint()
    jaxcnn.write_native(tmp_path / "model", written)
    abstract = nnx.eval_shape(lambda: jaxcnn.CNN(rngs=nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(abstract, nnx.Param))
    transform = optax.adam(1e-3)
    tree = {"params": params, "opt_state": jax.eval_shape(transform.init, params)}
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "model" / "state", tree)
    native = jaxcnn.import_state(written.state, Recipe(device="cpu"))
    kernel = nnx.to_pure_dict(native.params)["fc1"]["kernel"]
    np.testing.assert_array_equal(restored["params"]["fc1"]["kernel"], kernel)
    assert restored["opt_state"][0].count == 31
    updates, _ = transform.update(restored["params"], restored["opt_state"], restored["params"])
    assert jax.tree.structure(updates) == jax.tree.structure(restored["params"])
