"""The HTML for somebody who may be anybody: it says nothing of the queue, and loads nothing.

Imports of the package: `display.safe`.
"""

from __future__ import annotations

import htpy as h

from oq_nb.display.safe import quote

__all__ = ["entering", "foreign_host", "foreign_origin", "who_are_you"]

_STYLE = "font-family:system-ui,sans-serif;max-width:40em;margin:2em auto;padding:0 1em;line-height:1.5"


def _bare(title: str, *body: h.Node, head: h.Node = None) -> str:
    return str(
        h.html(lang="en")[
            h.head[
                h.meta(charset="utf-8"),
                h.title[title],
                h.meta(name="viewport", content="width=device-width, initial-scale=1"),
                h.meta(name="color-scheme", content="light dark"),
                h.link(rel="icon", href="data:,"),
                head,
            ],
            h.body(style=_STYLE)[h.main[body]],
        ]
    )


def entering() -> str:
    """Return what leads from the address with the token to the one without."""
    refresh = h.meta({"http-equiv": "refresh"}, content="0; url=./")
    return _bare("oq", h.p[h.a(href="./")["Go on to the tasks"]], head=refresh)


def who_are_you(root: str, *, is_wrong: bool) -> str:
    """Return what is said without the token, and a place to give it."""
    said = "The page has a new token each time it is started, and a code opens it once."
    wrong = h.p(role="alert")[h.b["That is not its token."], " ", said]
    return _bare(
        "oq: token needed",
        h.h1["A token is needed"],
        wrong if is_wrong else None,
        h.p[
            "Open the address that ",
            h.code["oq ui"],
            " has printed, or ",
            h.code["queue.serve_ui().url"],
            "; or give the token that stands in it after ",
            h.code["token="],
            ":",
        ],
        h.form(action=root)[
            h.label["Token ", h.input(name="token", type="password", size="36", required=True, autocomplete="off")],
            " ",
            h.button["Open"],
        ],
    )


def foreign_host(host: str) -> str:
    """Return what is said when the page was asked for under a name that is not its own."""
    return _bare(
        "oq: unknown host",
        h.h1["Not under this name"],
        h.p[
            "The page was asked for as ",
            h.code[quote(host, 200)],
            ", which is not a name of this machine. Behind a proxy, allow the name under which the proxy is reached: ",
            h.code["oq ui --allow-host NAME"],
            ", or ",
            h.code["queue.serve_ui(allow_hosts=[…])"],
            ".",
        ],
    )


def foreign_origin(origin: str | None) -> str:
    """Return what is said when another page has sent the request."""
    came = ["without an ", h.code["Origin"]] if origin is None else ["from ", h.code[quote(origin, 200)]]
    return _bare(
        "oq: foreign origin",
        h.h1["Refused"],
        h.p[
            "The request came ",
            came,
            ", not from this page itself. A program gives the token: ",
            h.code["Authorization: Bearer …"],
            ".",
        ],
    )
