"""`seqlm …`, `python -m seqlm …` and `torchrun -m seqlm …`: the command line."""

import sys


def main() -> int:
    """Run the command line; Ctrl-C ends it without a traceback also while libraries are loaded."""
    try:
        from seqlm import cli

        return cli.main()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
