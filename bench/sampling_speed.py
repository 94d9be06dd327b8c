"""Sampling and evaluation speed: transformers' `generate`, one by one and batched, and seqlm.

Images per second of a model of 6 layers, 8 heads, 384 wide, 516 tokens with random weights: 16
codes after a prompt of 3 tokens, in fp32. Then rows of 21 tokens scored per second, by plain
forward passes as in the examples of transformers and by seqlm. On a newer processor all is
measured once more as on a laptop with AVX2 only.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import seqlm  # noqa: F401  (it sets GOMP_SPINCOUNT, before torch is imported)

# isort: split

import numpy as np
import torch
from common import arguments, load, parse, save
from training_speed import AVX2, QUICK_SHAPE, SHAPE, VOCAB, parts

from seqlm.config import ModelConfig, SampleConfig
from seqlm.data.tokens import drawing_prompt
from seqlm.evaluation.estimates import as_estimate, median
from seqlm.evaluation.scores import class_probabilities, score_tokens
from seqlm.evaluation.tables import markdown_table
from seqlm.models.generation import draw
from seqlm.models.gpt2 import build_lm
from seqlm.utils import code_fingerprint, sha256_of

NAME = "sampling_speed"
CODES, BATCHES, ROWS, LENGTH = 16, (1, 64, 256), 256, 21
SINGLE, BATCHED, OURS, GUIDED = "one by one", "batched", "seqlm", "seqlm, guided"
FORWARD, SCORES, CLASSES = "forward passes", "score_tokens", "class_probabilities"
# (images at once, competitor) -> how many times as fast as it seqlm should be.
GOALS = {
    (64, SINGLE): ("at least 30", lambda ratio: ratio >= 30),
    (64, BATCHED): ("at least 2", lambda ratio: ratio >= 2),
}
GUIDANCE_COST = 2.2


def transformers_generate(model, images: int) -> None:
    """Sample at temperature 1 from all tokens, as many codes as an image has."""
    prompts = [[VOCAB[token] for token in drawing_prompt(i % 10)] for i in range(images)]
    ids = torch.tensor(prompts)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=0,
        max_new_tokens=CODES,
        min_new_tokens=CODES,
        pad_token_id=0,
    )


@torch.inference_mode()
def forward_passes(model, rows: list[list[int]]) -> None:
    """The loss of every token, 64 rows at a time."""
    for start in range(0, len(rows), 64):
        ids = torch.tensor(rows[start : start + 64])
        log_probs = model(ids, use_cache=False).logits[:, :-1].log_softmax(-1)
        log_probs.gather(-1, ids[:, 1:, None])


def take_turns(tasks: Mapping[str, tuple[Callable, int]], rounds: int) -> dict[str, np.ndarray]:
    """Task -> its rate in each round but the first, a warm-up."""
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name in list(tasks) if turn % 2 else list(reversed(tasks)):
            run, amount = tasks[name]
            started = time.perf_counter()
            run()
            rates[name].append(amount / (time.perf_counter() - started))
    return {name: np.array(values[1:]) for name, values in rates.items()}


def summarize(rates: Mapping[str, np.ndarray], ours: str) -> dict:
    """Each task's rate, and how many times as fast `ours` is in the same round."""
    return {
        name: {
            "per_second": median(rate, "per second").to_json(),
            "ours_times_as_fast": median(rates[ours] / rate, "times").to_json(),
        }
        for name, rate in rates.items()
    }


def measure(quick: bool, rounds: int) -> dict:
    """Every task of one part."""
    model = build_lm(ModelConfig(**(QUICK_SHAPE if quick else SHAPE)), VOCAB).eval()
    plain, guided = SampleConfig(), SampleConfig(guidance=1.5)
    measured = {}
    for images in (1, 2) if quick else BATCHES:
        labels = [i % 10 for i in range(images)]
        ours = lambda config, labels=labels: draw(model, VOCAB, labels, CODES, config)  # noqa: E731
        tasks = {
            SINGLE: (lambda: transformers_generate(model, 1), 1),
            BATCHED: (lambda n=images: transformers_generate(model, n), images),
            OURS: (lambda ours=ours: ours(plain), images),
            GUIDED: (lambda ours=ours: ours(guided), images),
        }
        if images == 1:
            del tasks[BATCHED]  # that is one by one
        measured[f"{images} images"] = summarize(take_turns(tasks, rounds), OURS)
    rows = np.random.default_rng(0).integers(6, 506, (32 if quick else ROWS, LENGTH)).tolist()
    classes = [index for token, index in VOCAB.items() if token.startswith("<CLS_")]
    tasks = {
        FORWARD: (lambda: forward_passes(model, rows), len(rows)),
        SCORES: (lambda: score_tokens(model, rows), len(rows)),
        CLASSES: (lambda: class_probabilities(model, rows, classes), len(rows)),
    }
    measured[f"{len(rows)} rows"] = summarize(take_turns(tasks, rounds), SCORES)
    return measured


def markdown(record: Mapping) -> str:
    """A table for each part."""
    titles = {"native": "all instructions of this processor", "avx2": "as with AVX2 only"}
    header = ("at once", "system", "images or rows per second", "seqlm times as fast", "goal")
    blocks = ["### Sampling and evaluation speed"]
    for part, title in titles.items():
        if part not in record:
            continue
        lines = []
        for task, systems in record[part]["measured"].items():
            for name, values in systems.items():
                ratio = as_estimate(values["ours_times_as_fast"])
                cells = (as_estimate(values["per_second"]).format(), ratio.format())
                lines.append((task, name, *cells, _goal(task, name, ratio.value)))
        blocks += [f"**{title}**", markdown_table(header, lines)]
    return "\n\n".join(blocks)


def _goal(task: str, name: str, ratio: float) -> str:
    if name == GUIDED:
        return f"at most {GUIDANCE_COST}: {'met' if ratio <= GUIDANCE_COST else 'missed'}"
    wanted = GOALS.get((int(task.split()[0]), name))
    if wanted is None or not task.endswith("images"):
        return "–"
    return f"{wanted[0]}: {'met' if wanted[1](ratio) else 'missed'}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=None, help="turns of each system")
    parser.add_argument("--part", choices=("native", "avx2"), help="measure this part alone")
    options = parse(parser)
    options.rounds = options.rounds or (2 if options.quick else 6)
    if not options.part:
        for part in parts():
            environment = os.environ | (AVX2 if part == "avx2" else {})
            command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
            subprocess.run(command, env=environment, check=True)
        return
    code = code_fingerprint("seqlm.evaluation.classification", "seqlm.models.generation")
    key = [code + sha256_of([Path(__file__)]), options.rounds]
    record = load(NAME, options.results)
    if not options.fresh and record.get(options.part, {}).get("key") == key:
        print(f"{options.part}: kept", flush=True)
        return
    record[options.part] = {"key": key, "measured": measure(options.quick, options.rounds)}
    if options.part == "native":
        record.pop("machine", None)  # the facts of now, not those of an earlier run
    save(NAME, options.results, record, markdown(record))
    print(f"{options.part}: measured", flush=True)


if __name__ == "__main__":
    main()
