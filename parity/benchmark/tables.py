"""A benchmark's figures as tables of text: for the screen, a page or a document."""

from typing import TYPE_CHECKING

from parity.benchmark.stats import Ratio
from parity.contract.cli.tables import aligned
from parity.subjects.environment import environment_lines

if TYPE_CHECKING:
    from parity.benchmark.result import Benchmark

Rows = list[tuple[str, ...]]
"""The first is the table's head."""


def speeds(benchmark: "Benchmark", size: int, phase: str) -> Rows:
    """Return how long a phase takes each arm, and how fast that is."""
    speed = f"speed / {benchmark.arms[0]}"
    head = (f"{phase}, {size}", "median", "quartiles", speed, "GFLOP/s", "of product", "")
    found = {(each.batch_size, each.phase, each.arm): each for each in benchmark.speeds}
    rows: Rows = [head]
    for arm in benchmark.timed[size]:
        each = found.get((size, phase, arm))
        if each is None:
            rows.append((arm, "does not count", *4 * ("-",), ""))
            continue
        rows.append(
            (
                arm,
                _seconds(each.seconds.median),
                f"{_seconds(each.seconds.lower)} to {_seconds(each.seconds.upper)}",
                interval(each.speed) if each.speed else "-",
                f"{each.flops / 1e9:.1f}",
                f"{each.of_product:.1%}",
                "unstable" * each.seconds.unstable,
            )
        )
    return rows


def starts(benchmark: "Benchmark", size: int) -> Rows:
    """Return each arm's first step, what compiling costs, memory, and the data path."""
    head = ("first step", "compiling", "pays after", "retraces", "memory", "data path")
    rows: Rows = [(f"start, {size}", *head)]
    for each in benchmark.starts:
        if each.batch_size == size:
            compiling, pays, path = each.compile_seconds, each.pays_after, each.data_path
            rows.append(
                (
                    each.arm,
                    _seconds(each.first_step),
                    "-" if compiling is None else _seconds(compiling),
                    "-" if pays is None else f"{pays:,.0f} steps",
                    str(each.retraces),
                    _memory(each.memory, each.device_memory),
                    "-" if path is None else f"{path:.1%}",
                )
            )
    return rows


def screen(benchmark: "Benchmark") -> str:
    """Return command, environment and every table, as they are shown on the screen."""
    recipe, threads = benchmark.recipe, benchmark.threads
    title = (
        f"{recipe.dataset}, {recipe.dtype}, seed {recipe.seed}; {benchmark.rounds} rounds in random"
        f" order, {threads} thread{'s' * (threads > 1)}; JAX eager is op by op"
    )
    lines = [benchmark.command, *environment_lines(benchmark.environment), "", title]
    for size in benchmark.timed:
        rates = [each.flops / each.of_product for each in benchmark.speeds]
        if rates:
            lines.append(f"batches of {size}; a matrix product: {max(rates) / 1e9:.1f} GFLOP/s")
        for phase in benchmark.phases:
            lines += ["", *aligned(speeds(benchmark, size, phase))]
        lines += ["", *aligned(starts(benchmark, size)), ""]
    return "\n".join(lines)


def interval(found: Ratio) -> str:
    """Return a ratio with the interval that holds it."""
    return f"{found.median:.3g} [{found.low:.3g}, {found.high:.3g}]"


def _seconds(value: float) -> str:
    """Return seconds in the unit that suits them."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def _memory(host: int, device: int | None) -> str:
    """Return the most memory that was in use, by the process and on its device."""
    on_device = "" if device is None else f", {device / 2**20:,.0f} MiB on the device"
    return f"{host / 2**20:,.0f} MiB{on_device}"
