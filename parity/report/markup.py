"""HTML in small pieces: whatever is not markup already is escaped on its way in."""

import html
from collections.abc import Iterable
from importlib import resources

from parity.report.plots import Picture

_EMPTY = {"img", "meta"}
"""Elements without content, and so without an end tag."""


class Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element; empty attributes are left out, and the `_` that ends `class_` too."""
    start = "".join(
        f' {key.rstrip("_")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value != ""
    )
    if name in _EMPTY:
        return Html(f"<{name}{start}>")
    inner = "".join(
        child if isinstance(child, Html) else html.escape(str(child)) for child in children
    )
    return Html(f"<{name}{start}>{inner}</{name}>\n")


def document(title: str, *body: Html) -> Html:
    """Return a whole page, its style sheet included."""
    style = resources.files("parity.report").joinpath("report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(style)),
    )
    return Html("<!doctype html>\n" + tag("html", head, tag("body", *body), lang="en"))


def section(heading: str, note: str, *children: Html) -> Html:
    """Return a section; `note` says how to read it."""
    return tag("section", tag("h2", heading), *([tag("p", note)] if note else []), *children)


def row(*cells: object) -> Html:
    """Return a row of a table's body; the first cell names it."""
    return tag("tr", tag("th", cells[0]), *(tag("td", cell) for cell in cells[1:]))


def table(head: Iterable[Html], *bodies: Html) -> Html:
    """Return a table that is scrolled where it is wider than the screen."""
    return tag("div", tag("table", tag("thead", *head), *bodies), class_="scroll")


def facts(values: Iterable[tuple[str, object]]) -> Html:
    """Return short values under their names, as many in a line as there is room for."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in values))


def pairs(values: Iterable[tuple[str, object]]) -> Html:
    """Return long values beside their names."""
    rows = (row(name, value) for name, value in values)
    return tag("div", tag("table", tag("tbody", *rows), class_="pairs"), class_="scroll")


def figure(picture: Picture, caption: str) -> Html:
    """Return a picture under its caption."""
    image = tag("img", src=picture.uri, alt=picture.alt)
    return tag("figure", *([tag("figcaption", caption)] if caption else []), image)
