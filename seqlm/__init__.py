"""A small GPT-2 for a laptop: train it on token sequences, measure it, generate with it."""

import os

# Read by GNU OpenMP when torch loads it. Its threads spin while they wait; with another program on
# one of two cores that halves the speed of training (docs/troubleshooting.md has the numbers).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
