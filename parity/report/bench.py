"""The sections of a benchmark's page."""

from collections.abc import Iterator

from parity.benchmark.result import Benchmark, Phase
from parity.report.markup import Html, facts, figure, row, section, table, tag
from parity.report.plots import phase_bars


def sections(benchmark: Benchmark) -> Iterator[Html]:
    """Yield the sections of a benchmark's page."""
    recipe = benchmark.recipe
    yield section(
        "What was timed",
        "In every round each arm has its turn, in random order: a process of its own, with the same"
        " images, initial weights and batch order. Ratios are taken round by round, and their"
        " intervals hold the true median with 95 % confidence. JAX's eager mode dispatches op by"
        " op, without jit.",
        facts(
            [
                ("command", benchmark.command),
                ("data set", recipe.dataset),
                ("precision", recipe.dtype),
                ("threads of each arm", benchmark.threads),
                ("rounds", benchmark.rounds),
                ("seed", recipe.seed),
            ]
        ),
    )
    for size in benchmark.timed:
        for phase in benchmark.phases:
            yield _phase(benchmark, size, phase)
        yield section(
            f"Start, batches of {size}",
            "What the first step took; what of it is compiling; after how many steps that has paid,"
            " against the same kernel op by op; programs compiled later on; the most memory; and"
            " the part of an epoch that its steps on a batch at hand do not take.",
            _table(benchmark.costs(size)),
        )


def _phase(benchmark: Benchmark, size: int, phase: Phase) -> Html:
    medians = {
        arm: (timed.spread(phase), timed.spread(phase).unstable)
        for arm, timed in benchmark.timed[size].items()
        if timed.failed is None
    }
    pictures = [figure(phase_bars(phase, medians), "Pale bars are unstable.")] if medians else []
    return section(
        f"{phase.capitalize()}, batches of {size}",
        "",
        *pictures,
        _table(benchmark.rows(size, phase)),
    )


def _table(rows: list[tuple[str, ...]]) -> Html:
    head, *body = rows
    return table(
        [tag("tr", *(tag("th", cell) for cell in head))], tag("tbody", *(row(*r) for r in body))
    )
