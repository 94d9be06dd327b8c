"""`seqlm progress`: the exercises of the notebooks, and which of them are done.

A notebook keeps what its cells printed, the checkers' lines too, so nothing else is recorded.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from seqlm.errors import DataError, printable
from seqlm.utils import read_json
from seqlm.workspace import notebooks_folder

HEADING = re.compile(
    r"^## (?:Exercise|练习)[ \d]*[:：] ?(.+?) ?[(（]\w+[,，] ?(\d+) ?(?:minutes|分钟)[)）]$", re.M
)
CALL = re.compile(r"(?<![.\w])check_\w+\(")


def read_tasks(path: Path) -> Iterator[tuple[str, int, str]]:
    """Title, minutes and mark (✓ right, ✗ not yet, … not tried) of the exercises in a notebook.

    Raises DataError for a file that is no notebook.
    """
    heading = None
    try:
        for cell in read_json(path)["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                heading = ([*HEADING.finditer(source)] or [heading])[-1]
            elif heading and CALL.search(source):
                printed = "".join("".join(out.get("text", "")) for out in cell["outputs"])
                mark = re.search("[✓✗…]", printed)
                yield heading[1], int(heading[2]), mark[0] if mark else "…"
                heading = None
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a notebook ({error}); save it again in Jupyter") from error


def show_progress(folder: Path | None = None) -> None:
    """Print the exercises of every notebook in `folder`, and how many are done.

    Raises DataError for a folder without exercises.
    """
    folder = folder or notebooks_folder()
    every = []
    for path in [*sorted(folder.glob("*.ipynb")), *sorted(folder.glob("laboratory/*.ipynb"))]:
        if tasks := [*read_tasks(path)]:
            print(printable(path.relative_to(folder)))
        for title, minutes, mark in tasks:
            print(f"  {mark} {printable(title)} ({minutes} minutes)")
        every += tasks
    if not every:
        raise DataError(f"{folder}: no notebook with exercises is there; name another folder")
    left = [minutes for _, minutes, mark in every if mark != "✓"]
    done = f"{len(every) - len(left)} of {len(every)} exercises are done"
    print(f"{done}, by the notebooks as they were last saved; {sum(left)} minutes are left.")
