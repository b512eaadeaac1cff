"""Draw the picture of the rooms, docs/images/rooms.svg, from the code: what each holds, and what imports what.

    python docs/rooms.py            draw it
    python docs/rooms.py --check    exit code 1 when the picture is not what would be drawn now, or when a page of docs/
                                    names a module or a method that the code does not have

The floors are the layers of import-linter's contract in pyproject.toml; the arrows are the imports that the code has,
those inside functions and for types included. An arrow that others imply is left out: none is drawn from A to C where A
imports B and B imports C.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "oq_nb"
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
#: The one module that imports upwards, when somebody looks at a task or a queue.
FACES = "queue/faces.py"

WIDTH, MARGIN, GAP, FLOOR_GAP, LANE = 1160, 16, 20, 54, 9
LINE, HEAD, GUTTER = 15, 24, 70  # the gutters at both sides hold the arrows that pass by a floor
STYLE = """
.room{fill:#fff;stroke:#6b7a90}.floor{fill:#f3f5f8}.name{font-weight:600;fill:#12233d}.what{fill:#3c4a5e}
.modules{fill:#0b5c8f;font-family:ui-monospace,monospace;font-size:11px}.edge{fill:none;stroke:#6b7a90;stroke-width:1.4}
.up{stroke:#b3560b;stroke-dasharray:5 4}.tip{fill:#6b7a90}.tip-up,.note-up{fill:#b3560b}.note{fill:#3c4a5e}
text{font:12px system-ui,sans-serif}.name{font-size:14px}svg{background:#fff}
@media(prefers-color-scheme:dark){
.room{fill:#161d27;stroke:#8fa1b8}.floor{fill:#0f151d}.name{fill:#f0f4fa}.what,.note{fill:#c3cedd}
.modules{fill:#7cc4f5}.edge{stroke:#8fa1b8}.up{stroke:#f0a35a}.tip{fill:#8fa1b8}.tip-up,.note-up{fill:#f0a35a}
svg{background:#0b1017}}
"""


def floors() -> list[list[str]]:
    """Return the rooms of each floor, from the top, as the contract in pyproject.toml has them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'type = "layers".*?^layers = \[(.*?)^\]', text, re.DOTALL | re.MULTILINE)
    assert found, "pyproject.toml has no layers"
    layers = [re.split(r"\s*[|:]\s*", layer) for layer in re.findall(r'"([^"]+)"', found[1])]
    return [rooms for rooms in layers if rooms != ["__main__"]]


def room_of(path: Path) -> str:
    """Return the room that a file of the package is in: a folder, or a module beside the folders."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules_in(room: str) -> list[str]:
    """Return the modules of a room, folders with a slash at the end."""
    folder = PACKAGE / room
    names = (
        [path.name.removesuffix(".py") + "/" * path.is_dir() for path in folder.iterdir()] if folder.is_dir() else []
    )
    return sorted(name for name in names if not name.startswith("__") and re.fullmatch(r"\w+/?", name))


def summary_of(room: str) -> str:
    """Return the first sentence of a room's docstring."""
    path = PACKAGE / room / "__init__.py" if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"\n\n|(?<=\w)[.](?:\s|$)", docstring.replace("`", ""))[0].replace("\n", " ")


def imported_by(path: Path) -> Iterator[str]:
    """Yield the rooms that a file imports, also inside functions and for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (part[1] for name in node.names if len(part := name.name.split(".")) > 1 and part[0] == "oq_nb")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "oq_nb":
            parts = (node.module or "").split(".")
            yield from parts[1:2] or (name.name for name in node.names)


def imports(rooms: set[str]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return which room imports which, and what the faces module imports upwards."""
    downwards, upwards = set(), set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent == PACKAGE and path.name.startswith("__"):
            continue
        here = room_of(path)
        pairs = {(here, there) for there in imported_by(path) if there in rooms and there != here}
        order = [room for floor in floors() for room in floor]
        is_faces = path == PACKAGE / FACES
        upwards |= {pair for pair in pairs if is_faces and order.index(pair[1]) < order.index(here)}
        downwards |= pairs - upwards
    return downwards, upwards


def reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those edges that no others imply."""

    def reach(start: str, without: tuple[str, str]) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            here = todo.pop()
            new = {b for a, b in edges if a == here and (a, b) != without} - seen
            seen |= new
            todo += new
        return seen

    return {edge for edge in edges if edge[1] not in reach(edge[0], edge)}


class _Box:
    """A room as it is drawn."""

    def __init__(self, room: str, width: float) -> None:
        self.room, self.width = room, width
        self.x = self.y = 0.0
        self.what = textwrap.wrap(summary_of(room), int(width / 6.6))[:3]
        self.modules = textwrap.wrap("  ".join(modules_in(room)), int(width / 7.2), break_long_words=False)
        self.height = HEAD + LINE * (len(self.what) + len(self.modules)) + 14

    def svg(self) -> str:
        name = f"{self.room}/" if (PACKAGE / self.room).is_dir() else f"{self.room}.py"
        lines = [f'<text class="name" x="{self.x + 10:g}" y="{self.y + 19:g}">{escape(name)}</text>']
        y = self.y + HEAD + LINE - 2
        for kind, texts in (("what", self.what), ("modules", self.modules)):
            for text in texts:
                lines.append(f'<text class="{kind}" x="{self.x + 10:g}" y="{y:g}">{escape(text)}</text>')
                y += LINE
            y += 4
        shape = (
            f'<rect class="room" rx="6" x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" height="{self.height:g}"/>'
        )
        return "\n".join([shape, *lines])


def laid_out() -> tuple[dict[str, _Box], float]:
    """Return the boxes in their places, and the height of the whole."""
    boxes: dict[str, _Box] = {}
    y = float(MARGIN)
    for floor in floors():
        width = min(560.0, (WIDTH - 2 * (MARGIN + GUTTER) - GAP * (len(floor) - 1)) / len(floor))
        made = [_Box(room, width) for room in floor]
        x = (WIDTH - width * len(made) - GAP * (len(made) - 1)) / 2
        height = max(box.height for box in made)
        for box in made:
            box.x, box.y, box.height = x, y, height
            x += width + GAP
            boxes[box.room] = box
        y += height + FLOOR_GAP
    return boxes, y


def port(boxes: dict[str, _Box], box: _Box, others: list[str], other: str) -> float:
    """Return where on a box's edge an arrow stands, beside those of others."""
    order = sorted(others, key=lambda room: (boxes[room].x + boxes[room].width / 2, boxes[room].y))
    return box.x + box.width * (order.index(other) + 1) / (len(order) + 1)


def arrows(boxes: dict[str, _Box], edges: set[tuple[str, str]], kind: str, lanes: list[int]) -> Iterator[str]:
    """Yield arrows between boxes; one that passes by a floor goes through a lane beside the boxes.

    Args:
        boxes: in their places.
        edges: what is to be drawn.
        kind: a class for the style.
        lanes: those in use at the left and at the right; counted on.
    """
    rank = {room: number for number, floor in enumerate(floors()) for room in floor}
    for edge in sorted(edges, key=lambda edge: (rank[edge[1]] - rank[edge[0]], edge)):
        start, end = boxes[edge[0]], boxes[edge[1]]
        x1 = port(boxes, start, [b for a, b in edges if a == edge[0]], edge[1])
        x2 = port(boxes, end, [a for a, b in edges if b == edge[1]], edge[0])
        is_down = end.y > start.y
        y1 = start.y + start.height if is_down else start.y
        y2 = end.y - 7 if end.y >= start.y else end.y + end.height + 7
        way = 1 if is_down else -1
        if end.y == start.y:
            path = f"M{x1:.0f} {y1:.0f}V{y1 - 24:.0f}H{x2:.0f}V{y2:.0f}"
        elif abs(rank[edge[1]] - rank[edge[0]]) == 1:
            path = f"M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + 30 * way:.0f} {x2:.0f} {y2 - 30 * way:.0f} {x2:.0f} {y2:.0f}"
        else:
            side = int(x1 + x2 > WIDTH)
            lane, lanes[side] = lanes[side], lanes[side] + 1
            x = WIDTH - MARGIN - LANE * lane if side else MARGIN + LANE * lane
            leave, arrive = y1 + way * (7 + 4 * lane), y2 - way * (9 + 4 * lane)
            path = f"M{x1:.0f} {y1:.0f}V{leave:.0f}H{x:.0f}V{arrive:.0f}H{x2:.0f}V{y2:.0f}"
        title = f"<title>{edge[0]} imports {edge[1]}</title>"
        yield f'<path class="edge {kind}" marker-end="url(#{kind or "down"})" d="{path}">{title}</path>'


def drawn() -> str:
    """Return the picture."""
    boxes, height = laid_out()
    downwards, upwards = imports(set(boxes))
    downwards = reduced(downwards)
    lanes = [0, 0]
    marker = (
        '<marker id="{}" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="{}" d="M0 0L8 4L0 8z"/></marker>'
    )
    notes = (
        f'<text class="note" x="{MARGIN}" y="{height:g}">An arrow: imports. One that others imply is not drawn.</text>'
        f'<text class="note note-up" x="{MARGIN}" y="{height + LINE:g}">Dashed: the only imports upwards, all in '
        f"oq_nb/{FACES}, when somebody looks at a task or a queue.</text>"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 2 * LINE:g}" role="img" '
        'aria-label="The rooms of oq_nb, from the ground up, and what imports what">',
        f"<style>{STYLE}</style>",
        f"<defs>{marker.format('down', 'tip')}{marker.format('up', 'tip-up')}</defs>",
        *(box.svg() for box in boxes.values()),
        *arrows(boxes, downwards, "", lanes),
        *arrows(boxes, upwards, "up", lanes),
        notes,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def names_of_the_past() -> Iterator[str]:
    """Yield what pages of docs/ name and the code does not have: modules by path, and methods of classes."""
    methods: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                made = (item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
                methods.setdefault(node.name, set()).update(made)
    for page in sorted((ROOT / "docs").rglob("*.md")):
        if page.parent.name == "coming-from":  # names classes of others
            continue
        text = page.read_text(encoding="utf-8")
        for name in sorted(set(re.findall(r"`(?:oq_nb/)?((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)`", text))):
            if not (PACKAGE / name).exists() and not (ROOT / name).exists():
                yield f"{page.name}: there is no {name}"
        for room, names in re.findall(r"^\| `([a-z0-9/]+/)` \| ([^|]+)", text, re.MULTILINE):
            for name in re.findall(r"`([a-z_0-9]+\.py)`", names):
                if not (PACKAGE / room / name).exists():
                    yield f"{page.name}: there is no {name} in {room}"
        for kind, method in sorted(set(re.findall(r"`([A-Z]\w+)\.([a-z_]\w*)", text))):
            if kind in methods and method not in methods[kind] and not _has_attribute(kind, method):
                yield f"{page.name}: {kind} has no {method}"


def _has_attribute(kind: str, name: str) -> bool:
    """Return whether some class of that name sets an attribute, or has a field, of this name."""
    texts = (path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    return any(
        f"class {kind}" in text and re.search(rf"(self\.{name}\b.*=|^    {name}:)", text, re.MULTILINE)
        for text in texts
    )


def main(arguments: list[str]) -> int:
    """Draw the picture, or check it."""
    picture = drawn()
    if "--check" in arguments:
        faults = list(names_of_the_past())
        if not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != picture:
            faults.append(f"{PICTURE.relative_to(ROOT)} is not what the code is now: python docs/rooms.py draws it")
        print(*faults, sep="\n", end="\n" if faults else "")
        return 1 if faults else 0
    PICTURE.write_text(picture, encoding="utf-8")
    print(PICTURE.relative_to(ROOT), "drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
