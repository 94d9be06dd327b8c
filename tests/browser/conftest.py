"""A real browser before a real Voila or JupyterLab, both closed again whatever happens.

Nothing of the user's own is read or written: kernels, settings and runtime files have folders of
their own, and the kernel is the Python that runs the tests.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 180  # seconds for a server or a kernel to start on a busy machine
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OUTSIDE = re.compile(r"^https?://(?!127\.0\.0\.1[:/])")

# What the frameworks themselves write to the console as errors: pattern -> why it is not ours.
NOISE = {
    r"cdn\.jsdelivr\.net/npm/@fortawesome": (
        "Voila's page asks a public host for its icons; here it is kept from the internet"
    ),
}


@dataclass
class Opened:
    """A page, every error its console has shown since it was opened, and all that it asked for."""

    page: "Page"  # noqa: F821 - playwright is imported only when a browser is there
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def our_errors(self) -> list[str]:
        """Those that are no known noise of the frameworks."""
        return [error for error in self.errors if not any(re.search(n, error) for n in NOISE)]

    @property
    def left_the_machine(self) -> list[str]:
        """What the page asked another host for."""
        here = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")
        return [url for url in self.requests if not url.startswith(here)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(command: list[str], port: int, environment: dict[str, str], log: Path) -> Iterator[str]:
    """A server's address, once it listens on `port`; its whole process group ends with the block.

    Raises RuntimeError with the end of its log when it does not start.
    """
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, cwd=log.parent, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[2]} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        _end(server)


def _end(server: subprocess.Popen) -> None:
    # SIGTERM first: on it a server ends its kernels, which have process groups of their own.
    for sign, seconds in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
        try:
            os.killpg(server.pid, sign)
            server.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


@pytest.fixture(scope="session")
def jupyter_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables under which Jupyter touches nobody's settings and runs our Python."""
    home = tmp_path_factory.mktemp("jupyter")
    kernel = home / "share/kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": argv, "display_name": "Python of the tests", "language": "python"}
    kernel.write_text(json.dumps(about), encoding="utf-8")
    news = home / "lab/settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    news.write_text(json.dumps(quiet), encoding="utf-8")
    folders = {
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "lab/settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "lab/workspaces",
        "IPYTHONDIR": home / "ipython",
    }
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {name: str(folder) for name, folder in folders.items()}
    own["PYTHONPATH"] = os.pathsep.join(paths)
    # Looked through before the user's own kernels; the second holds the application's template.
    own["JUPYTER_PATH"] = os.pathsep.join([str(home / "share"), str(ROOT / "notebooks/app")])
    return {**os.environ, **own}


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:  # noqa: F821
    """Chromium or Chrome, as this machine has it; without one the test is skipped."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)} is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def opened(browser) -> Callable[..., AbstractContextManager[Opened]]:
    """``with opened(url, **context) as seen:`` a page whose console errors are kept.

    `context` is what Playwright's new_context takes: viewport, color_scheme, has_touch ...
    """

    @contextmanager
    def open_page(url: str, **context) -> Iterator[Opened]:
        window = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **context})
        window.set_default_timeout(PATIENCE * 1000)
        # No test waits for the internet, or passes only where there is one.
        window.route(OUTSIDE, lambda route: route.abort())
        seen = Opened(window.new_page())

        def keep(message) -> None:
            if message.type == "error":
                seen.errors.append(f"{message.text} ({message.location.get('url', '')})")

        seen.page.on("console", keep)
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("pageerror", lambda error: seen.errors.append(f"uncaught: {error}"))
        try:
            seen.page.goto(url)
            yield seen
        finally:
            window.close()

    return open_page


@pytest.fixture(scope="module")
def voila(browser, jupyter_environment, tmp_path_factory) -> Iterator[Callable[..., str]]:
    """``voila(notebook)`` serves it and gives its address; each visit runs it in a new kernel.

    Further arguments are Voila's flags, and names are environment variables.
    """
    with ExitStack() as servers:

        def serve(notebook: Path, *flags: str, **environment: str) -> str:
            port = free_port()
            command = [
                sys.executable, "-m", "voila", str(notebook), f"--port={port}", "--no-browser",
                "--Voila.ip=127.0.0.1", "--Voila.port_retries=0", *flags,
            ]  # fmt: skip
            log = tmp_path_factory.mktemp("voila") / "log.txt"
            own = {**jupyter_environment, **environment}
            return servers.enter_context(running(command, port, own, log))

        yield serve


@pytest.fixture(scope="module")
def lab(browser, jupyter_environment, tmp_path_factory) -> Iterator[Callable[..., str]]:
    """``lab(folder)`` starts JupyterLab there; a notebook lies at ``{address}/lab/tree/{name}``.

    Names are environment variables.
    """
    with ExitStack() as servers:

        def serve(folder: Path, **environment: str) -> str:
            port = free_port()
            command = [
                sys.executable, "-m", "jupyterlab", f"--port={port}", "--no-browser",
                "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", "--allow-root",
                "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
                "--expose-app-in-browser", "--LabApp.news_url=None",
            ]  # fmt: skip
            log = tmp_path_factory.mktemp("lab") / "log.txt"
            own = {**jupyter_environment, **environment}
            # A workspace of another test file would reopen a notebook that is not in this folder.
            own["JUPYTERLAB_WORKSPACES_DIR"] = str(log.parent / "workspaces")
            return servers.enter_context(running(command, port, own, log))

        yield serve


@pytest.fixture(scope="session")
def run_all_cells() -> Callable[["Page"], None]:  # noqa: F821
    """``run_all_cells(page)``: in JupyterLab, run the open notebook and wait until it is done."""

    def run(page: "Page") -> None:  # noqa: F821
        page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(
            state="attached"
        )
        # It says idle before it has a kernel; asked to run, JupyterLab would then open a dialog.
        page.wait_for_function(
            "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )
        # While the notebook is still being put on the screen the command finds none to run, and
        # does nothing: so it is repeated until the first cell is on its way. A cell that waits or
        # runs shows [*], one that has never been run [ ].
        deadline = time.monotonic() + PATIENCE
        first = page.locator(".jp-CodeCell .jp-InputPrompt").first
        while first.inner_text().strip() in ("", "[ ]:") and time.monotonic() < deadline:
            page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
            page.wait_for_timeout(1000)
        page.wait_for_function(
            "() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
            ".every(prompt => /\\d/.test(prompt.textContent))"
        )

    return run


@pytest.fixture(scope="session")
def write_notebook() -> Callable[..., Path]:
    """``write_notebook(path, *cells)``: code cells for the kernel of the tests."""

    def write(path: Path, *cells: str) -> Path:
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, path)
        return path

    return write
