"""The processes that train together: what one of them knows of the others, and agrees with them."""

import dataclasses
import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from jaxtyping import Float, Int64, UInt8

from parity.contract.errors import ProcessError

T = TypeVar("T")

_FRAME = 256
"""Bytes that are exchanged at once; most messages are shorter."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The processes of a training. Every process must call the same methods in the same order."""

    index: int = 0
    """Which of them this is."""
    count: int = 1
    exchange: Callable[[UInt8[np.ndarray, "n"]], UInt8[np.ndarray, "count n"]] = lambda own: own[
        None
    ]
    """From as many bytes in each process, those of all, by the framework's own all-gather."""

    @property
    def reports(self) -> bool:
        """Whether this is the one process that reports and saves."""
        return self.index == 0

    def gather(self, own: T) -> list[T]:
        """Return what each process has given."""
        if self.count == 1:
            return [own]
        content = pickle.dumps(own)
        message = len(content).to_bytes(8, "little") + content
        rows = self.exchange(_padded(message, _FRAME))
        lengths = [int.from_bytes(row[:8].tobytes(), "little") for row in rows]
        if (longest := max(lengths) + 8) > _FRAME:
            rows = self.exchange(_padded(message, longest))
        parts = zip(rows, lengths, strict=True)
        return [pickle.loads(row[8 : 8 + size].tobytes()) for row, size in parts]  # noqa: S301 - from processes of this very training

    def first(self, function: Callable[[], T]) -> T:
        """Return in each process what a function returns in process 0, where alone it is called."""
        return cast(T, self.gather(function() if self.reports else None)[0])

    def in_turn(self, function: Callable[[], T]) -> T:
        """Call a function in each process, first in process 0: the others find what it prepares."""
        if self.reports:
            result = function()
            self.gather(None)
            return result
        self.gather(None)
        return function()

    def require_same(self, facts: Callable[[], Mapping[str, object]]) -> None:
        """Raise ProcessError, which names the process and the fact, where one has another.

        A single process has none to differ from, and does not ask for them.
        """
        if self.count == 1:
            return
        everyone = self.gather({name: str(value) for name, value in facts().items()})
        for index, other in enumerate(everyone):
            for name, value in everyone[0].items():
                if other.get(name) != value:
                    raise ProcessError(
                        f"process {index} of {self.count} has {name} {other.get(name)},"
                        f" process 0 has {value}; give all of them the same"
                    )


ALONE = Group()
"""The group of a single process."""


def shares(
    order: Int64[np.ndarray, "steps batch"], count: int
) -> tuple[Int64[np.ndarray, "steps columns"], Float[np.ndarray, "columns"]]:
    """Divide each batch into `count` equally wide shares, one beside the other.

    A share that has fewer images than another repeats one of the batch. The weights are 1 for the
    images of the batch, each of which is in one share, and 0 for the repeated.
    """
    columns = np.array_split(np.arange(order.shape[1]), count)
    width = len(columns[0])
    padded = [np.pad(own, (0, width - len(own))) for own in columns]
    weights = [np.arange(width) < len(own) for own in columns]
    return order[:, np.concatenate(padded)], np.concatenate(weights).astype(np.float64)


def facts(recipe: Any, package: str, versions: Mapping[str, str]) -> dict[str, object]:
    """Return what must be the same in all processes of a training: recipe, versions, source."""
    own = dataclasses.asdict(recipe)
    del own["data_dir"]
    return {**own, **versions, "source code": _source_digest(package)}


def _source_digest(package: str) -> str:
    """Return the SHA-256 of the source of a backend and of the contract."""
    digest = hashlib.sha256()
    for name in (package, "parity.contract"):
        spec = find_spec(name)
        for folder in spec.submodule_search_locations or [] if spec else []:
            for file in sorted(Path(folder).rglob("*.py")):
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _padded(content: bytes, size: int) -> UInt8[np.ndarray, "size"]:
    return np.frombuffer(content[:size].ljust(size, b"\0"), np.uint8)
