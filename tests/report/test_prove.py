"""The page of a proof: the network with its errors, every difference, and nothing foreign."""

import dataclasses
import math
import re
from typing import Any

import pytest

from parity.pairs.proof import Difference, LayerEvidence, MapRow, Proof
from parity.report.network import error, rows, spoken
from parity.report.page import page
from tests.report.test_page import Page

GELU = Difference(
    stage="forward",
    kind="between",
    torch=("blocks.0.fc1", "blocks.0.fc2"),
    jax=("layers.0.up", "layers.0.down"),
    size=5.1e-5,
    rounding=1e-11,
    cause="gelu-tanh",
    explanation="PyTorch: erf; JAX: tanh",
    fix="jax.nn.gelu(x, approximate=False)",
    torch_source="gelu (activations.py:88)",
    jax_source="tanh (my_flax.py:118)",
    also=("blocks.1.fc1 and blocks.1.fc2",),
)
EPS = Difference(stage="forward", kind="inside", torch="norm", jax="ln", size=2e-4, rounding=1e-11)


def layer(name: str, before: float | None, inside: float | None, jax: str = "") -> LayerEvidence:
    return LayerEvidence(
        torch=name, jax=jax or name, shape=(2, 5, 8), before=before, inside=inside, rounding=1e-11
    )


SAME = Proof(
    same=True,
    differences=(),
    notes=(),
    map=(
        MapRow(torch="fc.weight", jax="fc.kernel", pattern="a b -> b a", how="order and size"),
        MapRow(
            torch="qkv.weight",
            jax="query.kernel",
            pattern="(a b) c -> c a b",
            torch_part=(0, 3, 0),
            sizes={"a": 4},
            how="names",
        ),
    ),
    layers=(layer("fc", 0.0, 3e-16), layer("head", None, 1e-15, "out")),
    coverage={"layers": 2, "unmapped": [], "planted": {"found": 61, "of": 61}},
    summary={"weights": "2 of 2 leaves on each side mapped", "forward": "0 differences"},
    environment={"torch": "2.13.0", "jax": "0.10.2"},
)
DIFFERENT = dataclasses.replace(
    SAME,
    same=False,
    differences=(GELU, EPS),
    notes=("the same function, computed in float32 by JAX: inside attention",),
    layers=(
        layer("blocks.0.fc1", 2e-16, 0.0),
        layer("blocks.0.fc2", 5.1e-5, 4e-16),
        layer("blocks.1.fc2", 4.9e-5, 4e-16),
        layer("norm", 1e-16, 2e-4),
        layer("head", math.inf, 3.0),
    ),
)
WITHOUT_LAYERS = dataclasses.replace(SAME, layers=(), map=())
ACCEPTED = dataclasses.replace(
    DIFFERENT,
    same=True,
    differences=(dataclasses.replace(GELU, accepted="the weights were trained so"),),
    layers=DIFFERENT.layers[:3],
)


@pytest.mark.parametrize("proof", [SAME, DIFFERENT, WITHOUT_LAYERS, ACCEPTED])
def test_the_page_is_whole_and_needs_nothing_else(proof: Proof) -> None:
    text = page(proof)
    shown = Page(text)
    assert text.startswith("<!doctype html>\n<html")
    assert not {"script", "link", "iframe", "object", "base"} & set(shown.tags)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not [name for _, name, _ in shown.attributes if name.startswith("on") or name == "href"]
    assert page(proof) == text


@pytest.mark.parametrize("proof", [SAME, DIFFERENT, WITHOUT_LAYERS, ACCEPTED])
def test_the_verdict_comes_first_and_the_json_last(proof: Proof) -> None:
    shown = Page(page(proof)).text
    order = [str(proof), "Part by part", "The network", "Coverage", "Environment", '"schema": 2']
    places = [shown.index(part) for part in order]
    assert places == sorted(places)
    assert f'"same": {str(proof.same).lower()}' in shown
    assert "torch  2.13.0" in shown


def test_every_difference_is_shown_with_all_its_evidence() -> None:
    shown = Page(page(DIFFERENT)).text
    evidence = shown[shown.index("Differences") : shown.index("The network")]
    assert "1 · between blocks.0.fc1 and blocks.0.fc2" in evidence
    assert "2 · inside norm" in evidence
    assert "5.1e-05 of scale; rounding: 1e-11" in evidence
    for said in (GELU.cause, GELU.explanation, GELU.fix, GELU.torch_source, GELU.jax_source):
        assert str(said) in evidence
    assert "layers.0.up and layers.0.down" in evidence
    assert GELU.also[0] in evidence
    assert evidence.index("not in the catalogue") > evidence.index("inside norm")


def test_a_proof_without_differences_has_no_such_section() -> None:
    shown = Page(page(SAME)).text
    assert "The same" in shown
    assert "Differences" not in shown
    assert "Notes" not in shown


def test_each_layer_has_its_errors_and_the_numbers_of_its_differences() -> None:
    found = {row.torch: row for row in rows(DIFFERENT)}
    assert [*found] == [layer.torch for layer in DIFFERENT.layers]
    kinds = {name: (row.before.kind, row.inside.kind) for name, row in found.items()}
    assert kinds == {
        "blocks.0.fc1": ("right", "right"),
        "blocks.0.fc2": ("wrong", "right"),
        "blocks.1.fc2": ("wrong", "right"),
        "norm": ("right", "wrong"),
        "head": ("wrong", "wrong"),
    }
    assert [list(row.differences) for row in found.values()] == [[], [1], [1], [2], []]
    text = page(DIFFERENT)
    assert text.count('<td class="text wrong">') == 5
    assert '<td class="text wrong">5.1e-05<svg' in text
    assert '<td class="text right">exact<svg' in text


def test_the_names_of_both_are_shown_where_they_are_not_one() -> None:
    shown = page(SAME)
    assert "<th>head<small>out</small></th>" in shown
    assert "<th>fc</th>" in shown


def test_an_accepted_difference_says_why_and_has_a_colour_of_its_own() -> None:
    text = page(ACCEPTED)
    assert "the weights were trained so" in text
    assert text.count('<td class="text accepted">') == 2
    assert '<td class="text wrong">' not in text
    assert '<circle class="wrong"' not in text


def test_a_difference_of_a_part_of_a_layer_is_at_that_layer() -> None:
    parts = dataclasses.replace(EPS, torch="qkv"), dataclasses.replace(EPS, torch="value")
    layers = layer("qkv#1/3", 0.0, 2e-4), layer("query+key+value", 0.0, 2e-4)
    found = rows(dataclasses.replace(DIFFERENT, differences=parts, layers=layers))
    assert [list(row.differences) for row in found] == [[1], [2]]


@pytest.mark.parametrize(
    ("size", "place"),
    [(0.0, 0), (1e-30, 0), (1e-17, 0), (1e-8, 9 / 17), (1.0, 1), (25.0, 1), (math.inf, 1)],
)
def test_an_error_is_placed_on_a_logarithmic_scale(size: float, place: float) -> None:
    found = error(size, 1e-11)
    assert found.place == pytest.approx(place)
    assert found.limit == pytest.approx(6 / 17)
    assert found.kind == ("right" if size <= 1e-11 else "wrong")


def test_what_is_no_number_is_wrong_and_what_was_not_compared_is_neither() -> None:
    assert error(math.nan, 1e-11)[:2] == ("not finite", 1.0)
    assert error(math.nan, 1e-11).kind == "wrong"
    assert error(None, 1e-11).kind == "unknown"
    assert "not compared" in page(SAME)


def test_functions_are_shown_without_a_table_of_layers() -> None:
    shown = Page(page(WITHOUT_LAYERS)).text
    assert "the two sides were compared as a whole" in shown
    assert "The map" not in shown


def test_the_map_shows_parts_and_the_sizes_of_a_pattern() -> None:
    shown = page(SAME)
    assert "<th>qkv.weight [1 of 3, axis 0]</th>" in shown
    assert "(a b) c -&gt; c a b (a = 4)" in shown


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1234, "1,234"),
        ([], "nothing"),
        (["a", "b"], "a; b"),
        ({"found": 3}, "found: 3"),
        (True, "True"),
    ],
)
def test_what_was_covered_is_said_in_words(value: Any, words: str) -> None:
    assert spoken(value) == words


def test_whatever_is_not_markup_is_escaped() -> None:
    nasty = "<script>&\"'"
    texts = ("torch", "jax", "cause", "explanation", "fix", "torch_source", "jax_source")
    wrong = dataclasses.replace(EPS, **dict.fromkeys(texts, nasty), also=(nasty,), accepted=nasty)
    proof = dataclasses.replace(
        DIFFERENT,
        differences=(wrong,),
        notes=(nasty,),
        map=(MapRow(torch=nasty, jax=nasty, pattern=nasty, sizes={nasty: 1}, how=nasty),),
        layers=(layer(nasty, 0.0, 1.0, nasty + "2"),),
        coverage={nasty: [nasty]},
        summary={nasty: nasty},
        environment={nasty: nasty},
    )
    text = page(proof)
    shown = Page(text)
    assert "script" not in shown.tags
    assert nasty not in text
    assert shown.text.count(nasty) > 18


def test_a_proof_shows_itself_in_a_notebook() -> None:
    for proof in (SAME, DIFFERENT, dataclasses.replace(SAME, layers=())):
        [axes] = proof.plot().axes
        assert [label.get_text() for label in axes.get_yticklabels()] == [
            layer.torch for layer in proof.layers
        ]
        shown = Page(proof._repr_html_())
        assert shown.values("src")[0].startswith("data:image/png;base64,")
        assert str(proof) in shown.text
