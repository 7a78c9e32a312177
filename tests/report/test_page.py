"""The page: what it shows, that it is whole, and that it needs nothing else."""

import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from parity.contract.recipe import Recipe
from parity.judge.check import Verdict
from parity.judge.loop import FIT_STAGES, STEPS_STAGES
from parity.judge.trajectory import Failure, Trajectory
from parity.report.page import GLOSSARY, TUTORIAL, page

VOID = {"img", "meta"}


class Page(HTMLParser):
    """Checks that every element is closed, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        """Return every value of an attribute."""
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def agreeing() -> Verdict:
    return parity.check(a="numpy", b="torch:eager", dataset="digits", device="cpu")


@pytest.fixture(scope="module")
def disagreeing(agreeing: Verdict) -> Verdict:
    right = agreeing.stages["loss"][1]
    assert right is not None
    wrong = dataclasses.replace(right, got=9.25, error=7.0, outside=1)
    return dataclasses.replace(
        agreeing, stages={**agreeing.stages, "loss": (agreeing.stages["loss"][0], wrong)}
    )


@pytest.fixture(scope="module")
def trained() -> Trajectory:
    recipe = Recipe(dataset="digits", device="cpu", limit=200)
    return parity.train(a="torch:eager", b="torch:eager:fused", recipe=recipe, steps=6)


@pytest.fixture(params=["agreeing", "disagreeing", "trained"])
def result(request: pytest.FixtureRequest) -> Verdict | Trajectory:
    return request.getfixturevalue(request.param)


def test_the_page_is_whole_and_needs_nothing_else(result: Verdict | Trajectory) -> None:
    text = page(result)
    shown = Page(text)
    assert text.startswith("<!doctype html>\n<html")
    assert not {"script", "link", "iframe", "object", "base"} & set(shown.tags)
    assert not re.search(r"https?:|url\(|@import", text)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in shown.values("src"))
    assert set(shown.values("src"))
    assert len(shown.values("alt")) == len(shown.values("src"))
    assert all(shown.values("alt"))
    assert not [name for _, name, _ in shown.attributes if name.startswith("on") or name == "href"]


def test_the_same_verdict_gives_the_same_bytes(result: Verdict | Trajectory) -> None:
    assert page(result) == page(result)


def test_the_verdict_comes_first_and_the_json_last(result: Verdict | Trajectory) -> None:
    shown = Page(page(result)).text
    verdict = shown.index(str(result))
    assert verdict < shown.index("What was compared") < shown.index('"schema": 2')
    assert f'"agrees": {str(result.agrees).lower()}' in shown


def test_an_agreeing_check_shows_every_stage_of_both(agreeing: Verdict) -> None:
    text = page(agreeing)
    shown = Page(text)
    assert "They agree" in shown.text
    assert "Where they part" not in shown.text
    for stage, pair in agreeing.stages.items():
        assert f">{stage}</th>" in text
        for comparison in filter(None, pair):
            ratio = f"{comparison.ratio:.3g}" if comparison.error else "exact"
            assert f"<td>{ratio}</td>" in text
    assert text.count(">not judged<") == len((*STEPS_STAGES, *FIT_STAGES))  # the oracle has no loop
    assert not {"first", "outside"} & set(shown.values("class"))


def test_every_stage_is_explained(agreeing: Verdict) -> None:
    shown = Page(page(agreeing)).text
    for stage in agreeing.stages:
        [key] = [key for key in GLOSSARY if f"{stage}.".startswith(f"{key}.")]
        assert f"{key}{GLOSSARY[key]}" in shown


def test_a_check_says_what_was_judged_of_each(agreeing: Verdict) -> None:
    shown = Page(page(agreeing)).text
    for subject, covered in zip(("numpy", "torch:eager"), agreeing.covered, strict=True):
        assert f"Judged of {subject}: {covered}" in shown


def test_a_disagreeing_check_shows_the_evidence_and_marks_the_stage(disagreeing: Verdict) -> None:
    text = page(disagreeing)
    shown = Page(text)
    assert shown.text.index("They disagree") < shown.text.index("Where they part")
    assert shown.values("class").count("first") == shown.values("class").count("outside") == 1
    [marked] = re.findall(r'<tbody class="first">.*?</tbody>', text, re.DOTALL)
    assert ">loss</th>" in marked
    assert "<td>9.25</td>" in marked
    assert "<td>1 of 1</td>" in marked


def test_stages_that_could_not_be_judged_are_shown_as_such(agreeing: Verdict) -> None:
    right = agreeing.stages["relu"][1]
    assert right is not None
    wrong = dataclasses.replace(right, elements=0, mismatch="is float32 (1,), should be (2,)")
    stages = {**agreeing.stages, "relu": (agreeing.stages["relu"][0], wrong)}
    stages["pool"] = agreeing.stages["pool"][0], None
    shown = Page(page(dataclasses.replace(agreeing, stages=stages))).text
    assert "is float32 (1,), should be (2,)" in shown
    assert "not judged" in shown


def test_a_training_shows_losses_accuracies_and_confusions_of_both(trained: Trajectory) -> None:
    text = page(trained)
    shown = Page(text)
    assert "Same algorithm" in shown.text
    assert shown.tags.count("img") == 5
    for drift in (trained.float64, trained.float32):
        assert drift is not None
        for losses in trained.epoch_losses(drift):
            assert all(f"<td>{loss:.3f}</td>" in text for loss in losses)
    for test in trained.tests:
        assert f"{test.accuracy:.2%} right, loss {test.loss:.4f}" in shown.text
    matrices = re.findall(r'<table class="confusion">.*?</table>', text, re.DOTALL)
    for matrix, test in zip(matrices, trained.tests, strict=True):
        cells = re.findall(r"<td[^>]*>(\d*)</td>", matrix)
        assert [int(cell or 0) for cell in cells] == test.confusion.ravel().tolist()
        assert matrix.count('class="right') == 10
    assert "tutorial" not in shown.text


def test_where_the_confusions_differ_both_are_marked(trained: Trajectory) -> None:
    other = trained.tests[1].confusion.copy()
    other[3, 5] += 1
    tests = trained.tests[0], dataclasses.replace(trained.tests[1], confusion=other)
    assert page(trained).count('class="differs') == 0
    assert page(dataclasses.replace(trained, tests=tests)).count('class="differs') == 2


def test_a_failed_training_shows_the_step_and_its_evidence(
    trained: Trajectory, disagreeing: Verdict
) -> None:
    assert disagreeing.first_disagreement is not None
    comparison = disagreeing.first_disagreement[1]
    failure = Failure(subject="torch:eager:fused", step=4, comparison=comparison)
    shown = Page(page(dataclasses.replace(trained, failure=failure))).text
    assert "Different" in shown
    assert "torch:eager:fused, in step 4" in shown
    assert "9.25" in shown


def of_the_tutorial(trained: Trajectory, steps: int, **changes: Any) -> Trajectory:
    recipe = dataclasses.replace(Recipe(device="cpu"), **changes)
    losses = [1.0] * steps, [1.0] * steps
    assert trained.float32 is not None
    return dataclasses.replace(
        trained,
        recipe=recipe,
        steps=steps,
        batches_per_epoch=938,
        float64=dataclasses.replace(trained.float64, losses=losses),
        float32=dataclasses.replace(trained.float32, losses=losses),
    )


def test_the_tutorials_losses_stand_beside_whole_epochs_of_its_recipe(trained: Trajectory) -> None:
    text = page(of_the_tutorial(trained, 2 * 938 + 1))
    [table] = [t for t in re.findall(r"<table>.*?</table>", text, re.DOTALL) if "tutorial" in t]
    last = [row.split("<td>")[-1].split("<")[0] for row in table.split("<tbody>")[1].split("<tr>")]
    assert last[1:] == [str(TUTORIAL[0]), str(TUTORIAL[1]), "–"]
    for other in ({"lr": 1e-2}, {"batch_size": 32}, {"dataset": "kmnist"}):
        assert str(TUTORIAL[0]) not in page(of_the_tutorial(trained, 2 * 938, **other))


def test_trainings_without_a_difference_can_be_drawn() -> None:
    recipe = Recipe(dataset="digits", device="cpu")
    result = parity.train(a="numpy", b="numpy", recipe=recipe, steps=1)
    assert result.float64.apart == [0]
    shown = Page(page(result))
    assert [alt for alt in shown.values("alt") if "nothing above 0" in alt]


def test_trainings_that_diverge_can_be_drawn(trained: Trajectory) -> None:
    assert trained.float32 is not None
    broken = [1.0, math.inf, *[math.nan] * 4]
    params = {**trained.float32.states[0].params}
    params["conv1.weight"] = np.full_like(params["conv1.weight"], np.nan)
    state = dataclasses.replace(trained.float32.states[0], params=params)
    single = dataclasses.replace(
        trained.float32,
        losses=(broken, trained.float32.losses[1]),
        apart=[math.nan] * len(trained.float32.apart),
        states=(state, trained.float32.states[1]),
    )
    tests = dataclasses.replace(trained.tests[0], loss=math.nan), trained.tests[1]
    Page(page(dataclasses.replace(trained, float32=single, tests=tests)))


def test_whatever_is_not_markup_is_escaped(agreeing: Verdict) -> None:
    nasty = "<script>&\"'"
    text = page(dataclasses.replace(agreeing, a=nasty, recipe=Recipe(data_dir=Path(nasty))))
    shown = Page(text)
    assert "script" not in shown.tags
    assert nasty in shown.text
    assert nasty not in text


def test_environment_and_inputs_follow_the_evidence(agreeing: Verdict) -> None:
    text = page(dataclasses.replace(agreeing, environment={"torch": {"version": "2<3"}}))
    assert "torch:\n  version  2&lt;3" in text
    for name, sha256 in agreeing.inputs.items():
        assert f"<tr><th>{name}</th><td>{sha256}</td></tr>" in text
    assert text.index("Stage by stage") < text.index("Environment") < text.index("Inputs")


def test_a_verdict_shows_itself_in_a_notebook(agreeing: Verdict) -> None:
    [axes] = agreeing.plot().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [*agreeing.stages]
    shown = Page(agreeing._repr_html_())
    assert shown.values("src")[0].startswith("data:image/png;base64,")
    assert str(agreeing) in shown.text
    assert "worst error / its bound" in shown.text
