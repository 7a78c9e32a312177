"""`parity prove`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from parity.commands.options import Report

if TYPE_CHECKING:
    from parity.pairs.case import Progress
    from parity.pairs.proof import Proof


@dataclass(frozen=True, kw_only=True)
class Prove(Report):
    """Prove that a PyTorch model and its JAX port are the same computation, or say where not.

    Exit status: 0 they are, 1 they are not, 2 the pair or the environment is wrong, 3 a side is
    not deterministic.
    """

    pair: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="FILE[:NAME]")]]
    """A .py file or a module; NAME is a `parity.Pair` or a function that returns one."""
    map: Path | None = None
    """TOML file with rows of the map, which win over what is found."""
    save_map: Path | None = None
    """File to write the map to that was found, as --map reads it."""
    show_map: bool = False
    """Print the map."""
    weights: Literal["drawn", "given"] = "drawn"
    """drawn: new weights, so that nothing hides behind zeros or ones; given: the pair's own."""
    seed: int = 0
    """Of the weights that are drawn."""
    accept: tuple[str, ...] = ()
    """Differences that are meant: CAUSE or CAUSE@LAYER, a pattern as blocks.*."""

    def run(self) -> int:
        from dataclasses import replace

        from parity.pairs.judging import prove
        from parity.pairs.mapfile import read_map, write_map
        from parity.pairs.pair import Accept, load_pair

        rows = read_map(self.map) if self.map else []
        pair = load_pair(self.pair)
        meant = [Accept(*text.partition("@")[::2]) for text in self.accept]
        meant = [one if one.at else Accept(one.name) for one in meant]
        pair = replace(pair, accept=(*pair.accept, *meant))

        def compute(progress: "Progress") -> "Proof":
            return prove(pair, seed=self.seed, weights=self.weights, map=rows, progress=progress)

        proof = self.show(compute, bool)
        if self.show_map:
            from parity.pairs.text import map_lines

            print(*map_lines(proof.map), sep="\n")
        if self.save_map:
            write_map(self.save_map, proof.map)
        return 0 if proof.same else 1
