"""HTML pages in one file: elements that escape what they hold, a style for light and dark, no scripts, no network."""

import base64
import html
from collections.abc import Collection, Iterable, Sequence
from typing import Any


class Markup(str):
    """HTML, as opposed to text, which is escaped when it becomes part of a page."""


def element(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """Returns `<name ...>children</name>`.

    Args:
      name: of the element.
      children: Markup as it is; none is left out; all else is text and escaped.
      attributes: values are escaped, none leaves one out, True is an attribute without value; `class_` is class.
    """
    head = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in ("img", "br", "meta"):
        return Markup(f"<{name}{head}>")
    return Markup(f"<{name}{head}>{joined(*children)}</{name}>")


def joined(*children: Any) -> Markup:
    """Returns children one after the other, escaped as in `element`."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(str(child)) for child in children if child is not None
        )
    )


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], text: Collection[int] = (0,)) -> Markup:
    """Returns a table that scrolls sideways where it is wider than the page.

    Args:
      head: of its columns; all "": none.
      rows: of as many cells.
      text: which columns are text; the others are numbers, to the right.
    """

    def cells(kind: str, row: Sequence[Any]) -> Markup:
        style = [None if place in text else "number" for place in range(len(head))]
        return element("tr", *(element(kind, cell, class_=which) for cell, which in zip(row, style, strict=True)))

    body = element("tbody", *(cells("td", row) for row in rows))
    top = element("thead", cells("th", head)) if any(head) else None
    return element("div", element("table", top, body), class_="scroll")


def folded(summary: Any, *children: Any) -> Markup:
    """Returns what is shown when its heading is opened."""
    return element("details", element("summary", summary), *children)


def image(png: bytes, alt: str, **attributes: Any) -> Markup:
    """Returns a PNG as a part of the page."""
    return element("img", src=f"data:image/png;base64,{base64.b64encode(png).decode()}", alt=alt, **attributes)


def page(title: str, *children: Any) -> str:
    """Returns a whole page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(_STYLE)),
    )
    body = element("body", element("main", element("h1", title), *children))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


_STYLE = """
:root { color-scheme: light dark; --text: #1d2126; --soft: #5c6670; --line: #d9dee3; --ground: #fff; --card: #f5f7f9;
  --pass: #1b7837; --warn: #9a5b00; --fail: #b3261e; --skip: #6b7580; --share: #4477aa; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e7ea; --soft: #9aa4ae; --line: #363d45; --ground: #14171a; --card: #1d2226;
    --pass: #7bc98f; --warn: #e5b567; --fail: #ff8a80; --skip: #9aa4ae; --share: #6f9fd0; }
  svg.plot, img.plot { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0.6rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 0.6rem; padding-bottom: 0.2rem; border-bottom: 1px solid var(--line); }
p { margin: 0.5rem 0; max-width: 50rem; }
.soft, figcaption, th { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88rem; }
th, td { text-align: left; padding: 0.15rem 0.9rem 0.15rem 0; vertical-align: top; font-weight: normal; }
tbody tr + tr td { border-top: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.cards { display: flex; flex-wrap: wrap; gap: 0.7rem; margin: 0.8rem 0; }
.card { background: var(--card); border-radius: 8px; padding: 0.5rem 0.9rem; }
.card b { display: block; font-size: 1.25rem; font-weight: 600; }
.note { background: var(--card); border-left: 4px solid var(--skip); padding: 0.5rem 0.9rem; max-width: none; }
.note.pass { border-color: var(--pass); } .note.warn { border-color: var(--warn); }
.note.fail { border-color: var(--fail); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0.8rem; }
svg.plot, img.plot { max-width: 100%; width: 100%; height: auto; display: block; }
figure { margin: 0; } figcaption { font-size: 0.82rem; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.3rem, 1fr)); gap: 0.8rem; }
.images img { width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--card); }
.images .small { image-rendering: pixelated; }
.images figcaption { overflow-wrap: anywhere; line-height: 1.35; color: var(--text); }
.beside { display: flex; flex-wrap: wrap; gap: 0.5rem 3rem; align-items: flex-start; }
.beside > * { max-width: 100%; }
.wrong { color: var(--fail); }
details { margin: 0.6rem 0; } summary { cursor: pointer; color: var(--soft); }
pre { background: var(--card); padding: 0.7rem; overflow-x: auto; font-size: 0.8rem; border-radius: 8px; }
pre.wrapped { white-space: pre-wrap; overflow-wrap: anywhere; }
.matrix td, .matrix th { text-align: center; padding: 0.2rem 0.4rem; min-width: 2.1rem; border: 1px solid var(--line);
  font-variant-numeric: tabular-nums; max-width: 9rem; overflow-wrap: anywhere; }
.matrix td { background: color-mix(in srgb, var(--share) var(--of), transparent); }
.check { display: grid; grid-template-columns: 4.2rem 1fr; gap: 0 0.6rem; padding: 0.55rem 0;
  border-top: 1px solid var(--line); }
.check p { margin: 0.1rem 0; overflow-wrap: anywhere; }
.verdict { font-weight: 600; text-transform: uppercase; font-size: 0.8rem; padding-top: 0.12rem; }
.verdict.pass { color: var(--pass); } .verdict.warn { color: var(--warn); }
.verdict.fail { color: var(--fail); } .verdict.skip { color: var(--skip); }
"""
