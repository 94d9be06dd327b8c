"""GNU OpenMP is told not to spin before torch loads it, wherever seqlm is started from."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/**/*.ipynb"))
# Stops at the first import of torch, which takes seconds, and shows what torch would have read.
STOP = """
import os, runpy, sys

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch reads", os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Stop())
"""
ENTRIES = {
    "command line": "sys.argv = ['seqlm', 'sizes']; from seqlm.cli import main; main()",
    "python -m seqlm": "sys.argv = ['seqlm', 'sizes']; runpy.run_module('seqlm', None, '__main__')",
    "server": "import seqlm.deploy.server",
    "playground": "import seqlm.playground.app",
    "tests": "import pytest; pytest.main(['-s', '--collect-only', 'tests/test_config.py'])",
    **{
        f"bench/{path.name}": f"sys.path[:0] = ['bench']; runpy.run_path('bench/{path.name}')"
        for path in (ROOT / "bench").glob("*.py")
        if re.search("(?m)^from (seqlm|common)", path.read_text(encoding="utf-8"))
    },
}


def torch_reads(code: str, **settings: str) -> str:
    """What GOMP_SPINCOUNT is when `code` imports torch in a new Python."""
    own = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", STOP + code],
        cwd=ROOT,
        env={**own, "PYTHONPATH": str(ROOT), **settings},
        capture_output=True,
        text=True,
    )
    assert "torch reads" in done.stdout, done.stderr
    return done.stdout.split("torch reads")[1].split()[0]


@pytest.mark.subprocess
@pytest.mark.parametrize("entry", ENTRIES)
def test_threads_do_not_spin_in_any_entry(entry):
    assert torch_reads(ENTRIES[entry]) == "0"


@pytest.mark.subprocess
def test_a_users_own_setting_stays():
    assert torch_reads("import seqlm.models.gpt2", GOMP_SPINCOUNT="300") == "300"
    assert torch_reads("import seqlm.models.gpt2", OMP_WAIT_POLICY="active") == "None"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_seqlm_before_anything_that_imports_torch(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    imports = [node for source in code for node in ast.walk(ast.parse(source))]
    names = []
    for node in imports:
        if isinstance(node, ast.Import):
            names += [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module.split(".")[0])
    before = set(names[: names.index("seqlm")])
    assert before <= {"IPython", "numpy", *sys.stdlib_module_names}
