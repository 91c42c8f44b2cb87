"""The log-in page: plain HTML, so that it works before any library is loaded."""

from __future__ import annotations

from eyrie import __version__
from eyrie.console import assets
from eyrie.console.markup import Html, tag

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in · Eyrie</title>
<link rel="icon" href="{icon}"><link rel="stylesheet" href="{style}"><script src="{script}"></script></head>
<body class="login"><main id="main">{form}<p class="foot">Eyrie {version}</p></main></body></html>
"""


def page(wanted: str, trouble: str = "", key: str = "", region: str = "") -> str:
    """The whole page. `wanted` is where to go afterwards, `trouble` why the last try did not work."""
    form = tag(
        "form",
        tag("div", assets.MARK, tag("h1", "Eyrie"), class_="brand"),
        tag(
            "p", "Log in with the access key and the secret that ", tag("code", "eyrie env"), " prints.", class_="hint"
        ),
        tag("p", trouble, class_="note error", role="alert") if trouble else "",
        tag("input", type="hidden", name="next", value=wanted),
        _field(
            "key", "Access key", key, autocomplete="username", spellcheck="false", autofocus="" if not key else None
        ),
        _field("secret", "Secret", "", type="password", autocomplete="current-password", autofocus="" if key else None),
        _field("region", "Region", region, autocomplete="off", spellcheck="false"),
        tag("button", "Log in", type="submit", class_="button main"),
        method="post",
        action="/console/login",
    )
    return _PAGE.format(
        form=form,
        version=__version__,
        style=assets.url("style.css"),
        script=assets.url("theme.js"),
        icon=assets.url("icon.svg"),
    )


def _field(name: str, said: str, value: str, **attributes: object) -> Html:
    kind = {"type": "text", **attributes}
    return tag(
        "label", tag("span", said), tag("input", name=name, id=name, value=value, required="", **kind), class_="field"
    )
