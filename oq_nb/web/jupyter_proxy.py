"""The tile "oq tasks" in JupyterLab's launcher: ``oq ui``, started and passed on by jupyter-server-proxy.

jupyter-server-proxy calls `launcher` when the Jupyter server starts, by the entry point that ``pyproject.toml`` names.
A click on the tile starts ``oq ui`` and opens it at ``…/oq/``, below whatever address the Jupyter server has.

Who may see the page: whoever is let in by the Jupyter server, which asks for its own password or token first. The
page's token is neither printed nor sent to the browser. Instead each Jupyter server makes a key, which ``oq ui`` is
given in its environment, and which the proxy adds to each request. Whoever reaches the port without the proxy needs the
token, which nobody knows. See `oq_nb.web.guard` for what else is asked of such a request.

Imports nothing of the package but `web.guard`'s header, when the ``ui`` extra is there.
"""

from __future__ import annotations

import importlib.util
import secrets
import sys
from pathlib import Path
from typing import Any

__all__ = ["KEY_VARIABLE", "launcher"]

#: In the environment of ``oq ui``: the key that the proxy shows.
KEY_VARIABLE = "OQ_UI_PROXY_KEY"

_START_SECONDS = 60.0  # the embedded store may have to be started, too


def launcher() -> dict[str, Any]:
    """Return what jupyter-server-proxy is to start, and the tile; no tile where ``oq-nb[ui]`` is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("htpy", "starlette", "uvicorn")):
        return {"command": [sys.executable, "-m", "oq_nb", "ui"], "launcher_entry": {"enabled": False}}
    from oq_nb.web.guard import PROXY_HEADER

    key = secrets.token_urlsafe(32)
    return {
        "command": [sys.executable, "-m", "oq_nb", "ui", "--port", "{port}", "--no-browser"],
        "environment": {KEY_VARIABLE: key},
        "request_headers_override": {PROXY_HEADER: key},
        "timeout": _START_SECONDS,
        "new_browser_tab": False,
        "launcher_entry": {
            "title": "oq tasks",
            "icon_path": str(Path(__file__).parent / "static" / "icon.svg"),
            "category": "Notebook",  # JupyterLab shows icons that have an address in this one and in "Console" only
        },
    }
