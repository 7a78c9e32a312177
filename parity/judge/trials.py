"""Mistakes planted into each subject, and where they are found."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from parity.contract.data.datasets import Dataset, read_dataset
from parity.contract.errors import NondeterminismError
from parity.contract.recipe import Device, Recipe
from parity.contract.state import State, initial_state
from parity.judge.check import judge
from parity.judge.compare import first_wrong
from parity.subjects.faults import CONTRACT, Fault, planted
from parity.subjects.subject import Subject

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the case and the number of cases."""

Outcome = Literal["located", "caught", "missed"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of one mistake in one subject."""

    fault: str
    subject: str
    expected: str
    """The stage that it belongs to."""
    found: str | None
    """The first stage that differed; None for none."""
    evidence: str

    @property
    def outcome(self) -> Outcome:
        """Whether it was found, and at its stage."""
        if self.found is None:
            return "missed"
        return "located" if self.found.startswith(self.expected) else "caught"


def tried(
    faults: list[Fault], subjects: tuple[Subject, Subject], device: Device, report: Progress
) -> Iterator[Trial]:
    """Plant each mistake into each subject that can have it, or into what all share."""
    truth = read_dataset("digits")
    for done, fault in enumerate(faults, start=1):
        recipe = Recipe(dataset="digits", device=device, dtype=fault.dtype)
        state = initial_state(recipe.seed, recipe.dtype)
        for subject in subjects:
            where = subject.backend_name if subject.backend_name in fault.edits else CONTRACT
            if where not in fault.edits:
                continue
            with planted(where, fault.edits[where]):
                found, evidence = _first_wrong(subject, recipe, truth, state)
            yield Trial(
                fault=fault.name,
                subject=str(subject),
                expected=fault.stage,
                found=found,
                evidence=evidence,
            )
        report("planted mistakes", done, len(faults))


def _first_wrong(
    subject: Subject, recipe: Recipe, truth: Dataset, state: State
) -> tuple[str | None, str]:
    try:
        judged = judge(subject, recipe, truth, state)
    except NondeterminismError as error:
        return "not deterministic", str(error)
    wrong = first_wrong(judged)
    return (wrong.stage, str(wrong)) if wrong else (None, "")
