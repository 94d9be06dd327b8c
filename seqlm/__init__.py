"""A small GPT-2 for a laptop: train it on token sequences, measure it, generate with it."""
