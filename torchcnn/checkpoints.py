"""Checkpoints as PyTorch's users keep them: `.pt` files of torch.save.

    checkpoint = torch.load("model.pt", weights_only=True)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])  # a torch.optim.Adam

`checkpoint["checkpoint"]` says the rest: recipe, position, records.
"""

import dataclasses
import io
import pickletools
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parity.contract.errors import CheckpointError, CnnParityError
from parity.contract.files.tensors import MalformedError, unusable
from parity.contract.files.whole import write_whole
from parity.contract.recipe import ADAM_B1, ADAM_B2, ADAM_EPS, DType, Recipe
from parity.contract.run.checkpoint import Checkpoint
from parity.contract.state import PARAMETERS, Arrays, State
from torchcnn.state import export_array, import_state

LARGEST = 2**26
"""Bytes of a checkpoint; its arrays take less than one million."""


def write_native(path: Path, checkpoint: Checkpoint) -> None:
    """Write a `.pt` file with keys model, optimizer and checkpoint.

    Raises:
        OutputError: it cannot be written; what was there is untouched.
    """
    native = import_state(checkpoint.state, dataclasses.replace(checkpoint.recipe, device="cpu"))
    optimizer = native.optimizer.state_dict()
    # whoever loads it has PyTorch's own choice, on any device
    optimizer["param_groups"][0].update(foreach=None, fused=None)
    content = {
        "model": native.model.state_dict(),
        "optimizer": optimizer,
        "checkpoint": checkpoint.to_json(),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getvalue())


def read_native(path: Path) -> Checkpoint:
    """Read what `write_native` wrote; that without its key checkpoint; or a state_dict alone.

    What the file lacks is at its default: the recipe is the default one, but for the learning rate
    and the dtype, and the training stands at the beginning of its first epoch; of a state_dict
    alone the moments are zero and the step is 0. Nothing is called but what builds tensors.

    Raises:
        CheckpointError: the file is missing, damaged, hostile or of another network, or this
            PyTorch cannot read it safely; names the file.
    """
    if torch.__version__ < (2, 10):  # pyright: ignore[reportOperatorIssue] - a TorchVersion
        raise CheckpointError(
            f"cannot read {path} safely with PyTorch {torch.__version__}: before 2.10 a file could"
            " run code in spite of weights_only=True; upgrade PyTorch"
        )
    try:
        if path.stat().st_size > LARGEST:
            raise MalformedError(f"has more than {LARGEST} bytes")
        content = path.read_bytes()
        _require_harmless(content)
        return _from_loaded(_load(content))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except (MalformedError, CnnParityError, RecursionError) as error:
        raise unusable(path, f"is not a checkpoint of this network: {error}") from None


_BUILDS_TENSORS = {
    "collections OrderedDict",
    "torch FloatStorage",
    "torch DoubleStorage",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
}


def _require_harmless(content: bytes) -> None:
    """Refuse a file that names anything else than tensors, or that would grow when it is read."""
    if not content.startswith(b"PK\x03\x04"):  # torch.load tells the format by its first bytes
        raise MalformedError("it is not a zip archive of torch.save")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
                raise MalformedError("it is compressed, which torch.save does not do")
            if sum(e.file_size for e in entries) > len(content):
                raise MalformedError("it would grow when it is read")
            if len({e.filename for e in entries}) < len(entries):
                raise MalformedError("it has two entries of one name")
            if damaged := archive.testzip():
                raise MalformedError(f"it is damaged: the checksum of {damaged!r} differs")
            pickles = [archive.read(e) for e in entries if e.filename.endswith(".pkl")]
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise MalformedError(f"it is not a zip archive of torch.save ({error})") from None
    for pickle in pickles:
        for name in _named(pickle):
            if name not in _BUILDS_TENSORS:
                raise MalformedError(f"it names {name!r}, which a checkpoint has no use for")


def _named(pickle: bytes) -> Iterable[str]:
    """Yield what a pickle imports, as `module name`; nothing is imported."""
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument)
            elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                yield opcode.name
    except ValueError as error:
        raise MalformedError(f"it has a damaged pickle ({error})") from None


def _load(content: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged file may lead it anywhere
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MalformedError(f"torch.load refuses it ({reason})") from None


def _from_loaded(loaded: Any) -> Checkpoint:
    keys = set(loaded) if isinstance(loaded, Mapping) else None
    if keys == set(PARAMETERS):
        params = _arrays(loaded)
        m, v = ({name: np.zeros_like(params[name]) for name in PARAMETERS} for _ in range(2))
        return _at_the_beginning(State(params=params, adam_m=m, adam_v=v, step=0), lr=Recipe.lr)
    if keys not in ({"model", "optimizer", "checkpoint"}, {"model", "optimizer"}):
        found = sorted(map(str, keys)) if keys is not None else type(loaded).__name__
        raise MalformedError(
            f"it holds {found}, expected {list(PARAMETERS)} or model, optimizer and checkpoint"
        )
    state = _state(loaded["model"], loaded["optimizer"])
    group = _only_group(loaded["optimizer"])
    if "checkpoint" in loaded:
        checkpoint = Checkpoint.from_json(loaded["checkpoint"], state)
    else:
        checkpoint = _at_the_beginning(state, lr=_part(group, "lr"))
    _require_adam(group, lr=checkpoint.recipe.lr)
    return checkpoint


def _at_the_beginning(state: State, *, lr: float) -> Checkpoint:
    dtype: DType = "float64" if state.dtype == np.float64 else "float32"
    return Checkpoint(
        recipe=Recipe(lr=lr, dtype=dtype),
        dataset_sha256=None,
        state=state,
        epoch=1,
        batch=0,
        loss_sum=0.0,
        epochs=(),
        backend="torch.save",
        versions={},
    )


def _state(model: Any, optimizer: Any) -> State:
    """Return the canonical state of a network's state_dict and of Adam's."""
    params = _arrays(_table("model", model, PARAMETERS))
    moments = _table("optimizer's state", _part(optimizer, "state"), range(len(PARAMETERS)))
    tables = {
        name: _table(f"optimizer's state of {name}", moments[i], ("step", "exp_avg", "exp_avg_sq"))
        for i, name in enumerate(PARAMETERS)
    }
    return State(
        params=params,
        adam_m=_arrays({name: table["exp_avg"] for name, table in tables.items()}),
        adam_v=_arrays({name: table["exp_avg_sq"] for name, table in tables.items()}),
        step=_step([table["step"] for table in tables.values()]),
    )


def _arrays(tensors: Mapping[str, Any]) -> Arrays:
    """Return one array for each of PARAMETERS."""
    return {name: _array(name, tensors[name], shape) for name, (shape, _) in PARAMETERS.items()}


def _array(name: str, tensor: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return a tensor in NumPy, after a look at its shape."""
    got = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
    if got != shape:
        raise MalformedError(f"{name} is {got}, expected {shape}")
    try:
        return export_array(tensor)
    except RuntimeError as error:  # it is on no device, or of a kind that NumPy does not have
        raise MalformedError(f"{name} is no plain tensor ({error})") from None


def _step(steps: list[Any]) -> int:
    counts = {float(_array("Adam's step", step, ())) for step in steps}
    if len(counts) != 1 or not min(counts).is_integer():
        raise MalformedError(f"Adam has made different numbers of steps: {sorted(counts)}")
    return int(counts.pop())


def _only_group(optimizer: Any) -> Any:
    groups = _part(optimizer, "param_groups")
    if not isinstance(groups, list) or len(groups) != 1:
        raise MalformedError("its optimizer has not one group of parameters")
    return groups[0]


def _require_adam(group: Any, *, lr: float) -> None:
    """Refuse another optimiser than the recipe's."""
    expected = {
        "params": list(range(len(PARAMETERS))),
        "lr": lr,
        "betas": (ADAM_B1, ADAM_B2),
        "eps": ADAM_EPS,
        "weight_decay": 0,
        "amsgrad": False,
        "maximize": False,
    }
    for key, value in expected.items():
        got = _part(group, key)
        if not isinstance(got, int | float | tuple | list) or got != value:
            raise MalformedError(f"its optimizer has {key} {got!r}, expected {value!r}")


def _part(table: Any, key: str) -> Any:
    if not isinstance(table, dict) or key not in table:
        raise MalformedError(f"its optimizer has no {key}")
    return table[key]


def _table(what: str, table: Any, keys: Iterable[Any]) -> Mapping[Any, Any]:
    if not isinstance(table, Mapping) or set(table) != set(keys):
        raise MalformedError(f"its {what} has not the entries {', '.join(map(str, keys))}")
    return table
