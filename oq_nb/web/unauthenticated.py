"""The HTML for somebody who may be anybody: it says nothing of the queue, and loads nothing.

Imports of the package: `markup`.
"""

from __future__ import annotations

from oq_nb.display import markup

__all__ = ["entering", "foreign_host", "foreign_origin", "who_are_you"]


def _bare(title: str, body: str, head: str = "") -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{title}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n{head}</head>\n'
        '<body style="font-family:system-ui,sans-serif;max-width:40em;margin:2em auto;padding:0 1em;line-height:1.5">\n'
        f"<main>{body}</main>\n</body>\n</html>\n"
    )


def entering() -> str:
    """Return what leads from the address with the token to the one without."""
    return _bare(
        "oq", '<p><a href="./">Go on to the tasks</a></p>', '<meta http-equiv="refresh" content="0; url=./">\n'
    )


def who_are_you(root: str, *, is_wrong: bool) -> str:
    """Return what is said without the token, and a place to give it."""
    wrong = (
        '<p role="alert"><b>That is not its token.</b> It has a new one each time it is started.</p>'
        if is_wrong
        else ""
    )
    return _bare(
        "oq: token needed",
        f"<h1>A token is needed</h1>{wrong}<p>Open the address that <code>oq ui</code> has printed, or "
        "<code>queue.serve_ui().url</code>; or give the token that stands in it after <code>token=</code>:</p>"
        f'<form action="{root}"><label>Token <input name="token" type="password" size="36" required '
        'autocomplete="off"></label> <button>Open</button></form>',
    )


def foreign_host(host: str) -> str:
    """Return what is said when the page was asked for under a name that is not its own."""
    shown = markup.escape(host, 200)
    return _bare(
        "oq: unknown host",
        f"<h1>Not under this name</h1><p>The page was asked for as <code>{shown}</code>, which is not a name of this "
        "machine. Behind a proxy, allow the name under which the proxy is reached: "
        "<code>oq ui --allow-host NAME</code>, or <code>queue.serve_ui(allow_hosts=[…])</code>.</p>",
    )


def foreign_origin(origin: str | None) -> str:
    """Return what is said when another page has sent the request."""
    shown = "without an <code>Origin</code>" if origin is None else f"from <code>{markup.escape(origin, 200)}</code>"
    return _bare(
        "oq: foreign origin",
        f"<h1>Refused</h1><p>The request came {shown}, not from this page itself. A program gives the token: "
        "<code>Authorization: Bearer …</code>.</p>",
    )
