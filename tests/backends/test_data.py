"""torchvision and TFDS hand over the same bytes; their downloads run against a local mirror."""

import functools
import gc
import hashlib
import importlib
import threading
import warnings
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from tensorflow_datasets.image_classification import mnist as tfds_mnist

import jaxcnn
import torchcnn
from parity.contract.backend import Backend
from parity.contract.data.datasets import FILES, Dataset, read_dataset
from parity.contract.errors import DataError
from tests.conftest import Write, arrays_of


def assert_same(a: Dataset, b: Dataset) -> None:
    for x, y in zip(arrays_of(a).values(), arrays_of(b).values(), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


@pytest.mark.parametrize("zipped", [False, True])
def test_small_files_are_decoded_to_the_byte(
    backend: Backend, tmp_path: Path, tiny: Dataset, write_tiny: Write, zipped: bool
) -> None:
    folder = write_tiny(tmp_path, zipped=zipped)
    folder.chmod(0o555)
    assert_same(backend.load_dataset("mnist", folder), tiny)


def test_mnist_is_decoded_to_the_byte(backend: Backend, mnist_dir: Path) -> None:
    assert_same(backend.load_dataset("mnist", mnist_dir), read_dataset("mnist", mnist_dir))


def test_digits_are_the_same_in_both() -> None:
    assert_same(torchcnn.load_dataset("digits"), jaxcnn.load_dataset("digits"))


def test_digits_need_no_home(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user may have none."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert len(backend.load_dataset("digits").train) == 1437


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, write_tiny: Write, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve the tiny files on 127.0.0.1, and make both libraries download from there."""
    folder = write_tiny(tmp_path / "mirror")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    server.daemon_threads = False  # so that closing the server waits for its connections
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    point_to(url, folder, monkeypatch)
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def point_to(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision_mnist = importlib.import_module("torchcnn.data").torchvision_datasets().MNIST
    md5 = {f: hashlib.md5((folder / f"{f}.gz").read_bytes()).hexdigest() for f in FILES}
    monkeypatch.setattr(torchvision_mnist, "mirrors", [url])
    monkeypatch.setattr(torchvision_mnist, "resources", [(f"{f}.gz", md5[f]) for f in FILES])
    monkeypatch.setattr(tfds_mnist.MNIST, "URL", url)


def test_a_download_is_kept_and_serves_the_other_backend_too(
    backend: Backend, mirror: Path, tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "data"
    assert_same(backend.load_dataset("mnist", folder), tiny)
    kept = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert kept == {Path("MNIST/raw") / f"{file}.gz" for file in FILES}
    for file in mirror.iterdir():
        file.unlink()
    for other in (torchcnn, jaxcnn):
        assert_same(other.load_dataset("mnist", folder), tiny)


@pytest.mark.parametrize("damage", ["missing", "other bytes"])
def test_a_failed_download_leaves_nothing_behind(
    backend: Backend, mirror: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = mirror / f"{FILES[2]}.gz"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes((mirror / f"{FILES[0]}.gz").read_bytes())
    folder = tmp_path / "new" / "data"
    with pytest.raises(DataError) as caught:
        backend.load_dataset("mnist", folder)
    assert "mnist" in str(caught.value) or FILES[2] in str(caught.value)
    assert not folder.parent.exists()
    del caught
    with warnings.catch_warnings():  # torchvision leaves the socket of a failed request open
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_a_server_that_sends_something_else_is_named_as_the_cause(
    backend: Backend, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A captive portal answers every request with a page; torchvision notices by its MD5."""
    for file in FILES:
        (mirror / f"{file}.gz").write_text("<html>please sign in</html>")
    point_to(tfds_mnist.MNIST.URL, mirror, monkeypatch)
    with pytest.raises(DataError, match=r"put its four IDX files there .*, from https:"):
        backend.load_dataset("mnist", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_without_a_network_the_error_names_digits(
    backend: Backend, no_network: None, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="--dataset digits, which needs no network"):
        backend.load_dataset("mnist", tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_a_copy_that_another_process_prepared_meanwhile_is_used(
    tmp_path: Path, tiny: Dataset, write_tiny: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_tiny(tmp_path / "files")
    jaxcnn.load_dataset("mnist", folder)
    [prepared] = (tmp_path / "cache/cnn-parity").iterdir()
    seen = iter([False])
    exists = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda self: next(seen, True) if self == prepared else exists(self)
    )
    assert_same(jaxcnn.load_dataset("mnist", folder), tiny)


@pytest.mark.parametrize("damage", ["cut", "emptied"])
def test_a_damaged_copy_of_tfds_is_refused_and_named(
    tmp_path: Path, tiny: Dataset, write_tiny: Write, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_tiny(tmp_path / "files")
    assert_same(jaxcnn.load_dataset("mnist", folder), tiny)
    [prepared] = (tmp_path / "cache/cnn-parity").iterdir()
    if damage == "cut":
        [records] = prepared.rglob("*train.array_record*")
        records.write_bytes(records.read_bytes()[:-100])
    else:
        for path in prepared.rglob("*.json"):
            path.unlink()
    with pytest.raises(DataError, match=f"{prepared}.*remove it"):
        jaxcnn.load_dataset("mnist", folder)
