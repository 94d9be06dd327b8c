"""Run every benchmark, and put the tables of all machines measured so far on one page.

`make bench` does this; the page is bench/results/README.md. What was measured before with the same
code is kept, so a run that was interrupted goes on (`--fresh` measures all again).
"""

import subprocess
import sys
from pathlib import Path

from common import arguments, parse

from seqlm.utils import read_json, read_text, write_text

SCRIPTS = [
    path
    for name in ("training_speed", "sampling_speed", "corpus_scale")
    if (path := Path(__file__).with_name(f"{name}.py")).is_file()
]
FACTS = ("processor", "flags", "used by torch", "threads", "memory_gb", "gpu", "python", "torch")


def page(results: Path) -> str:
    """Markdown: the tables of every kind of machine in `results`."""
    parts = ["# What `make bench` measured", "Each number is a median with its 95 % interval."]
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        tables = [folder / f"{script.stem}.md" for script in SCRIPTS]
        tables = [path for path in tables if path.is_file()]
        if not tables:
            continue
        machine = read_json(tables[0].with_suffix(".json"))["machine"]
        facts = [f"{name} {machine[name]}" for name in FACTS if machine[name] not in ("none", "")]
        line = "; ".join(facts).replace("'", "").replace("[", "").replace("]", "")
        parts += [f"## {folder.name}", line, *(read_text(path).strip() for path in tables)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    options = parse(arguments(__doc__))
    failed = []
    for script in SCRIPTS:
        print(f"== {script.stem}", flush=True)
        if subprocess.run([sys.executable, script, *sys.argv[1:]]).returncode:
            failed.append(script.stem)  # the others are measured all the same
    write_text(options.results / "README.md", page(options.results))
    print(f"written: {options.results / 'README.md'}")
    if failed:
        raise SystemExit(f"error: not measured: {', '.join(failed)}; see the lines above")


if __name__ == "__main__":
    main()
