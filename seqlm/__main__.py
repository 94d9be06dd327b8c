"""`seqlm …`, `python -m seqlm …` and `torchrun -m seqlm …`: the command line."""

import os
import signal
import sys
import threading
import time


def main() -> int:
    """Run the command line; Ctrl-C ends it without a traceback also while libraries are loaded."""
    try:
        from seqlm import cli

        return cli.main()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def _end_with(parent: int) -> None:
    """Wait until the process that started this one has gone, then end this one."""
    while os.getppid() == parent:
        time.sleep(0.2)
    signal.raise_signal(signal.SIGKILL)


if "--multiprocessing-fork" in sys.orig_argv:  # a worker of the server, about to import for seconds
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()

if __name__ == "__main__":
    sys.exit(main())
