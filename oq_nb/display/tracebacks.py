"""`own_part`: of a traceback what is the handler's own code, to stand before the frames of libraries. Pure.

Imports nothing of the package.
"""

from __future__ import annotations

import re

__all__ = ["own_part"]

_FRAME = re.compile(r'^ *File "(?P<file>.+)", line \d+(?:, in .+)?$')
#: Where code lies that the user has not written.
_LIBRARIES = re.compile(
    r"[/\\](?:site-packages|dist-packages)[/\\]|[/\\](?:lib|Lib)[/\\]python3|[/\\]Lib[/\\]|^<frozen "
    # The package by its rooms and modules: a clone of the project, with code of the user's, may be called oq_nb too.
    r"|[/\\]oq_nb[/\\](?:(?:admin|attempt|cli|display|local|model|progress|queue|s3|store|web|worker)[/\\]"
    r"|(?:__init__|__main__|aio|ansi|backoff|errors|forks|metrics|testing|text|tracing)\.py$)"
)


def own_part(error: str) -> str:
    """Return the frames of the handler's own code with the last line of the error; empty where that is all, or nothing.

    Of several tracebacks (an error while another was handled) the last one counts.

    Args:
        error: text of a traceback, as `traceback.format_exception` makes it.
    """
    frames: list[list[str]] = []
    own: list[list[str]] = []
    last = ""
    in_frame = False
    for line in error.strip().splitlines():
        match = _FRAME.match(line)
        if match is not None:
            frames.append([line])
            in_frame = True
            if not _LIBRARIES.search(match["file"]):
                own.append(frames[-1])
        elif in_frame and line.startswith("    "):
            frames[-1].append(line)
        else:
            in_frame = False
            if line.startswith("Traceback ("):
                frames, own = [], []
            elif line.strip() and not line.startswith(" "):
                last = line
    if not own or len(own) == len(frames):
        return ""
    return "\n".join([*(line for frame in own for line in frame), last])
