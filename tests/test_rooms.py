"""Imports run one way between the rooms of the package; seqlm/README.md draws the arrow."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "seqlm"
# From the bottom up. A room imports from lower lines only; rooms of one line not from each other.
ORDER = [
    *(["errors"], ["atomic"], ["utils"], ["ownership"], ["checked"], ["config"], ["idx"]),
    *(["data"], ["check"], ["models"], ["evaluation"], ["plots"], ["training"], ["workspace"]),
    *(
        ["deploy", "playground", "lab", "exercises"],
        ["report"],
        ["health"],
        ["pipeline"],
        ["commands"],
        ["cli"],
    ),
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("seqlm.")} & LEVEL.keys()


def test_no_import_runs_back_or_between_rooms_of_one_level():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if (
            room.startswith("__") or room not in LEVEL
        ):  # __init__ and __main__ stand above all rooms
            continue
        wrong += [f"{path.relative_to(PACKAGE)} imports {other}" for other in imported_rooms(path)
                  if other != room and LEVEL[other] >= LEVEL[room]]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_the_map_names_every_module_and_nothing_else():
    page, room, named = (PACKAGE / "README.md").read_text(encoding="utf-8"), "", set()
    for first in re.findall(r"^\| (\S+) \|", page, re.MULTILINE):
        if first.startswith("**"):
            room = first.strip("*").replace("top", "")
        elif first.endswith(".py`"):
            named.add(f"{room}/{first.strip('`')}".lstrip("/"))
    there = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    there = {path for path in there if not path.endswith(("__init__.py", "__main__.py"))}
    assert named - {"evaluation/__init__.py"} == there
