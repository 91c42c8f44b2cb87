"""The pieces of HTML that views are made of. Whatever comes from outside is escaped here, and nowhere else. Pure.

A view is a function from what the API said to a string of HTML; pages show it, and patch it when it changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from urllib.parse import quote

from eyrie.console import shown
from eyrie.domain.described import percents

ROOT = "/console"
# What a state means, as the colour of its chip; the word stands beside it always.
_GOOD = frozenset({"InService", "READY", "OK", "Completed", "COMPLETED", "Complete", "Successful", "SUCCEEDED", "200"})
_BUSY = frozenset(
    {
        "Creating",
        "Updating",
        "SystemUpdating",
        "RollingBack",
        "Deleting",
        "STARTING",
        "REQUESTED",
        "DRAINING",
        "InProgress",
        "INPROGRESS",
        "IN_PROGRESS",
        "PENDING",
        "STOPPING",
        "Stopping",
        "Pending",
        "Running",
        "Scheduled",
        "Baking",
        "ActivatingTraffic",
        "Starting",
    }
)
_BAD = frozenset(
    {"Failed", "FAILED", "LOST", "ALARM", "UpdateRollbackFailed", "OutOfService", "UNKNOWN", "Error", "Timeout"}
)


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """Anything, escaped unless it is Html already."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Pieces after each other."""
    return Html(between.join(text(part) for part in parts))


def tag(name: str, /, *inner: object, **attributes: object) -> Html:
    """An element: `tag("p", "text", class_="note", aria_label="x")`. Attributes that are None are left out."""
    shown_attributes = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{shown_attributes}>{join(inner)}</{name}>")


def link(said: object, *path: str, **query: str) -> Html:
    """A link to a page of ours by the parts of its path."""
    return tag("a", said, href=href(*path, **query))


def href(*path: str, **query: str) -> str:
    """The address of a page of ours."""
    said = "/".join((ROOT, *(quote(part, safe="") for part in path)))
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return f"{said}?{asked}" if asked else said


def chip(state: str, said: str = "") -> Html:
    """A state: a dot in its colour, and the word."""
    return tag("span", tag("i", aria_hidden="true"), said or state, class_=f"chip {kind_of(state)}")


def kind_of(state: str) -> str:
    """good, busy, bad or plain."""
    for kind, states in (("good", _GOOD), ("busy", _BUSY), ("bad", _BAD)):
        if state in states:
            return kind
    return "plain"


def since(ms: float, now_ms: float) -> Html:
    """How long ago; the page's script keeps it going."""
    return tag(
        "time",
        shown.age(now_ms - ms),
        datetime=f"{shown.stamp(ms).replace(' ', 'T')}Z",
        data_since=int(ms),
        title=f"{shown.stamp(ms)} UTC",
    )


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    numbers: Iterable[int] = (),
    empty: str = "Nothing here.",
) -> Html:
    """A table with a caption for those who do not see it; on a phone each row is a card. `numbers`: columns right."""
    right = frozenset(numbers)
    body = [tag("tr", *(_cell(columns[at], at in right, cell, at == 0) for at, cell in enumerate(row))) for row in rows]
    if not body:
        return note(empty)
    head = tag(
        "tr",
        *(tag("th", name, scope="col", class_="right" if at in right else None) for at, name in enumerate(columns)),
    )
    return tag(
        "div",
        tag("table", tag("caption", caption, class_="unseen"), tag("thead", head), tag("tbody", *body)),
        class_="scroll", tabindex="0", role="region", aria_label=caption,
    )  # fmt: skip


def _cell(column: str, right: bool, value: object, first: bool) -> Html:
    if first:
        return tag("th", value, scope="row", data_label=column)
    return tag("td", value, class_="right" if right else None, data_label=column)


def note(said: object, kind: str = "empty") -> Html:
    """A state in words: empty, loading or error."""
    return tag("p", said, class_=f"note {kind}", role="alert" if kind == "error" else None)


def figures(pairs: Sequence[tuple[str, object, str]]) -> Html:
    """The large numbers on top of a page: what, value, and what it means (its kind: "", good, busy, bad)."""
    return tag(
        "dl",
        *(tag("div", tag("dt", what), tag("dd", value), class_=f"figure {kind}") for what, value, kind in pairs),
        class_=f"figures of{len(pairs)}",
    )


def facts(pairs: Mapping[str, object]) -> Html:
    """Names and values, one a line."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs.items()), class_="facts")


def bar(parts: Sequence[tuple[str, float]], what: str) -> Html:
    """Shares of a whole as one bar with a legend that says the same in numbers."""
    whole = sum(share for _, share in parts) or 1.0
    told = [
        _share(percent, share)
        for percent, (_, share) in zip(percents([s / whole for _, s in parts]), parts, strict=True)
    ]
    spans = [
        tag(
            "span",
            style=f"width:{100 * share / whole:.2f}%",
            class_=f"c{at % 6}",
            title=f"{name} {told[at]}",
        )
        for at, (name, share) in enumerate(parts)
        if share > 0
    ]
    legend = [
        tag("li", tag("i", class_=f"c{at % 6}", aria_hidden="true"), name, " ", tag("b", told[at]))
        for at, (name, _) in enumerate(parts)
    ]
    said = ", ".join(f"{name} {told[at]}" for at, (name, _) in enumerate(parts))
    return tag(
        "div",
        tag("div", *spans, class_="bar", role="img", aria_label=f"{what}: {said}"),
        tag("ul", *legend, class_="legend"),
        class_="split",
    )


def _share(percent: float, share: float) -> str:
    """A rounded percentage of a bar, all of which sum to 100; what is not quite none is not shown as none."""
    return shown.percent(share) if percent == 0 else f"{percent:g} %"
