"""Shared fixtures. JAX stays on the CPU, and of several workers each has one thread."""

import gzip
import hashlib
import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

os.environ["JAX_PLATFORMS"] = "cpu"
if "PYTEST_XDIST_WORKER" in os.environ:
    # threads of two workers on two cores would wait for each other most of the time
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import jaxtyping
import numpy as np
import pytest

from parity.contract.backend import Backend, Session
from parity.contract.data import datasets
from parity.contract.data.datasets import FILES, Dataset, Source, Split

Write = Callable[..., Path]

SLOW = {
    line
    for line in Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
}
"""Tests that `make test` leaves out."""

MNIST = os.environ.get("CNN_DATA_DIR")
"""The folder of the real MNIST files, or None; tests name it, and no program finds it by itself."""


@pytest.fixture(params=["torchcnn", "jaxcnn"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend in turn."""
    return cast(Backend, importlib.import_module(request.param))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run be a part of the tests, so that several can share them."""
    parser.addoption("--part", default="1/1", help="run only every Nth test from the Kth: K/N")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the slow ones."""
    name = item.nodeid.removeprefix("tests/")
    if name in SLOW or name.partition("[")[0] in SLOW:
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the other parts to other runs."""
    part, parts = map(int, str(config.getoption("--part")).split("/"))
    others = [item for place, item in enumerate(items) if place % parts != part - 1]
    config.hook.pytest_deselected(items=others)
    items[:] = items[part - 1 :: parts]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what PyTorch would compile where there is no compiler; check types in all else.

    PyTorch would compile the checks too, and cannot.
    """
    compiles = item.get_closest_marker("compiles") is not None
    if compiles and not any(shutil.which(name) for name in ("g++", "clang++", "cl")):
        pytest.skip("torch.compile needs a C++ compiler, and there is none")
    wrong_types = item.get_closest_marker("wrong_types") is not None
    jaxtyping.config.update("jaxtyping_disable", compiles or wrong_types)


COMPILES = pytest.mark.compiles
"""Of a parameter with which PyTorch compiles."""

in_each_mode = pytest.mark.parametrize(
    ("backend", "mode"),
    [
        ("torchcnn", "eager"),
        pytest.param("torchcnn", "jit", marks=COMPILES),
        ("jaxcnn", "eager"),
        ("jaxcnn", "jit"),
    ],
    indirect=["backend"],
)
"""Run a test with each backend, op by op and compiled."""


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let the workers share what JAX compiles for a whole run, which `planting` makes it forget."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    jax.config.update("jax_compilation_cache_dir", str(shared / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what TFDS prepares out of the user's cache; one folder serves a worker's whole run."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(autouse=True)
def _own_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test find data that the user has named."""
    monkeypatch.delenv("CNN_DATA_DIR", raising=False)


@pytest.fixture
def planting() -> Iterator[None]:
    """Let a mistake be planted into JAX's code: forget what was compiled before it and with it."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make both libraries ask a port of this machine where nothing answers."""
    mnist = importlib.import_module("torchcnn.data").torchvision_datasets().MNIST
    nowhere = "http://127.0.0.1:9/"
    monkeypatch.setattr(mnist, "mirrors", [nowhere])
    tfds = importlib.import_module("tensorflow_datasets.image_classification.mnist")
    monkeypatch.setattr(tfds.MNIST, "URL", nowhere)


@pytest.fixture
def mnist_dir() -> Path:
    """The folder of the real MNIST files."""
    if not MNIST:
        pytest.skip("CNN_DATA_DIR does not name a folder with the MNIST files")
    return Path(MNIST)


def step(session: Session, images: np.ndarray, labels: np.ndarray) -> float:
    """Make one of the steps that train, on a batch; return the loss before it."""
    return session.steps(images, labels, np.arange(len(labels))[None]).item()


def idx_bytes(array: np.ndarray) -> bytes:
    """Return an IDX file that holds `array`."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def tiny() -> Dataset:
    """A data set of random images, 40 for training and 20 for testing."""
    stream = np.random.RandomState(0)

    def split(size: int) -> Split:
        images = stream.randint(0, 256, (size, 28, 28)).astype(np.uint8)
        return Split(images, stream.randint(0, 10, size).astype(np.int64))

    return Dataset("mnist", split(40), split(20))


def arrays_of(dataset: Dataset) -> dict[str, np.ndarray]:
    """Return the array that belongs into each of the four files."""
    parts = (dataset.train.images, dataset.train.labels, dataset.test.images, dataset.test.labels)
    return dict(zip(FILES, parts, strict=True))


@pytest.fixture
def tiny_source(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Make `mnist` mean the tiny data set."""
    source = replace(
        datasets.SOURCES["mnist"],
        train_size=len(tiny.train),
        test_size=len(tiny.test),
        array_sha256={
            file: hashlib.sha256(array.astype(np.uint8).tobytes()).hexdigest()
            for file, array in arrays_of(tiny).items()
        },
    )
    monkeypatch.setitem(datasets.SOURCES, "mnist", source)
    return source


@pytest.fixture
def write_tiny(tiny: Dataset, tiny_source: Source) -> Write:
    """Write the tiny data set's four files to a folder."""

    def write(folder: Path, *, zipped: bool = True) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for file, array in arrays_of(tiny).items():
            content = idx_bytes(array)
            path = folder / (f"{file}.gz" if zipped else file)
            path.write_bytes(gzip.compress(content) if zipped else content)
        return folder

    return write
