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

    record: Path | None = None
    """File (.npz) to record PyTorch's side in, where JAX's does not import: its operations, weights
    and inputs, and no code."""
    against: Path | None = None
    """File that --record wrote, to judge JAX's side against, where PyTorch's does not import."""
    side: Literal["torch", "jax"] | None = None
    """The side that is here: torch with --record, jax with --against."""

    def run(self) -> int:
        from dataclasses import replace

        self._require_one_side()
        if self.record:
            return self._record(self.record)
        from parity.pairs.jax_side.cpu import on_cpu
        from parity.pairs.judging import prove
        from parity.pairs.mapping.mapfile import read_map, write_map
        from parity.pairs.pair import Accept, against, load_pair

        rows = read_map(self.map) if self.map else []
        with on_cpu():
            pair = load_pair(self.pair)
        if self.against:
            pair = against(pair, self.against)
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

    def _require_one_side(self) -> None:
        from parity.pairs.pair import PairError

        if self.record and self.against:
            raise PairError("--record and --against are for two environments; give one of them")
        needed = "torch" if self.record else "jax" if self.against else None
        if self.side and self.side != needed:
            option = {"torch": "--record FILE", "jax": "--against FILE"}[self.side]
            raise PairError(f"--side {self.side} goes with {option}")
        for name in ("json", "report", "map", "save_map", "show_map", "accept"):
            if self.record and getattr(self, name):
                option = name.replace("_", "-")
                raise PairError(f"--record makes no proof; give --{option} with --against")

    def _record(self, file: Path) -> int:
        from parity.commands.options import require_writable
        from parity.pairs.pair import load_pair
        from parity.pairs.torch_side.recorder import recorded
        from parity.pairs.torch_side.recording import write_recording

        require_writable(file, "record")
        recording = recorded(load_pair(self.pair))
        write_recording(file, recording)
        steps = sum("op" in step for step in recording.runs["float64"].steps)
        print(
            f"recorded: {steps} operations of {len(recording.calls)} modules, and"
            f" {len(recording.leaves)} leaves, in {file}\n"
            "next, where the JAX side is: parity prove FILE[:NAME] --side jax --against"
            f" {file.name}"
        )
        return 0
