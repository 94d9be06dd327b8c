"""`python -m seqlm …` and `torchrun -m seqlm …`: the command line."""

import sys

from seqlm.cli import main

sys.exit(main())
