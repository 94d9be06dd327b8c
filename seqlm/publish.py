"""What of a report is committed: the figures, their words, and the table in README."""

import shutil
from pathlib import Path

from seqlm.errors import SeqlmError
from seqlm.evaluation.tables import readme_table
from seqlm.utils import atomic_path, read_text, write_text
from seqlm.workspace import Workspace, read_notebooks

OPEN, CLOSE = "<!-- results -->", "<!-- /results -->"


def publish(ws: Workspace) -> Path | None:
    """Copy figures, their alt texts, report.md and training_data.json to figures/, file by file.

    A figure there that this run did not make goes, with its alt text; other files stay, and so do
    figures of laboratory notebooks that have not been run here. README's
    table of results is written anew between its markers, if it has them. Only for the laptop
    profile, whose results README shows; any other is left where it is (None).
    """
    if ws.profile != "laptop":
        return None
    figures = sorted([*ws.figures.glob("*.png"), *ws.figures.glob("*.txt")])
    for source in [*figures, ws.outputs / "training_data.json"]:
        with atomic_path(ws.published / source.name) as aside:
            shutil.copyfile(source, aside)
    # There the report lies beside its figures, not above them.
    text = read_text(ws.outputs / "report.md").replace("](figures/", "](")
    write_text(ws.published / "report.md", text)
    not_run = [n.path for n in read_notebooks().values() if not ws.metrics_path(n.name).is_file()]
    absent = "".join(read_text(path) for path in not_run)
    _remove_stale(ws.published, {path.stem for path in figures}, absent)
    readme = ws.root / "README.md"
    if readme.is_file() and OPEN in read_text(readme):
        write_readme_results(ws, readme)
    return ws.published


def _remove_stale(folder: Path, current: set[str], absent: str) -> None:
    """Remove the pairs of .png and .txt that are not `current`; one without the other stays.

    So does one that the notebooks in `absent` would make.
    """
    for picture in folder.glob("*.png"):
        words = picture.with_suffix(".txt")
        kept = picture.stem in current or f'\\"{picture.stem}\\"' in absent
        if not kept and words.is_file():
            picture.unlink()
            words.unlink()


def write_readme_results(ws: Workspace, readme_path: Path) -> None:
    """Put README's table of results between the two marks. SeqlmError when they are missing."""
    ws.check_ran("evaluate")
    text = read_text(readme_path)
    start, end = text.find(OPEN), text.find(CLOSE)
    if start < 0 or end < start or text.count(OPEN) > 1 or text.count(CLOSE) > 1:
        raise SeqlmError(
            f"{readme_path}: the results go between '{OPEN}' and '{CLOSE}', each once and in that "
            "order; add these two lines where the table should stand"
        )
    values = {n: ws.metrics(n)["values"] for n in read_notebooks() if ws.metrics_path(n).is_file()}
    table = readme_table(values, "zh" if readme_path.stem.endswith("zh-CN") else "en")
    write_text(readme_path, f"{text[:start]}{OPEN}\n\n{table}\n\n{text[end:]}")
