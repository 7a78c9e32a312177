"""Each package, in a fresh process, imports only what it may."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchcnn

FRAMEWORKS = {
    "torch",
    "torchvision",
    "jax",
    "flax",
    "optax",
    "orbax",
    "tensorflow_datasets",
    "tensorflow",
}
HEAVY = FRAMEWORKS | {"sklearn", "matplotlib", "scipy"}
EVERY_NAME = "import {0}; [getattr({0}, name) for name in {0}.__all__]"


def imported_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after a statement."""
    code = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("package", ["torchcnn", "jaxcnn", "parity"])
@pytest.mark.parametrize("module", ["", ".__main__"])
def test_importing_a_package_or_its_command_line_loads_nothing_heavy(
    package: str, module: str
) -> None:
    assert imported_by(f"import {package}{module}") & HEAVY == set()


@pytest.mark.parametrize(
    ("package", "other"),
    [("torchcnn", {"jax", "flax", "optax", "orbax", "tensorflow_datasets", "jaxcnn"}),
     ("jaxcnn", {"torch", "torchvision", "torchcnn"})],
)  # fmt: skip
def test_a_backend_never_loads_the_other_framework(package: str, other: set[str]) -> None:
    loaded = imported_by(EVERY_NAME.format(package))
    assert loaded & other == set()
    assert "tensorflow" not in loaded


@pytest.mark.parametrize("package", ["torchcnn", "jaxcnn"])
def test_a_backend_loads_nothing_of_the_harness_but_the_contract(package: str) -> None:
    code = EVERY_NAME.format(package)
    code += "\nimport sys; print(*[n for n in sys.modules if n.startswith('parity.')])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert loaded
    assert all(name.startswith("parity.contract") for name in loaded)


@pytest.mark.parametrize("package", ["torchcnn", "jaxcnn"])
def test_digits_are_loaded_without_a_library_of_data_sets(package: str) -> None:
    loaded = imported_by(f"import {package}; {package}.load_dataset('digits')")
    assert loaded & {"sklearn", "scipy", "torchvision", "tensorflow_datasets"} == set()


def test_the_contract_and_the_oracle_load_no_framework() -> None:
    modules = ["cli.programs", "data.downloads", "run.observers", "backend"]
    statement = "".join(f"import parity.contract.{module}\n" for module in modules)
    statement += "import parity.truth.propagation"
    assert imported_by(statement) & FRAMEWORKS == set()


def test_jaxcnn_reads_what_torch_save_wrote_without_pytorch(tmp_path: Path) -> None:
    torch.save({"model_state_dict": torchcnn.CNN().state_dict()}, tmp_path / "cnn.pth")
    options = ["evaluate", "--dataset", "digits", "--checkpoint", str(tmp_path / "cnn.pth")]
    code = "import jaxcnn; from parity.contract.cli import programs\n"
    code += f"assert programs.main(jaxcnn, '', {options}) == 0"
    assert "jax" in imported_by(code)
    assert "torch" not in imported_by(code)
