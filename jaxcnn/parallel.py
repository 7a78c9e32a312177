"""Several devices that train together, of one process or, by jax.distributed, of several."""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import UInt8

from parity.contract.errors import COMMON, DeviceError, ProcessError, RecipeError
from parity.contract.group import ALONE, Group
from parity.contract.interrupts import end
from parity.contract.processes import Processes
from parity.contract.recipe import Recipe
from parity.contract.rollcall import PATIENCE, Meeting, meet

AXIS = "data"
"""The mesh's one axis, along which a batch is divided."""

_SHUTDOWN = 30
"""Seconds in which all processes end, once they are done."""

_group = ALONE
_devices: int | None = 1
"""Of each process; None: all that it has."""

_Tree = TypeVar("_Tree")


def group() -> Group:
    """Return the processes that train together with this one; it alone outside `joined`."""
    return _group


@contextlib.contextmanager
def joined(processes: Processes) -> Iterator[Group]:
    """Train together with other processes in this block, which each of them must enter.

    They meet at the coordinator, or where jax.distributed finds. `fit` and `evaluate` then divide
    each batch among the devices of all. Of a JAX program it must be the first use of a device. It
    raises ProcessError for a process that does not come, and DeviceError for devices that are not
    there.
    """
    global _group, _devices
    alone = processes.processes in (None, 1)
    meeting = meet("jaxcnn", processes) if processes.coordinator and not alone else None
    if processes.devices is not None:
        _set_devices(processes.devices)
    with contextlib.nullcontext() if alone else _leaving(meeting):
        if not alone:
            _initialize(processes, meeting)
            _group = Group(index=jax.process_index(), count=jax.process_count(), exchange=_exchange)
        _devices = processes.devices or (1 if alone else None)
        if not alone and jax.default_backend() == "cpu":
            _connect()
        try:
            yield _group
        except COMMON:
            _leave()
            raise
        else:
            _leave()
        finally:
            _group, _devices = ALONE, 1


def _leave() -> None:
    """Leave with all others: process 0 may still be writing."""
    if _group.count > 1:
        multihost_utils.sync_global_devices("done")
        jax.distributed.shutdown()


def _set_devices(count: int) -> None:
    """Let a CPU be so many devices."""
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # it has been used
        if jax.local_device_count() < count:
            raise DeviceError(
                f"devices {count}: JAX has computed in this process, on"
                f" {jax.local_device_count()} of them; give the number before"
            ) from None


def _initialize(processes: Processes, meeting: Meeting | None) -> None:
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    try:
        if meeting is not None:
            jax.distributed.initialize(
                meeting.address,
                processes.processes,
                processes.process_id,
                initialization_timeout=processes.wait,
                shutdown_timeout_seconds=_SHUTDOWN,
                coordinator_bind_address=meeting.address,
            )
            return
        jax.distributed.initialize(
            initialization_timeout=processes.wait, shutdown_timeout_seconds=_SHUTDOWN
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ProcessError(
            f"processes {processes.processes}: jax.distributed does not find them ({reason}); give"
            " each --coordinator HOST:PORT and --process-id"
        ) from None
    if jax.process_count() != processes.processes:
        found = f"jax.distributed has found {jax.process_count()}"
        raise ProcessError(f"processes {processes.processes}, but {found}")


@contextlib.contextmanager
def _leaving(meeting: Meeting | None) -> Iterator[None]:
    """Let a process whose training failed end at once: JAX would wait for others, and abort.

    Where process 0 is lost JAX aborts from a thread of its own: it has to wait for our line.
    """
    if meeting is not None:
        ctypes.CDLL(None).signal(int(signal.SIGABRT), _BEFORE_ABORT)
    try:
        with meeting.watching() if meeting else contextlib.nullcontext():
            yield
    except BaseException as error:
        others = 2 if isinstance(error, OSError | ImportError) else 70  # as `command.run` has it
        others = 141 if isinstance(error, BrokenPipeError) else others
        status = getattr(error, "exit_code", others)
        atexit.register(_exit, status)
        raise


def _before_abort(_number: int) -> None:
    time.sleep(PATIENCE)  # the meeting ends this process, if another one is lost
    end("jaxcnn: error: jax.distributed has aborted", ProcessError.exit_code)


_BEFORE_ABORT = ctypes.CFUNCTYPE(None, ctypes.c_int)(_before_abort)
"""Held as long as the process lives, since it may abort after the training."""


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _connect() -> None:
    """Sum once between processes and between devices: gloo writes to the screen that it can."""
    sys.stdout.flush()
    screen, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        _group.gather(None)
        recipe = Recipe(device="cpu")
        devices = mesh(recipe)
        ones = own_share(np.ones(devices.size, np.float32), recipe)
        jax.block_until_ready(on_shares(summed, devices, divided="r")(ones))
    finally:
        os.dup2(screen, 1)
        os.close(screen)
        os.close(nowhere)


def _exchange(own: UInt8[np.ndarray, "n"]) -> UInt8[np.ndarray, "count n"]:
    return np.asarray(multihost_utils.process_allgather(own))


def share_count(recipe: Recipe) -> int:
    """Return how many shares each batch has, one a device; or raise RecipeError."""
    count = mesh(recipe).size
    if count > recipe.batch_size:
        raise RecipeError(
            f"batch_size {recipe.batch_size} is less than one image for each of {count} devices;"
            " give --batch-size more, or start fewer"
        )
    if count > 1 and recipe.mode == "eager":
        raise RecipeError(f"mode eager: JAX divides a batch among {count} devices under jit only")
    return count


def mesh(recipe: Recipe) -> Mesh:
    """Return the devices that train together; or raise DeviceError if a process has too few."""
    everyone = jax.devices(recipe.device)
    chosen = []
    for index in range(_group.count):
        own = [device for device in everyone if device.process_index == index][:_devices]
        if len(own) < (_devices or 1):
            raise DeviceError(f"devices {_devices or 1}: process {index} has {len(own)}")
        chosen += own
    return Mesh(np.array(chosen), (AXIS,))


def on_shares(function: Callable[..., Any], devices: Mesh, *, divided: str) -> Callable[..., Any]:
    """Return a function that each device calls with its own share of some arguments.

    `divided` has a letter for each argument: `.` whole, `c` divided along its last axis, columns of
    a matrix, `r` along its only one. What it returns must be the same on all devices.
    """
    specs = {".": PartitionSpec(), "r": PartitionSpec(AXIS), "c": PartitionSpec(None, AXIS)}
    return jax.shard_map(
        function,
        mesh=devices,
        in_specs=tuple(specs[letter] for letter in divided),
        out_specs=PartitionSpec(),
    )


def own_share(columns: np.ndarray, recipe: Recipe) -> Array:
    """Return an array of which each device has its share of the columns, on the last axis."""
    spec = PartitionSpec(*[None] * (columns.ndim - 1), AXIS)
    return _placed(columns, NamedSharding(mesh(recipe), spec))


def replicated(value: Any, recipe: Recipe) -> Any:
    """Return a tree of arrays, which each device has whole."""
    devices = mesh(recipe)
    if devices.size == 1:
        return jax.device_put(value, devices.devices.item())
    everywhere = NamedSharding(devices, PartitionSpec())
    return jax.tree.map(lambda array: _placed(array, everywhere), value)


def _placed(array: np.ndarray, sharding: NamedSharding) -> Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def summed(value: _Tree) -> _Tree:
    """Return the sum over the devices, within `on_shares`."""
    return jax.lax.psum(value, AXIS)
