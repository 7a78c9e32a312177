"""A checkpoint of one side's model turned into the other's, by the map that a proof finds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parity.contract.errors import CheckpointError, OutputError
from parity.pairs.case import Case, prepare
from parity.pairs.conversion.holders import Arrays, Holder, Side, jax_holder, torch_holder
from parity.pairs.conversion.weightfiles import file_format, read_arrays, write_arrays
from parity.pairs.forward.repair import repair
from parity.pairs.jax_side.cpu import on_cpu
from parity.pairs.mapping.maps import part_of
from parity.pairs.mapping.patterns import inverse, rearranged
from parity.pairs.pair import Pair
from parity.pairs.proof import MapRow

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Conversion:
    """What was written, and what was not carried over."""

    source: Side
    target: Side
    arrays: int
    """How many arrays of the target hold the source's values."""
    notes: Sequence[str]
    """What has no twin, and what became of it."""

    def __str__(self) -> str:
        return f"{self.arrays} arrays of {self.source}'s model as {self.target}'s"


@on_cpu()
def convert_weights(
    pair: Pair,
    source: Path,
    target: Path,
    *,
    map: Sequence[MapRow] = (),
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> Conversion:
    """Write the weights of one side's model as the other's; every value is kept bit for bit.

    PairError: the pair has no weights, or cannot be run. CheckpointError: `source` is not of the
    model, or an array of it has no twin. OutputError: `target` cannot be written. DeviceError: JAX
    has no CPU here. In each case nothing is written.
    """
    if (target.exists() or target.is_symlink()) and not overwrite:
        raise OutputError(f"{target} is there already; name another one, or give --overwrite")
    side = _side(source, target)
    holders: dict[Side, Holder] = {"PyTorch": torch_holder(pair), "JAX": jax_holder(pair)}
    side, arrays = read_arrays(source, side, holders)
    case = prepare(pair, 0, "drawn", map, progress)
    repair(case, progress)
    transfer = _Transfer(case, side, holders)
    found = transfer.made(arrays)
    notes = transfer.notes
    if case.forced.wrong:
        notes.append("the two sides are not the same computation: parity prove says where")
    write_arrays(target, found, holders[transfer.other])
    return Conversion(side, transfer.other, transfer.filled, notes)


def _side(source: Path, target: Path) -> Side | None:
    """Return whose the source is, as far as the names of the files say."""
    have, want = file_format(source, CheckpointError), file_format(target, OutputError)
    if have == want != ".safetensors":
        whose = "PyTorch's" if have else "JAX's"
        raise OutputError(
            f"{source} and {target} are both {whose}; name a target of the other side"
        )
    if have == ".pt" or not want:
        return "PyTorch"
    return "JAX" if not have or want == ".pt" else None


@dataclass(frozen=True)
class _Step:
    """A row of the map in the direction that is asked for."""

    source: str
    target: str
    pattern: str
    sizes: dict[str, int]
    source_part: tuple[int, int, int] | None
    target_part: tuple[int, int, int] | None


class _Transfer:
    """Carries arrays of one side over to the other."""

    def __init__(self, case: Case, side: Side, holders: Mapping[Side, Holder]) -> None:
        to_jax = side == "PyTorch"
        self.other: Side = "JAX" if to_jax else "PyTorch"
        self._said: dict[str, list[str]] = {}
        self.filled = 0
        self._have, self._want = holders[side], holders[self.other]
        leaves, used = (case.torch.leaves, case.jax.leaves), case.used
        self._leaves = leaves if to_jax else leaves[::-1]
        self._used = used if to_jax else used[::-1]
        self._steps = [_step(row, to_jax=to_jax) for row in case.map.rows]

    @property
    def notes(self) -> list[str]:
        """What has no twin and what became of it: a line for each reason."""
        lines = []
        for reason, names in self._said.items():
            more = f" and {len(names) - 4} more" * (len(names) > 4)
            lines.append(f"{reason}: {', '.join(names[:4])}{more}")
        return lines

    def _say(self, reason: str, name: str) -> None:
        self._said.setdefault(reason, []).append(name)

    def made(self, arrays: Arrays) -> Arrays:
        """Return the other side's arrays. CheckpointError: one has no twin, and does not vanish."""
        every = {**self._have.unsaved, **arrays}
        found = {
            name: self._made(name, own, every)
            for name, own in self._want.own.items()
            if name not in self._want.aliases
        }
        for name, array in arrays.items():
            if name not in self._have.aliases:
                self._let_go(name, array)
        return {name: found[self._want.aliases.get(name, name)] for name in self._want.own}

    def _made(self, name: str, own: np.ndarray, arrays: Arrays) -> np.ndarray:
        steps = [step for step in self._steps if step.target == name]
        values = []
        for step in steps:
            part = part_of(arrays[step.source], step.source_part)
            values.append(rearranged(part, step.pattern, step.sizes))
        if not steps:
            return self._alone(name, own)
        self.filled += 1
        if steps[0].target_part is None:
            return values[0]
        dtypes = {value.dtype for value in values}
        if len(dtypes) > 1:
            raise CheckpointError(
                f"{self.other}'s {name} holds several arrays of {self._have.side}, which are of"
                f" different types: {', '.join(sorted(map(str, dtypes)))}"
            )
        whole = np.array(own if _whole(steps, "target_part") else self._alone(name, own))
        whole = whole.astype(values[0].dtype)
        for step, value in zip(steps, values, strict=True):
            part_of(whole, step.target_part)[...] = value
        return whole

    def _alone(self, name: str, own: np.ndarray) -> np.ndarray:
        """Return what a leaf without a twin gets: what makes it vanish, or the model's own."""
        leaf, kept = self._leaves[1].get(name), f"{self.other}'s own values are kept, without twins"
        if leaf is None or name not in self._used[1]:
            self._say(kept, name)
            return own
        value = leaf.vanishing
        if value is not None:
            self._say(f"only {self.other} has these, set to {value:g}", name)
            return np.full_like(own, value)
        if leaf.trained:
            raise CheckpointError(
                f"{self.other}'s {name} {own.shape} has no twin in"
                f" {self._have.side}; give a row of --map"
            )
        self._say(kept, name)
        return own

    def _let_go(self, name: str, array: np.ndarray) -> None:
        """Say that an array is left out, or refuse to."""
        steps = [step for step in self._steps if step.source == name]
        if steps and _whole(steps, "source_part"):
            return
        side, leaf = self._have.side, self._leaves[0].get(name)
        value = leaf.vanishing if leaf else None
        if leaf is None:
            self._say(f"{side}'s are left out, without twins", name)
        elif name not in self._used[0]:
            self._say(f"{side}'s are left out, which never influence the output", name)
        elif value is not None and (array == value).all():
            self._say(f"{side}'s are left out, which are {value:g} everywhere", name)
        elif not leaf.trained and array.tobytes() == self._have.own[name].tobytes():
            self._say(f"{side}'s are left out, which are as in the model", name)
        else:
            what = f", and is not {value:g} everywhere" if value is not None else ""
            raise CheckpointError(
                f"{side}'s {name} {array.shape} has no twin in"
                f" {self.other}{what}; give a row of --map"
            )


def _step(row: MapRow, *, to_jax: bool) -> _Step:
    sizes = dict(row.sizes)
    if to_jax:
        return _Step(row.torch, row.jax, row.pattern, sizes, row.torch_part, row.jax_part)
    return _Step(row.jax, row.torch, inverse(row.pattern), sizes, row.jax_part, row.torch_part)


def _whole(steps: Sequence[_Step], which: str) -> bool:
    """Whether the steps' parts are all that there are of a leaf."""
    parts = [getattr(step, which) for step in steps]
    return None in parts or {part[0] for part in parts} == set(range(parts[0][1]))
