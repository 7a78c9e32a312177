"""The mistakes that are planted into JAX's side: each is another way to compute one equation."""

from collections.abc import Iterator

from parity.pairs import mistakes_axes, mistakes_numbers, mistakes_windows  # noqa: F401 - for the rules that they enter
from parity.pairs.sites import RULES, Mistake, Site


def mistakes(site: Site) -> Iterator[Mistake]:
    """Yield the mistakes that people make where such an equation stands."""
    if site.program.counts(site.equation):
        for rule in RULES.get(site.equation.primitive.name, ()):
            yield from rule(site)
