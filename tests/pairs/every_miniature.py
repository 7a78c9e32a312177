"""Prove every miniature, from several seeds, and print what is not as it should be.

python -m tests.pairs.every_miniature [SEEDS] [NAME ...]
"""

import os
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from parity.contract.errors import CnnParityError
from parity.pairs.judging import prove
from parity.pairs.proof import Proof
from tests.pairs.miniatures import MINIATURES, Miniature


def found(proof: Proof) -> list[tuple[str, str, str | None]]:
    """Return stage, place and cause of each difference, in a fixed order."""
    return sorted((d.stage, str(d.torch), d.cause or "") for d in proof.differences)


def wanted(miniature: Miniature) -> list[tuple[str, str, str | None]]:
    """Return likewise what a proof has to find."""
    return sorted((d.stage, str(d.torch), d.cause) for d in miniature.differences)


def main(seeds: int, names: list[str]) -> None:
    """Print a line for each proof that is not as it should be, and the counts."""
    what = ("right", "false alarm", "missed", "placed", "named", "wrongly named", "planted", "seen")
    counts: dict[str, int] = dict.fromkeys(what, 0)
    begin = time.perf_counter()
    for miniature in MINIATURES.values():
        for seed in range(seeds if not names or miniature.name in names else 0):
            try:
                proof = prove(miniature.build(seed), seed=seed)
            except CnnParityError as error:
                print(f"{miniature.name}, seed {seed}: {error}", flush=True)
                counts["missed"] += 1
                continue
            _count(counts, miniature, proof)
            if found(proof) != wanted(miniature):
                print(f"{miniature.name}, seed {seed}: {found(proof)}, not {wanted(miniature)}",
                      flush=True)  # fmt: skip
    print(", ".join(f"{count} {what}" for what, count in counts.items()),
          f"in {time.perf_counter() - begin:.0f} s")  # fmt: skip


def _count(counts: dict[str, int], miniature: Miniature, proof: Proof) -> None:
    if not miniature.differences:
        counts["right" if proof.same else "false alarm"] += 1
        counts["planted"] += proof.coverage["planted"].get("of", 0)
        counts["seen"] += proof.coverage["planted"].get("found", 0)
        return
    have = {place: cause for _, place, cause in found(proof)}
    for _, place, cause in wanted(miniature):
        if place not in have:
            counts["missed" if proof.same else "placed"] += proof.same
            continue
        counts["placed"] += 1
        counts["named"] += have[place] == cause
        counts["wrongly named"] += bool(have[place]) and have[place] != cause


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["1"])[0]), sys.argv[2:])
