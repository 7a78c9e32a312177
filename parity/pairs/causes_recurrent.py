"""Causes in recurrent layers: the order of their gates."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from parity.pairs.causes import Candidate, Literals, Whole
from parity.pairs.operations import Operation


def gates(made: Sequence[Operation], literals: Literals) -> Iterator[Whole]:
    """The gates of an LSTM (i, f, g, o) or a GRU (r, z, n) stacked in another order."""
    cuts = [o for o in made if o.name in ("unsafe_split", "split", "unsafe_chunk", "chunk")]
    tanh = any(o.name == "tanh" for o in made)
    if not cuts or not tanh or not any(o.name == "sigmoid" for o in made):
        return
    for n in (3, 4):
        for order in list(itertools.permutations(range(n)))[1:]:

            def cut(func: Any, args: Any, kwargs: Any, order: Any = order, n: int = n) -> Any:
                parts = func(*args, **kwargs)
                if len(parts) != n:
                    raise ValueError
                return [parts[i] for i in order]

            candidate = Candidate(
                "gate-order",
                f"JAX has the gates in the order {order}",
                "stack the gates as PyTorch does in JAX",
                cut,
            )
            yield candidate, {o.number: cut for o in cuts}
