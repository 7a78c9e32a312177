"""The whole catalogue of causes, and the order in which they are tried."""

from collections.abc import Iterator, Sequence

from parity.pairs.causes import arithmetic, convolution, masks, pooling, resize  # noqa: F401 - for the rules that they enter
from parity.pairs.causes.activations import of_one_term
from parity.pairs.causes.attention import rotary
from parity.pairs.causes.axes import repeated, strided
from parity.pairs.causes.candidates import RULES, Candidate, Literals, Together
from parity.pairs.causes.losses import label_smoothing, unsmoothed
from parity.pairs.causes.masks import added_mask, hidden_rows
from parity.pairs.causes.norms import epsilon_place, unnormalised
from parity.pairs.causes.recurrent import gates, reset_before
from parity.pairs.torch_side.operations import Operation, Variant

TOGETHER: tuple[Together, ...] = (
    epsilon_place,
    of_one_term(0),
    of_one_term(1),
    label_smoothing,
    unsmoothed,
    gates,
    reset_before,
    added_mask,
    hidden_rows,
    unnormalised,
    rotary,
    strided,
    repeated,
)
"""Rules that change several operations at once."""


def candidates(operation: Operation, literals: Literals) -> Iterator[Candidate]:
    """Yield each other way to compute an operation, the most frequent mistakes first."""
    for rule in RULES.get(operation.name.rstrip("_"), ()):
        yield from rule(operation, literals)


def together(
    made: Sequence[Operation], literals: Literals
) -> Iterator[tuple[Candidate, dict[int, Variant]]]:
    """Yield causes that change several operations of a region at once."""
    for rule in TOGETHER:
        found = rule(made, literals)
        if isinstance(found, tuple):
            yield found
        elif found:
            yield from found
