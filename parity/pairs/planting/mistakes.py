"""The mistakes that are planted into JAX's side: each is another way to compute one equation."""

from collections.abc import Iterator

from parity.pairs.planting import axes, numbers, windows  # noqa: F401 - for the rules that they enter
from parity.pairs.planting.sites import RULES, Mistake, Site


def mistakes(site: Site) -> Iterator[Mistake]:
    """Yield the mistakes that people make where such an equation stands."""
    if site.program.counts(site.equation):
        for rule in RULES.get(site.equation.primitive.name, ()):
            yield from rule(site)
