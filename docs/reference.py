"""Write docs/reference/cli.md from the help texts of the program, so that the two cannot differ.

    python docs/reference.py            write it
    python docs/reference.py --check    say whether it is up to date

A test makes the check.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import typer

from oq_nb.cli import app
from oq_nb.cli.queue_options import OPTIONS as QUEUE

PAGE = Path(__file__).parent / "reference" / "cli.md"

_HEAD = """# The command line

<!-- Made by `python docs/reference.py` from the help texts: change those. -->
"""
_EXAMPLES = """```
oq demo                                                  # half a minute of real work, with nothing set up
oq submit batch_process '{"items": [1, 2, 3]}' --watch
oq status abc123                                         # a unique prefix of an id will do
oq status abc123 --watch --interval 5
oq status abc123 --json | jq '.progress'
oq history abc123
oq worker jobs.py -c 4 --metrics-port 9100
```
"""
_OUTPUT = """## Output

Results go to stdout, everything else to stderr. With `--json` stdout has only JSON objects, one per line;
[json.md](json.md) describes them. In text from the bucket, control characters are made visible. Colours and
redrawing need a terminal: `NO_COLOR` turns the colours off, and a pipe or `TERM=dumb` gets plain lines. On a terminal,
tables are cut to its width, the least important column first and never within a number; elsewhere nothing is cut.
"""
_COMPLETION = """## Completion

`oq --install-completion` teaches the shell (bash, zsh, fish, PowerShell) the commands, their options, and the values of
`--status` and `--policy`; `oq --show-completion` prints what it would add. `python -m oq_nb` is the same program.
"""
_WHICH_QUEUE = """## Which queue

Every command that needs a queue takes these options; `[QUEUE]` below stands for them:
"""


def commands(group: typer.Typer, path: str = "oq") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield each command with its full name."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{path} {command.name}", command.callback
    for added in group.registered_groups:
        inner = added.typer_instance
        assert inner is not None
        if inner.registered_callback is not None and inner.registered_callback.callback is not None:
            yield f"{path} {added.name}", inner.registered_callback.callback
        yield from commands(inner, f"{path} {added.name}")


class Parameter:
    """An argument or option, as the program's own code declares it."""

    def __init__(self, parameter: inspect.Parameter) -> None:
        kind, self.said = get_args(parameter.annotation)[:2]
        self.name = parameter.name
        self.is_needed = parameter.default is inspect.Parameter.empty
        self.default = None if self.is_needed else parameter.default
        self.is_flag = kind is bool
        self.is_argument = type(self.said).__name__ == "ArgumentInfo"
        self.is_many = get_origin(kind) is list and self.is_argument

    @property
    def spelling(self) -> str:
        """How it is typed, such as ``-w, --watch`` or ``--interval SECONDS``."""
        if self.is_argument:
            return f"{self.said.metavar} …" if self.is_many else str(self.said.metavar)
        # In an `Annotated` typer takes the first name for a default, and sorts it out later.
        declared = [self.said.default, *self.said.param_decls]
        names = ", ".join(sorted(declared, key=lambda name: name.startswith("--"))).replace("/", " / ")
        return names if self.is_flag else f"{names} {self.said.metavar}"

    @property
    def explanation(self) -> str:
        """Its help text, with default and bounds."""
        facts = []
        if isinstance(self.default, (int, float, str)) and not self.is_flag:
            facts.append(f"default {self.default if isinstance(self.default, str) else f'{self.default:g}'}")
        low, high = self.said.min, self.said.max
        if low is not None:
            facts.append(f"{low:g} to {high:g}" if high is not None else f"from {low:g}")
        if self.is_needed and not self.is_argument:
            facts.append("needed")
        return str(self.said.help) + (f" ({', '.join(facts)})" if facts else "")


def parameters(callback: Callable[..., Any]) -> tuple[list[Parameter], bool]:
    """Return a command's own parameters, and whether it takes those that say which queue."""
    every = inspect.signature(callback, eval_str=True).parameters.values()
    made = [Parameter(p) for p in every if get_args(p.annotation)]
    return [p for p in made if p.name not in QUEUE], any(p.name in QUEUE for p in made)


def usage(name: str, callback: Callable[..., Any]) -> str:
    """Return how a command is typed."""
    own, takes_queue = parameters(callback)
    parts = [name]
    for parameter in sorted(own, key=lambda p: not p.is_argument):
        text = parameter.spelling.split(", ")[-1]
        parts.append(text if parameter.is_needed else f"[{text}]")
    return " ".join(parts + ["[QUEUE]"] * takes_queue)


def table(listed: list[Parameter]) -> str:
    """Return a table of parameters."""
    rows = [f"| `{p.spelling}` | {p.explanation} |" for p in listed]
    return "\n".join(["| | |", "| --- | --- |", *rows]) + "\n"


def _first_line(callback: Callable[..., Any]) -> str:
    return (inspect.getdoc(callback) or "").splitlines()[0]


def page() -> str:
    """Return the whole page."""
    every = list(commands(app))
    contents = [f"| [{name}](#{name.replace(' ', '-')}) | {_first_line(callback)} |" for name, callback in every]
    options = [
        Parameter(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))
        for name, kind in QUEUE.items()
    ]
    parts = [_HEAD, f"{inspect.cleandoc(str(app.info.help))}\n", _EXAMPLES]
    parts += [
        "\n".join(["| | |", "| --- | --- |", *contents]) + "\n",
        _OUTPUT,
        _COMPLETION,
        _WHICH_QUEUE,
        table(options),
    ]
    for name, callback in every:
        parts += [f"## {name}\n", f"```\n{usage(name, callback)}\n```\n", f"{inspect.getdoc(callback)}\n"]
        own, _ = parameters(callback)
        if own:
            parts.append(table(own))
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write or check the page."""
    if "--check" in arguments:
        is_same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        print(
            "up to date"
            if is_same
            else "docs/reference/cli.md is not what the help texts say: run python docs/reference.py"
        )
        return 0 if is_same else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
