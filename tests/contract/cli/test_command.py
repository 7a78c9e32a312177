"""What all command lines share: help, packages that are missing, bars, colours."""

import importlib
import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from parity.__main__ import COMMANDS
from parity.contract.cli import command, console
from parity.contract.cli.console import ProgressBar, coloured
from parity.contract.cli.tables import wrapped
from parity.contract.data.datasets import Dataset
from parity.contract.recipe import Recipe
from parity.contract.run.progress import Progress
from parity.contract.state import initial_state

CALLS = [
    *(["torchcnn", *name] for name in ([], ["train"], ["evaluate"], ["predict"], ["summary"])),
    ["jaxcnn"],
    ["parity"],
    *(["parity", options.__name__.lower()] for options in COMMANDS),
]


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_help_fits_a_screen_of_80_columns(
    call: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", [*call, "--help"])
    main = importlib.import_module(f"{call[0]}.__main__").main
    monkeypatch.setattr("parity.contract.interrupts.exit_on_interrupt", lambda: None)
    for module in ("torchcnn", "jaxcnn", "parity"):
        monkeypatch.setattr(f"{module}.__main__.exit_on_interrupt", lambda: None)
    with pytest.raises(SystemExit):
        main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert [line for line in lines if len(line) > 80] == []


def test_a_long_line_is_broken_at_spaces() -> None:
    line = "word " * 30 + "x" * 100
    assert " ".join(wrapped(line).split()) == line
    assert wrapped("short") == "short"


@dataclass(frozen=True, kw_only=True)
class Go(command.Debug):
    """Do it."""


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ModuleNotFoundError("No module named 'jax'", name="jax"), 2, "jax is not installed; "),
        (ImportError("libcudart.so", name="torch._C"), 2, "torch cannot be imported (libcudart"),
        (ModuleNotFoundError("No module named 'jaxcnn.x'", name="jaxcnn.x"), 70, "Traceback"),
    ],
)
def test_a_package_that_is_missing_is_a_line(
    error: ImportError, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Any) -> None:
        raise error

    assert command.run("program", "Something.", {Go: fail}, ["go"]) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("package", ["torch", "jax"])
def test_parity_says_which_framework_is_missing(package: str, tmp_path: Path) -> None:
    """Also `parity doctor`, which lists the subjects of the other one."""
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('no', name='{package}')")
    code = "import sys; from parity.__main__ import main; sys.argv = sys.argv[1:]; sys.exit(main())"
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", code, "parity", "check", "--a", f"{package}:eager", "--b", "numpy"],
        capture_output=True,
        text=True,
        env=environment,
    )
    expected = (
        f"parity: error: {package} is not installed; install it: python -m pip install {package}\n"
    )
    assert (run.returncode, run.stdout, run.stderr) == (2, "", expected)


def test_a_spoken_bar_says_each_tenth_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    for spoken, said in (
        (True, ["what: 0 of 30", *(f"what: {n} of 30" for n in range(3, 31, 3))]),
        (False, []),
    ):
        with ProgressBar(spoken=spoken) as bar:
            for step in range(31):
                bar.show("what", step, 30)
        captured = capsys.readouterr()
        assert (captured.out, captured.err.splitlines()) == ("", said)


def test_a_verdict_is_coloured_on_a_terminal_only() -> None:
    terminal = Console(force_terminal=True, color_system="standard", soft_wrap=True)
    pipe = Console(file=io.StringIO(), soft_wrap=True)
    text = "agree: " + 100 * "x"
    assert coloured(pipe, text, good=True) == text
    assert "\x1b[1;32m" in coloured(terminal, text, good=True)
    assert "\x1b[1;31m" in coloured(terminal, text, good=False)


def test_a_bar_names_the_compiling(tiny: Dataset) -> None:
    recipe, seen = Recipe(batch_size=16, mode="jit"), []
    bar = ProgressBar()
    bar.show = lambda what, step, steps: seen.append(what)
    observer = console.ConsoleObserver(bar, recipe)
    observer.start("jaxcnn", recipe, tiny)
    for _ in range(2):
        observer.paused(Progress(recipe, tiny, None), initial_state(0))
    assert seen == ["epoch 1/10, compiling", "epoch 1/10"]
