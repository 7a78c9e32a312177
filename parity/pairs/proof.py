"""What a proof of a pair says: each difference with its place and cause, and what was covered."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from parity.contract.files import SCHEMA, json_values
from parity.contract.notebook import bars, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Stage = Literal["forward", "gradients", "training", "float32"]
Kind = Literal["inside", "between"]
Place = str | tuple[str, str]
"""A layer, or the two between which the code lies."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A place where the two sides compute something else."""

    stage: Stage
    kind: Kind
    torch: Place
    jax: Place
    size: float
    """Largest error over the largest value that should be there."""
    rounding: float
    """What rounding explains of that."""
    cause: str | None = None
    """Its name in the catalogue of causes."""
    explanation: str = ""
    """The cause in words."""
    fix: str | None = None
    torch_source: str = ""
    """Operations of the place, with file and line."""
    jax_source: str = ""
    also: Sequence[str] = ()
    """Further places of the same kind, by PyTorch's name."""
    accepted: str | None = None
    """Why it is meant, if it is."""

    @property
    def where(self) -> str:
        """The place in words, by PyTorch's names."""
        return _words(self.torch)


def _words(place: Place) -> str:
    return f"inside {place}" if isinstance(place, str) else f"between {place[0]} and {place[1]}"


@dataclass(frozen=True, kw_only=True)
class LayerEvidence:
    """How far apart the two sides are at a layer, each fed with PyTorch's values."""

    torch: str
    jax: str
    shape: tuple[int, ...]
    """Of its output, in PyTorch's layout."""
    before: float | None
    """Error of its input over scale: made by the code before it; None: not comparable."""
    inside: float | None
    """Error of its output over scale: made by the layer itself."""
    rounding: float
    """What rounding explains of either."""


@dataclass(frozen=True, kw_only=True)
class MapRow:
    """A leaf, or part of one, of each side that hold the same numbers."""

    torch: str
    jax: str
    pattern: str
    """Einops pattern from PyTorch's array to JAX's."""
    torch_part: tuple[int, int, int] | None = None
    """(i, n, axis): part i of n equal ones along an axis of PyTorch's array."""
    jax_part: tuple[int, int, int] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Lengths of the pattern's axes that the shapes leave open."""
    how: str = ""
    """By what it was found: order, names, probing, or the user."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Whether two sides are the same computation; true or false as such."""

    same: bool
    differences: Sequence[Difference]
    """Those that do not count, since they are accepted, too."""
    notes: Sequence[str]
    """What is to be known but is no difference."""
    map: Sequence[MapRow]
    layers: Sequence[LayerEvidence]
    coverage: Mapping[str, Any]
    """What was judged, and what was not and why."""
    summary: Mapping[str, str]
    """A line by part: weights, forward, gradients, training, float32."""
    environment: Mapping[str, Any]

    def __bool__(self) -> bool:
        """Return whether they are; in a test of pytest's a false one is printed, to be seen there.

        Pytest cuts the text of what an `assert` was given, but shows what was printed.
        """
        if not self.same and "PYTEST_CURRENT_TEST" in os.environ:
            print(self.table(), self, sep="\n")
        return self.same

    def __str__(self) -> str:
        counted = [difference for difference in self.differences if difference.accepted is None]
        if self.same:
            accepted = sum(one.cause is not None for one in self.differences)
            meant = f"; {accepted} accepted difference{'s' * (accepted > 1)}" if accepted else ""
            return f"same: the two sides are the same computation{meant}"
        if not counted:
            return "different: not everything could be compared; see the notes"
        first = counted[0]
        many = f"{len(counted)} difference{'s' * (len(counted) > 1)}"
        return f"different: {many}, {'the first ' * (len(counted) > 1)}{first.where}"

    def __repr__(self) -> str:
        return f"<Proof {self}>"

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        fields = ("same", "differences", "notes", "map", "layers", "coverage", "summary")
        values = {name: json_values(getattr(self, name)) for name in fields}
        return {
            "schema": SCHEMA,
            "verdict": str(self),
            **values,
            "environment": json_values(self.environment),
        }

    def table(self) -> str:
        """Return the parts line by line, each difference with its evidence, in 80 columns."""
        from parity.pairs.text import lines

        return "\n".join(lines(self))

    def _repr_html_(self) -> str:
        """Show itself in a notebook: the picture, the parts, the verdict."""
        return shown(f"{self.table()}\n{self}", self.plot())

    def plot(self) -> "Figure":
        """Return a figure of each layer's error over scale, and of what rounding explains."""
        layers = {layer.torch: [layer.inside or 0.0, layer.rounding] for layer in self.layers}
        return bars(layers, ("its error", "what rounding explains"), limit=None,
                    label="error of a layer's output, as a part of its scale")  # fmt: skip
