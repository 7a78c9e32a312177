"""Each framework's own checkpoints: lossless both ways, and used as its users use them."""

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import torch
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.torch_version import TorchVersion

import jaxcnn
import torchcnn
from parity.contract.backend import Backend
from parity.contract.datasets import digits, pixels
from parity.contract.errors import CheckpointError, OutputError
from parity.contract.recipe import DType, Recipe
from tests.checkpoints import assert_same, checkpoint, random_state, refused, signed

NAMES = {"torchcnn": "model.pt", "jaxcnn": "model"}


def target(backend: Backend, folder: Path) -> Path:
    return folder / NAMES[backend.__name__]


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float32", "float64"]),
    step=st.integers(0, 2**31 - 1),
    loss_sum=st.floats(allow_nan=False, allow_infinity=False),
)
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

    images, labels = pixels(digits().train.images[:64]), digits().train.labels[:64]
    with torchcnn.session(recipe, written.state) as session:
        for _ in range(2):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(
                model(torch.from_numpy(images)), torch.from_numpy(labels)
            )
            loss.backward()
            optimizer.step()
            assert session.step(images, labels) == pytest.approx(float(loss.detach()), rel=1e-5)
        after = session.export()
    assert after.step == 33
    for name, value in model.named_parameters():
        np.testing.assert_allclose(value.detach().numpy(), after.params[name], rtol=0, atol=1e-6)


def test_flaxs_users_go_on_from_it_with_their_own_loop(tmp_path: Path) -> None:
    """Optax's state as optax.adam makes it, Flax's parameters as the model has them."""
    written = checkpoint()
    jaxcnn.write_native(tmp_path / "model", written)
    abstract = nnx.eval_shape(lambda: jaxcnn.CNN(dtype=jax.numpy.float32))
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


def test_an_older_pytorch_reads_no_pt_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(SimpleCNN().state_dict(), tmp_path / "cnn.pt")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    for version in ("1.13.1", "2.9.1+cpu"):
        monkeypatch.setattr(torch, "__version__", TorchVersion(version))
        with refused(re.escape(f"safely with PyTorch {version}")):
            torchcnn.read_native(tmp_path / "cnn.pt")


class Exploit:
    """What a hostile pickle runs, here with a trace to see."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def whole(**changes: Any) -> dict[str, Any]:
    """The content of a good file, with other values."""
    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchcnn.native.write_whole", lambda _, content: buffer.write(content))
        torchcnn.write_native(Path("unused"), checkpoint())
    return {**torch.load(io.BytesIO(buffer.getvalue()), weights_only=True), **changes}


def weights(**changes: Any) -> dict[str, Any]:
    return {**SimpleCNN().state_dict(), **{k.replace("_", "."): v for k, v in changes.items()}}


def adam(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = whole()
    change(content["optimizer"])
    return content


def said(**changes: Any) -> dict[str, Any]:
    return whole(checkpoint=signed(lambda values: values.update(changes)))


def saying(**changes: Any) -> dict[str, Any]:
    return {**checkpoint().to_json(), **changes}


def group(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda optimizer: optimizer["param_groups"][0].update(changes)


def of_first(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda optimizer: optimizer["state"][0].update(changes)


OTHERS = {
    "another network": (lambda: nn.Linear(3, 2).state_dict(), r"\['bias', 'weight'\]"),
    "the module itself": (SimpleCNN, "SimpleCNN"),
    "a list": (lambda: [1, 2], "it holds list"),
    "a tensor": (lambda: torch.zeros(3), "it holds Tensor"),
    "a layer less": (lambda: {"fc1.bias": torch.zeros(10)}, "it holds"),
    "a key more": (lambda: weights(fc2_bias=torch.zeros(10)), "fc2.bias"),
    "a text for a weight": (lambda: weights(fc1_bias="0"), r"fc1\.bias is str, expected \(10,\)"),
    "another shape": (lambda: weights(fc1_bias=torch.zeros(11)), r"fc1\.bias is \(11,\)"),
    "a huge view": (lambda: weights(fc1_bias=torch.zeros(1).expand(10**12)), r"fc1\.bias is \(10"),
    "half precision": (lambda: weights(fc1_bias=torch.zeros(10).half()), "torch HalfStorage"),
    "integers": (lambda: weights(fc1_bias=torch.zeros(10).long()), "torch LongStorage"),
    "two precisions": (lambda: weights(fc1_bias=torch.zeros(10).double()), "expected float32"),
    "sparse": (lambda: weights(fc1_bias=torch.zeros(10).to_sparse()), "_rebuild_sparse_tensor"),
    "negated": (
        lambda: weights(fc1_bias=torch.zeros(10, dtype=torch.cfloat).conj().imag), "no plain tensor"
    ),
    "on no device": (lambda: weights(fc1_bias=torch.zeros(10, device="meta")), "_meta_|no plain"),
    "NaN": (lambda: weights(fc1_bias=torch.full((10,), torch.nan)), "not finite"),
    "no moments": (lambda: whole(optimizer={}), "its optimizer has no state"),
    "an optimiser of text": (lambda: whole(optimizer="adam"), "its optimizer has no state"),
    "a moment less": (lambda: adam(lambda o: o["state"].pop(3)), "entries 0, 1, 2, 3"),
    "moments of another": (lambda: adam(of_first(max_exp_avg_sq=1)), "state of conv1.weight has"),
    "different steps": (lambda: adam(of_first(step=torch.tensor(9.0))), "different numbers"),
    "half a step": (
        lambda: adam(lambda o: [m.update(step=torch.tensor(0.5)) for m in o["state"].values()]),
        r"different numbers of steps: \[0\.5\]",
    ),
    "steps of text": (lambda: adam(of_first(step="31")), "Adam's step is str"),
    "a step a parameter": (lambda: adam(of_first(step=torch.zeros(3))), r"Adam's step is \(3,\)"),
    "a moment's shape": (lambda: adam(of_first(exp_avg=torch.zeros(16))), r"conv1\.weight is"),
    "a moment of infinity": (
        lambda: adam(of_first(exp_avg=torch.full((16, 1, 3, 3), torch.inf))), "SHA-256 differs"
    ),
    "no groups": (lambda: adam(lambda o: o.update(param_groups=[])), "not one group"),
    "two groups": (lambda: adam(lambda o: o["param_groups"].append({})), "not one group"),
    "another order": (lambda: adam(group(params=[1, 0, 2, 3])), r"params \[1, 0, 2, 3\]"),
    "another rate": (lambda: adam(group(lr=0.5)), r"lr 0\.5, expected 0\.001"),
    "a rate in a tensor": (lambda: adam(group(lr=torch.tensor(1e-3))), "lr tensor"),
    "weight decay": (lambda: adam(group(weight_decay=0.1)), r"weight_decay 0\.1"),
    "AMSGrad": (lambda: adam(group(amsgrad=True)), "amsgrad True"),
    "said nothing": (lambda: whole(checkpoint=None), "schema is None"),
    "said another schema": (lambda: said(schema=2), "schema is 2"),
    "said NaN": (lambda: whole(checkpoint=saying(loss_sum=float("nan"))), "not JSON"),
    "said a tensor": (lambda: whole(checkpoint=saying(loss_sum=torch.zeros(3))), "not JSON"),
    "said something else": (lambda: whole(checkpoint=saying(batch=9)), "SHA-256 differs"),
    "said another recipe": (lambda: said(recipe={}), "recipe: missing"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), OTHERS.values(), ids=OTHERS)
def test_a_pt_of_something_else_is_refused_by_name(
    content: Callable[[], Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "cnn.pt"
    path.write_bytes(saved(content()))
    with refused(reason) as caught:
        torchcnn.read_native(path)
    assert str(caught.value).startswith(f"{path} is not a checkpoint of this network: ")
    assert "\n" not in str(caught.value)


def rezip(content: bytes, change: Callable[[str, bytes], bytes], **options: Any) -> bytes:
    """Return an archive with some entries changed and the right checksums."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(buffer, "w", **options) as out,
    ):
        for entry in source.infolist():
            out.writestr(entry.filename, change(entry.filename, source.read(entry)))
    return buffer.getvalue()


def with_pickle(new: bytes) -> bytes:
    return rezip(saved(weights()), lambda name, old: new if name.endswith("data.pkl") else old)


def twice(content: bytes) -> bytes:
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"")
    return buffer.getvalue()


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


RUN = Exploit(os.system, "touch executed")


def nested(depth: int = 20_000) -> bytes:
    """A good file, but for lists in lists as what it says: deeper than Python could write."""
    lists = b"]" * depth + b"a" * (depth - 1)

    def change(_: str, old: bytes) -> bytes:
        return old.replace(b"X\x04\x00\x00\x00MARK", lists)

    return rezip(saved(whole(checkpoint="MARK")), change)


HOSTILE = {
    "os.system": (lambda: saved({"conv1.bias": RUN}), r"it names '(posix|os) system'"),
    "os.system, plainly": (lambda: pickle.dumps(RUN), "not a zip archive"),
    "os.system, before zip": (
        lambda: saved({"a": RUN}, _use_new_zipfile_serialization=False), "not a zip archive"
    ),
    "os.system, protocol 4": (lambda: with_pickle(pickle.dumps(RUN, 4)), "STACK_GLOBAL"),
    "os.system, protocol 0": (lambda: with_pickle(pickle.dumps(RUN, 0)), "system'"),
    "eval": (lambda: saved({"a": Exploit(eval, "open('executed', 'w')")}), "eval'"),
    "a gigabyte of nothing": (lambda: saved({"a": Exploit(bytearray, 10**9)}), "bytearray'"),
    "the registry": (lambda: with_pickle(b"\x80\x02\x82\x01."), "EXT1"),
    "a broken pickle": (lambda: with_pickle(b"\x80\x02}q"), "damaged pickle"),
    "an empty pickle": (lambda: with_pickle(b""), "damaged pickle|torch.load refuses"),
    "a pickle without end": (lambda: with_pickle(b"\x80\x02}"), "damaged pickle|refuses"),
    "a storage that is not there": (
        lambda: with_pickle(re.sub(b"FloatStorage", b"DoubleStorage", _pickle())), "refuses"
    ),
    "compressed": (
        lambda: rezip(saved(weights()), lambda _, old: old, compression=zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "a pickle before the archive": (
        lambda: pickle.dumps(bytearray(1000), 2) + saved(weights()), "not a zip archive"
    ),
    "lists in lists": (nested, "recursion|must have"),
    "an entry twice": (lambda: twice(saved(weights())), "two entries of one name"),
    "a flipped bit": (lambda: flipped(saved(weights())), "checksum"),
    "cut": (lambda: saved(weights())[:-100], "not a zip archive"),
    "empty": (lambda: b"", "not a zip archive"),
    "an empty archive": (lambda: b"PK\x05\x06" + b"\0" * 18, "not a zip archive"),
}  # fmt: skip


def test_every_byte_of_a_pts_directory_is_refused_or_makes_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "cnn.pt"
    torchcnn.write_native(path, checkpoint())
    content = path.read_bytes()
    expected = torchcnn.read_native(path).state.params["conv1.weight"]
    end = content.rindex(b"PK\x05\x06")
    start = int.from_bytes(content[end + 16 : end + 20], "little")
    refusals = 0
    for place in range(start, len(content)):
        bent = bytearray(content)
        bent[place] ^= 1 << place % 8
        path.write_bytes(bent)
        try:
            got = torchcnn.read_native(path).state.params["conv1.weight"]
        except CheckpointError:
            refusals += 1
        else:
            np.testing.assert_array_equal(got, expected)
    assert refusals


def _pickle() -> bytes:
    with zipfile.ZipFile(io.BytesIO(saved(weights()))) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))


@pytest.mark.parametrize(("content", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pt_is_refused_and_nothing_of_it_run(
    content: Callable[[], bytes], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cnn.pt"
    path.write_bytes(content())
    with refused(reason):
        torchcnn.read_native(path)
    assert list(tmp_path.iterdir()) == [path]


def test_pytorch_alone_would_refuse_to_run_it_too(tmp_path: Path) -> None:
    """The second wall, behind the look at what the pickle names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchcnn.native._require_harmless", lambda _: None)
        path = tmp_path / "cnn.pt"
        path.write_bytes(saved({"conv1.bias": RUN}))
        with refused("torch.load refuses it"):
            torchcnn.read_native(path)
    assert not Path("executed").exists()
