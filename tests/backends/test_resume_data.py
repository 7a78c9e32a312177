"""A run that is continued finds its data."""

from pathlib import Path

import pytest

from parity.contract.backend import Backend
from parity.contract.cli import programs as cli
from parity.contract.run.checkpoint import read_checkpoint
from tests.conftest import Write


def test_a_run_finds_its_data_where_it_had_them(
    backend: Backend, write_tiny: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by a relative path, or by the environment, and continued from elsewhere."""
    write_tiny(tmp_path / "files")
    monkeypatch.chdir(tmp_path)
    train = ["train", "--device", "cpu", "--quiet", "--epochs"]
    assert cli.main(backend, "", [*train, "1", "--data-dir", "files", "--out", "a"]) == 0
    with monkeypatch.context() as patch:
        patch.setenv("CNN_DATA_DIR", "files")
        assert cli.main(backend, "", [*train, "1", "--out", "b"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for run in ("a", "b", "a/checkpoint.safetensors"):
        epochs = str(len(read_checkpoint(tmp_path / run).epochs) + 1)
        assert cli.main(backend, "", [*train, epochs, "--resume", f"../{run}"]) == 0


@pytest.mark.usefixtures("no_network")
def test_data_that_are_gone_are_searched_for_as_ever(
    backend: Backend,
    write_tiny: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_tiny(tmp_path / "files")
    monkeypatch.chdir(tmp_path)
    train = ["train", "--device", "cpu", "--quiet", "--epochs"]
    assert cli.main(backend, "", [*train, "1", "--data-dir", "files", "--out", "a"]) == 0
    (tmp_path / "files").rename(tmp_path / "moved")
    assert cli.main(backend, "", [*train, "2", "--resume", "a"]) == 2
    assert "mnist is not in data" in capsys.readouterr().err
    assert cli.main(backend, "", [*train, "2", "--resume", "a", "--data-dir", "moved"]) == 0
