"""Every block of code in README.md and docs/ runs, or is checked by the program that would read it, or says why not."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter

import pytest
import typer
from pages import ROOT, blocks, pages

from oq_nb.cli import app

#: Python blocks that say why they are not run, by page. Another one has to be added here.
NOT_RUN = {
    "docs/evidence/ipykernel-subshells.md": 2,
    "docs/how-to/deploy.md": 3,
    "docs/how-to/phone.md": 1,
    "docs/how-to/track.md": 1,
    "docs/reference/stores.md": 1,
}
#: Packages that pages need, and that are not there for each Python.
NEEDED = {
    "docs/evidence/interop.md": "buquet",
    "docs/how-to/numbers.md": "opentelemetry.sdk",
    "docs/how-to/track.md": "pandas",
}
PAGES = {str(path.relative_to(ROOT)): path for path in pages() if path.exists()}
BLOCKS = {name: list(blocks(path.read_text(encoding="utf-8"))) for name, path in PAGES.items()}
RUN = [name for name, found in BLOCKS.items() if any(b.language == "python" and b.reason is None for b in found)]
#: What blocks are written in. Without a language: what a program prints, and what is typed to get it.
LANGUAGES = {"", "python", "bash", "console", "json", "yaml", "ini", "toml", "text"}


def test_every_block_is_of_a_known_kind():
    unknown = {
        (name, b.line, b.language) for name, found in BLOCKS.items() for b in found if b.language not in LANGUAGES
    }
    assert not {entry for entry in unknown if not entry[2].startswith("{")}


def test_blocks_that_are_not_run_are_counted():
    counted = Counter(name for name, found in BLOCKS.items() for b in found if b.language == "python" and b.reason)
    assert dict(counted) == NOT_RUN


@pytest.mark.parametrize("name", RUN)
def test_python_blocks_run(name, place, tmp_path):
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    _, environment = place
    program = [
        sys.executable,
        "-W",
        "error::SyntaxWarning",
        str(ROOT / "tests" / "docs" / "pages.py"),
        str(PAGES[name]),
    ]
    environment["PYTHONPATH"] = f"{ROOT}"
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = sum(b.language == "python" and b.reason is None for b in BLOCKS[name])
    assert f"{wanted} blocks ran" in done.stdout


def of_language(*languages):
    """Return the blocks in these languages, as parameters."""
    return [
        pytest.param(b.code, id=f"{name}:{b.line}")
        for name, found in BLOCKS.items()
        for b in found
        if b.language in languages
    ]


@pytest.mark.parametrize("code", of_language("json"))
def test_json_blocks_are_json(code):
    json.loads(code)


@pytest.mark.parametrize("code", of_language("yaml"))
def test_yaml_blocks_are_yaml(code):
    yaml = pytest.importorskip("yaml")
    assert list(yaml.safe_load_all(code))


@pytest.mark.parametrize("code", of_language("ini"))
def test_ini_blocks_are_sections_with_settings(code):
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(code)
    assert parser.sections()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("code", of_language("bash"))
def test_bash_blocks_are_bash(code):
    subprocess.run(["bash", "-n"], input=code, text=True, check=True)


def oq_commands(language: str, code: str):
    """Yield the arguments of each call of ``oq`` in what is typed into a shell."""
    typed = code.replace("\\\n", " ").splitlines()
    if language == "console" or any(line.startswith("$ ") for line in typed):
        typed = [line[2:] for line in typed if line.startswith("$ ")]
    for line in typed:
        if not (line.startswith(("oq ", "exec oq ", "ssh ")) or re.search(r"(^|&& |\| |/)oq [a-z]", line)):
            continue
        tokens = shlex.shlex(line, posix=True, punctuation_chars="|&;>()")
        tokens.whitespace_split = True
        words = list(tokens)
        while any(re.fullmatch(r"(.*/)?oq", word) for word in words):
            start = next(i for i, word in enumerate(words) if re.fullmatch(r"(.*/)?oq", word))
            end = next((i for i in range(start, len(words)) if re.fullmatch(r"[|&;>()]+", words[i])), len(words))
            yield words[start + 1 : end]
            words = words[end + 1 :]


def parse(arguments: list[str]) -> None:
    """Have the program itself read a command line, without running it."""
    command, name = typer.main.get_command(app), "oq"
    context = command.make_context(name, list(arguments), resilient_parsing=False)
    while hasattr(command, "resolve_command") and (rest := [*context._protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


COMMANDS = sorted(
    {
        (name, tuple(words))
        for name, found in BLOCKS.items()
        for b in found
        if b.language in ("", "bash", "console") and name != "docs/reference/cli.md"
        for words in oq_commands(b.language, b.code)
        if words
    }
)


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[f"{name}: oq {' '.join(words)}" for name, words in COMMANDS])
def test_oq_commands_are_understood(name, words):
    parse([re.sub(r"^\$\w+$", "4", word) for word in words])  # for a variable of the shell


def test_commands_are_found_and_wrong_ones_refused():
    assert len(COMMANDS) > 30
    found = list(oq_commands("console", "$ oq status 27e7 --json | jq .progress\nTask: 27e7\n$ ls\n"))
    assert found == [["status", "27e7", "--json"]]
    with pytest.raises(Exception, match="No such option|no such option"):
        parse(["status", "27e7", "--wach"])
