"""What a trained network says of images: the same in both frameworks, from one checkpoint."""

import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxcnn
import torchcnn
from parity.contract.backend import Backend
from parity.contract.data.datasets import digits, pixels
from parity.contract.recipe import DType, Mode, Recipe
from parity.contract.run.checkpoint import CHECKPOINT_FILE, read_checkpoint, write_checkpoint
from parity.contract.state import State
from parity.truth import reference
from tests.checkpoints import checkpoint
from tests.conftest import idx_bytes, in_each_mode
from tests.contract.cli.test_programs import run

TEST = digits().test


def softmax_by_hand(state: State, images: np.ndarray) -> np.ndarray:
    p = state.astype("float64").params
    maps = reference.conv1(pixels(images, "float64"), p["conv1.weight"], p["conv1.bias"])
    flat = reference.flatten(reference.pool(reference.relu(maps)))
    logits = reference.fc1(flat, p["fc1.weight"], p["fc1.bias"])
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def trained() -> dict[str, State]:
    recipe = Recipe(dataset="digits", epochs=2, device="cpu", dtype="float64")
    state = torchcnn.fit(recipe).state
    return {"float64": state, "float32": state.astype("float32")}


@in_each_mode
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities_are_those_by_hand(
    backend: Backend, mode: Mode, dtype: DType, trained: dict[str, State]
) -> None:
    recipe = Recipe(device="cpu", mode=mode, dtype=dtype)
    got = backend.predict(recipe, state=trained[dtype], images=TEST.images)
    expected = softmax_by_hand(trained[dtype], TEST.images)
    assert got.shape == (360, 10)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 if dtype == "float64" else 1e-4)
    assert (got.argmax(axis=1) == TEST.labels).mean() > 0.8


def test_more_images_than_a_batch_are_all_classified(
    backend: Backend, trained: dict[str, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(device="cpu", dtype="float64")
    whole = backend.predict(recipe, state=trained["float64"], images=TEST.images[:10])
    monkeypatch.setattr(f"{backend.__name__}.train.EVAL_BATCH", 4)
    parts = backend.predict(recipe, state=trained["float64"], images=TEST.images[:10])
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-13)


@pytest.fixture
def folder(tmp_path: Path, trained: dict[str, State], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, a PNG and an IDX file, to work in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    recipe = Recipe(dataset="digits", epochs=3, mode="jit", dtype="float64")
    kept = checkpoint(recipe=recipe, state=trained["float64"])
    write_checkpoint(tmp_path / "run" / CHECKPOINT_FILE, kept)
    Image.fromarray(TEST.images[0]).convert("RGB").save("digit.png")
    Path("digits.idx").write_bytes(idx_bytes(TEST.images[:3]))
    return tmp_path


def test_predict_prints_a_line_an_image(
    backend: Backend, folder: Path, capsys: pytest.CaptureFixture[str], trained: dict[str, State]
) -> None:
    assert run(backend, "predict", "digit.png", "digits.idx", "--checkpoint", "run") == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["digit.png", "digits.idx[0]", "digits.idx[1]", "digits.idx[2]"]
    expected = softmax_by_hand(trained["float64"], TEST.images[[0, 0, 1, 2]])
    assert lines == [
        f"{name}: {row.argmax()}  {' '.join(f'{p:.4f}' for p in row)}"
        for name, row in zip(names, expected, strict=True)
    ]


def test_both_backends_print_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    backends: tuple[Backend, ...] = (torchcnn, jaxcnn)
    for command in (
        ["predict", "digits.idx"],
        ["evaluate", "--mode", "eager", "--kernel", "layers"],
    ):
        for backend in backends:
            assert run(backend, *command, "--checkpoint", "run", "--device", "cpu") == 0
            printed.append(capsys.readouterr().out.replace(backend.__name__, "PROGRAM"))
    assert printed[0] == printed[1]
    assert printed[2] == printed[3]


def test_evaluate_takes_from_the_checkpoint_what_is_not_asked_for(
    backend: Backend, folder: Path, capsys: pytest.CaptureFixture[str], trained: dict[str, State]
) -> None:
    assert run(backend, "evaluate", "--checkpoint", f"run/{CHECKPOINT_FILE}") == 0
    printed = capsys.readouterr().out
    step = trained["float64"].step
    assert re.search(rf"digits, cpu, .*, float64, seed 0, after {step} steps: loss", printed)
    recipe = Recipe(dataset="digits", device="cpu", dtype="float64")
    accuracy = backend.evaluate(recipe, state=trained["float64"]).accuracy
    assert f"accuracy {accuracy:.2%} of 360 test images" in printed


def test_weights_that_overflow_are_no_digit(
    backend: Backend, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = read_checkpoint(Path("run"))
    params = {name: value * 1e300 for name, value in good.state.params.items()}
    state = dataclasses.replace(good.state, params=params)
    write_checkpoint(Path("big.safetensors"), dataclasses.replace(good, state=state))
    for command in (["predict", "digit.png"], ["evaluate"]):
        assert run(backend, *command, "--checkpoint", "big.safetensors") == 1
        assert "the weights are too large" in capsys.readouterr().err


def test_no_images_have_no_probabilities(backend: Backend, trained: dict[str, State]) -> None:
    none = np.zeros((0, 28, 28), dtype=np.uint8)
    recipe = Recipe(dataset="digits", device="cpu")
    assert backend.predict(recipe, state=trained["float32"], images=none).shape == (0, 10)


def test_evaluate_computes_in_the_dtype_that_is_asked_for(
    backend: Backend, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(backend, "evaluate", "--checkpoint", "run", "--dtype", "float32") == 0
    assert ", float32, seed 0, after" in capsys.readouterr().out


def huge_png(folder: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (280, 280)).save(buffer, "PNG")
    (folder / "digit.png").write_bytes(buffer.getvalue())


BAD = {
    "no file": (["predict"], lambda folder: None, "FILE|nothing to classify"),
    "no such file": (["predict", "seven.png"], lambda folder: None, "cannot read seven.png"),
    "nothing on it": (["predict", "digit.png"], huge_png, "shows nothing: its 280×280 pixels"),
    "no run": (
        ["predict", "digit.png"],
        lambda folder: (folder / "run" / CHECKPOINT_FILE).unlink(),
        "run/checkpoint.safetensors is not there",
    ),
    "damaged": (
        ["evaluate"],
        lambda folder: (folder / "run" / CHECKPOINT_FILE).write_bytes(b"PK"),
        "run/checkpoint.safetensors is not a checkpoint of this network",
    ),
    "a seed besides": (["evaluate", "--seed", "3"], lambda folder: None, "leave out --seed"),
}


@pytest.mark.parametrize(("command", "damage", "mend"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_2(
    backend: Backend,
    command: list[str],
    damage: Callable[[Path], object],
    mend: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(folder)
    assert run(backend, *command, "--checkpoint", "run") == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert re.search(mend, captured.err)
