"""OpenMP's threads are kept on their cores, unless the user has said something about them."""

import os
import subprocess
import sys

import pytest

from parity.contract.cli.threads import BINDING, bind_threads

OURS = ("OMP_NUM_THREADS", "WORLD_SIZE", *BINDING)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are bound on Linux only")


@pytest.fixture
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OMP_", "GOMP_", "KMP_")) or name == "WORLD_SIZE":
            monkeypatch.delenv(name)


def test_threads_are_bound_where_nothing_is_said_about_them(
    nothing_said: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")  # as scikit-learn does
    for name in BINDING:  # so that it is removed again
        monkeypatch.setenv(name, "")
        del os.environ[name]
    bind_threads()
    assert {name: os.environ.get(name) for name in BINDING} == BINDING


@pytest.mark.parametrize(
    ("name", "value"),
    [("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "0"),
     ("WORLD_SIZE", "2")],
)  # fmt: skip
def test_what_the_user_has_set_stays(
    nothing_said: None, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    before = dict(os.environ)
    bind_threads()
    assert dict(os.environ) == before


def test_processes_that_share_the_cores_are_not_bound_to_the_same_ones(
    nothing_said: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["torchcnn", "train", "--coordinator=127.0.0.1:1"])
    before = dict(os.environ)
    bind_threads()
    assert dict(os.environ) == before


def test_torchcnn_binds_its_threads_before_pytorch_is_imported(nothing_said: None) -> None:
    """OpenMP then keeps the main thread on one core."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("with one core there is nothing to bind to")
    code = "import os, sys, torchcnn.__main__; sys.argv = ['torchcnn', 'summary'];"
    code += "torchcnn.__main__.main(); print(len(os.sched_getaffinity(0)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "1"
