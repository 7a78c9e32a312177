"""The course's notebooks run from top to bottom, offline, and what they show is what they say."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat: Any = pytest.importorskip("nbformat", reason="the course needs nbclient; make test")
nbclient: Any = pytest.importorskip("nbclient", reason="the course needs nbclient; make test")

ROOT = Path(__file__).parent.parent
COURSE = ROOT / "docs" / "course"
NOTEBOOKS = sorted(COURSE.glob("*.ipynb"))


def texts(notebook: Any) -> str:
    """Return all that a notebook's cells print and show, as text."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "\n".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs)


def test_there_are_notebooks() -> None:
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3", "4", "5"]


@pytest.mark.filterwarnings("default")  # of the client and its sockets
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(
    path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None) if cell.cell_type == "markdown" else cell.update(outputs=[])
    resources = {"metadata": {"path": str(COURSE)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    assert texts(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_its_outputs_and_small(path: Path) -> None:
    assert path.stat().st_size < 100_000
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(o.output_type == "error" for cell in code for o in cell.outputs)
    assert str(ROOT) not in path.read_text()


def test_both_programs_have_the_same_cells_and_run_by_themselves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = {}
    for program in ("tutorial_torch.py", "tutorial_jax.py"):
        text = (COURSE / program).read_text()
        cells[program] = re.findall(r"^# %% (.+)$", text, flags=re.MULTILINE)
        monkeypatch.setattr(sys, "argv", [program])
        runpy.run_path(str(COURSE / program))
        *_, last, result = capsys.readouterr().out.splitlines()
        assert last.startswith("Epoch 10, Loss: ")
        assert float(result.partition("%")[0]) > 80
    assert cells["tutorial_torch.py"] == cells["tutorial_jax.py"]


def test_the_tutorials_losses_stand_beside_both_backends_and_the_band() -> None:
    """As committed: made with MNIST."""
    shown = texts(nbformat.read(COURSE / "5-the-ten-losses.ipynb", as_version=4))
    rows = re.findall(
        r"^ +(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) ± ([\d.]+)$", shown, re.MULTILINE
    )
    assert [int(row[0]) for row in rows] == list(range(1, 11))
    assert [float(row[1]) for row in rows][:2] == [278.862, 108.298]
    for _, _, torch_loss, jax_loss, *_ in rows:
        assert float(torch_loss) == pytest.approx(float(jax_loss), rel=1e-3)
