"""Several processes that train together by torch.distributed: gloo on a CPU, NCCL on a GPU."""

import contextlib
import datetime as dt
import os
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from parity.contract.errors import COMMON, DeviceError, ProcessError, RecipeError
from parity.contract.group import ALONE, Group
from parity.contract.processes import Processes
from parity.contract.recipe import Recipe
from parity.contract.rollcall import Meeting, meet

_group = ALONE


def group() -> Group:
    """Return the processes that train together with this one; it alone outside `joined`."""
    return _group


@contextlib.contextmanager
def joined(processes: Processes) -> Iterator[Group]:
    """Train together with other processes in this block, which each of them must enter.

    They meet at the coordinator, or where torchrun says. `fit` and `evaluate` then divide each
    batch among them. It raises ProcessError for a process that does not come, and DeviceError for
    several devices.
    """
    global _group
    if (processes.devices or 1) > 1:
        raise DeviceError(
            f"devices {processes.devices}: PyTorch has one device a process; start more processes,"
            f" torchrun --nproc-per-node {processes.devices} -m torchcnn train"
        )
    meeting, count, index = _meet(processes)
    if count == 1:
        yield ALONE
        return
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # as torchrun does: processes that share cores would wait in turn
    with meeting.watching() if meeting else _without_watch():
        _initialize(processes, meeting, count, index)
        _group = Group(index=index, count=count, exchange=_exchange)
        try:
            yield _group
        except COMMON:
            _leave()
            raise
        else:
            _leave()
        finally:
            _group = ALONE


def _leave() -> None:
    """Leave with all others: process 0 may still be writing."""
    _group.gather(None)
    dist.destroy_process_group()


def _meet(processes: Processes) -> tuple[Meeting | None, int, int]:
    """Return where the processes meet, None for torchrun's place; how many; which this is."""
    if processes.coordinator is not None:
        meeting = meet("torchcnn", processes) if processes.processes != 1 else None
        return meeting, processes.processes or 1, processes.process_id or 0
    if "WORLD_SIZE" not in os.environ:
        if (processes.processes or 1) > 1:
            raise RecipeError(
                f"processes {processes.processes}: start them with torchrun --nproc-per-node"
                f" {processes.processes} -m torchcnn, or each with --coordinator and --process-id"
            )
        return None, 1, 0
    count = _whole("WORLD_SIZE")
    if processes.processes not in (None, count):
        raise RecipeError(f"processes {processes.processes}, but torchrun has started {count}")
    return None, count, _whole("RANK")


def _whole(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise RecipeError(f"{name} is {value!r}, where torchrun has a number; start with torchrun")
    return int(value)


def _initialize(processes: Processes, meeting: Meeting | None, count: int, index: int) -> None:
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", index)) % torch.cuda.device_count())
    wait = dt.timedelta(seconds=processes.wait)
    try:
        if meeting is None:
            dist.init_process_group(backend, init_method="env://", timeout=wait)
            return
        host, _, port = meeting.address.rpartition(":")
        store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage] - as documented
            host, int(port), count, is_master=index == 0, timeout=wait
        )
        dist.init_process_group(backend, store=store, rank=index, world_size=count)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ProcessError(f"the {count} processes do not meet: {reason}") from None


@contextlib.contextmanager
def _without_watch() -> Iterator[None]:
    """Say what a failed sum means, where torchrun and not a meeting ends the processes."""
    try:
        yield
    except RuntimeError as error:
        if "gloo" not in str(error).lower() and not isinstance(error, dist.DistError):
            raise
        raise ProcessError(
            "another process of this training has ended; continue from the last checkpoint with"
            " --resume, with any number of processes"
        ) from error


def _exchange(own: UInt8[np.ndarray, "n"]) -> UInt8[np.ndarray, "count n"]:
    rows = [torch.empty(len(own), dtype=torch.uint8) for _ in range(_group.count)]
    dist.all_gather(rows, torch.tensor(own))
    return torch.stack(rows).numpy()


def share_count(recipe: Recipe) -> int:
    """Return how many shares each batch has, one a process; or raise RecipeError."""
    count = _group.count
    if count > recipe.batch_size:
        raise RecipeError(
            f"batch_size {recipe.batch_size} is less than one image for each of {count} processes;"
            " give --batch-size more, or start fewer"
        )
    return count


def own_share(columns: np.ndarray, recipe: Recipe) -> Tensor:
    """Return this process's share of the columns, on the last axis."""
    own = np.split(columns, _group.count, axis=-1)[_group.index]
    return torch.from_numpy(own.copy()).to(recipe.device)


def replicated(value: nn.Module, recipe: Recipe) -> nn.Module:
    """Return a model that each process has; `backward` averages its gradients over all of them."""
    if _group.count == 1:
        return value
    if recipe.mode == "jit":
        value = cast(nn.Module, torch.compile(value, dynamic=False))
    return DistributedDataParallel(value)


def summed(value: Tensor) -> Tensor:
    """Return the sum over the processes."""
    if _group.count > 1:
        dist.all_reduce(value)
    return value
