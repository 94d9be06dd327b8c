"""Training speed: transformers' Trainer, nanoGPT's step and seqlm, side by side.

The same model (6 layers, 8 heads, 384 wide, 516 tokens), rows and machine; real tokens per second,
share of the machine's matmul peak, peak memory. On a newer processor all is measured once more as
on a laptop with AVX2 only, which two environment variables of oneDNN and torch bring about.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import seqlm  # noqa: F401  (it sets GOMP_SPINCOUNT, before torch is imported)

# isort: split

import nano_gpt
import numpy as np
import torch
from common import (
    FORMATS,
    Competitor,
    Turn,
    Turns,
    arguments,
    flags,
    load,
    multiply,
    parse,
    save,
    take_turns,
)
from transformers import (
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from seqlm.config import ModelConfig, TrainConfig
from seqlm.data.tokenizer import build_tokenizer
from seqlm.data.tokens import default_vocab
from seqlm.errors import SeqlmError
from seqlm.evaluation.estimates import Estimate, as_estimate, as_share, median
from seqlm.evaluation.tables import markdown_table
from seqlm.models.gpt2 import build_lm, default_device, fit_attention
from seqlm.training.batches import Rows
from seqlm.training.timing import Forecast, has_native_bf16
from seqlm.training.trainer import MeasuringTrainer, ValidationMetric
from seqlm.utils import code_fingerprint, sha256_of

NAME = "training_speed"
SHAPE = {"n_layer": 6, "n_head": 8, "n_embd": 384, "n_positions": 1024}
QUICK_SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 64}
VOCAB = default_vocab()
STEPS = 1600  # of the run that a step is part of; it is logged 200 times
EXAMPLES, NANO, OURS, PEAK = "Trainer", "nanoGPT", "seqlm", "matmul"
AVX2 = {"DNNL_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
PRELOAD = ("transformers.trainer", "transformers.models.gpt2.modeling_gpt2")


@dataclass(frozen=True)
class Case:
    """Rows of `shortest` to `longest` tokens, in batches; `steps` of seqlm's make a turn."""

    name: str
    shortest: int
    longest: int
    batch_size: int
    steps: int = 2

    @property
    def ragged(self) -> bool:
        return self.shortest < self.longest

    def rows(self) -> list[list[int]]:
        """Random ids; their lengths are spread evenly."""
        n_rows, rng = 16 * self.batch_size, np.random.default_rng(0)
        lengths = np.linspace(self.shortest, self.longest, n_rows).round().astype(int)
        return [rng.integers(6, len(VOCAB), length).tolist() for length in lengths]


CASES = (
    Case("21", 21, 21, 64),
    Case("256", 256, 256, 8),
    Case("1,024", 1024, 1024, 4),
    Case("100 to 1,024", 100, 1024, 4, steps=4),
)
QUICK_CASES = (Case("6", 6, 6, 4), Case("4 to 12", 4, 12, 2))
# (precision of seqlm, case) -> times as fast as the others, share of the peak.
GOALS = {
    ("bf16", "256"): {EXAMPLES: 3.5, PEAK: 0.6},
    ("fp32", "256"): {EXAMPLES: 1.5, NANO: 1.1, PEAK: 0.6},
    ("bf16", "21"): {EXAMPLES: 3.0},
    ("fp32", "21"): {EXAMPLES: 1.8},
    ("bf16", "100 to 1,024"): {EXAMPLES: 6.0},
    ("fp32", "100 to 1,024"): {EXAMPLES: 3.0},
}

# What an operation of torch belongs to, by the beginning of its name.
OPERATIONS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::"),
    "attention": ("aten::_scaled_dot_product", "aten::_softmax", "aten::softmax"),
    "gelu": ("aten::gelu",),
    "dropout": ("aten::bernoulli_", "aten::div_", "aten::native_dropout"),
    "casts and copies": ("aten::copy_", "aten::cat", "aten::_to_copy"),
    "layer norm": ("aten::native_layer_norm",),
    "optimizer and clipping": ("aten::_fused_adamw_", "aten::linalg_vector_norm", "Optimizer"),
}

# ---------------------------------------------------------------- arithmetic


def flops_per_token(shape: Mapping, vocab_size: int, length: float) -> float:
    """FLOPs of training on one token of a row of `length` tokens.

    6 for each weight that a token is multiplied with (2 forward, 4 backward): 12 C^2 in each of L
    blocks and C for each of V outputs; 12 L C T for attention's two products over T tokens, half
    of it with a causal mask. Embeddings are looked up, not multiplied. Source: A. Chowdhery et
    al., PaLM (2022), appendix B, which has no mask.
    """
    n_layer, width = shape["n_layer"], shape["n_embd"]
    weights = n_layer * 12 * width**2 + width * vocab_size
    return 6 * weights + 12 * n_layer * width * length / 2


def mean_flops_per_token(shape: Mapping, vocab_size: int, lengths: Sequence[int]) -> float:
    """FLOPs per token of rows of different lengths."""
    total = sum(length * flops_per_token(shape, vocab_size, length) for length in lengths)
    return total / sum(lengths)


# ---------------------------------------------------------------- the competitors


class StepDone(TrainerCallback):
    """Ends a Trainer's step: counts its tokens and waits for the next turn."""

    def __init__(self, turns: Turns, tokens: float | None = None):
        self.turns, self.tokens, self.seen = turns, tokens, 0

    def on_step_end(self, args, state, control, **kwargs):
        tokens, self.seen = state.num_input_tokens_seen - self.seen, state.num_input_tokens_seen
        self.turns.step_done(self.tokens or tokens)


def train_as_in_examples(turns: Turns, case: Case, shape: dict) -> None:
    """transformers' Trainer, GPT-2's own configuration (dropout 0.1), rows padded to the longest.

    A step takes as long whatever rows are in it, because all are padded; its tokens are counted
    as a batch of mean length.
    """
    tokenizer, ids = build_tokenizer(VOCAB), case.rows()
    padding = [case.longest - len(row) for row in ids]
    rows = [
        {
            "input_ids": row + n * [tokenizer.pad_token_id],
            "attention_mask": [1] * len(row) + n * [0],
        }
        for row, n in zip(ids, padding, strict=True)
    ]
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(VOCAB), **shape))
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=case.batch_size,
            max_steps=STEPS,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=default_device() == "cpu",
        )
        Trainer(
            model,
            settings,
            DataCollatorForLanguageModeling(tokenizer, mlm=False),
            rows,
            callbacks=[StepDone(turns, case.batch_size * np.mean([len(row) for row in ids]))],
        ).train()


def train_nano(turns: Turns, case: Case, shape: dict, precision: str) -> None:
    """nanoGPT's step; its rows are all as long as the longest."""
    data, shape = np.concatenate(case.rows()), {"vocab_size": len(VOCAB), **shape}
    nano_gpt.train(turns, shape, data, case.batch_size, case.longest, FORMATS[precision])


def train_ours(turns: Turns, case: Case, shape: dict, precision: str) -> None:
    """The Trainer of `seqlm train`, without dropout, as in the laptop profile and in nanoGPT.

    Evaluations are left out.
    """
    metric = ValidationMetric("none", lambda model: {"none": 0.0}, None)
    model = build_lm(ModelConfig(**shape, dropout=0.0), VOCAB).to(default_device())
    fit_attention(model, case.longest)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(output_dir=Path(folder), batch_size=case.batch_size)
        trainer = MeasuringTrainer(
            model,
            build_tokenizer(VOCAB),
            Rows(case.rows()),
            metric,
            config,
            "benchmark",
            precision,
            {"steps": STEPS, "evals": 1},
            Forecast(1.0, 0.0),
            lambda line: None,
        )
        trainer.add_callback(StepDone(turns))
        trainer.train()


def competitors(case: Case, shape: dict, precisions: Sequence[str]) -> dict[str, Competitor]:
    """Name -> what takes turns; nanoGPT has no rows of different lengths."""
    # A padded batch takes several times as long, so one step is enough.
    steps = 1 if case.ragged else case.steps
    chosen = {f"{EXAMPLES} fp32": Competitor(train_as_in_examples, (case, shape), steps)}
    for precision in precisions:
        values = (case, shape, precision)
        if not case.ragged:
            chosen[f"{NANO} {precision}"] = Competitor(train_nano, values, case.steps)
        chosen[f"{OURS} {precision}"] = Competitor(train_ours, values, case.steps)
        chosen[f"{PEAK} {precision}"] = Competitor(multiply, (precision,))
    return chosen


# ---------------------------------------------------------------- measuring


def summarize(turns: Mapping[str, Sequence[Turn]], flops: float) -> dict[str, dict]:
    """Competitor -> tokens per second, share of the peak, peak memory, times as fast as others.

    Shares and ratios are those of one round's rates; the median is over rounds.
    """
    rates = {name: np.array([turn.rate for turn in taken]) for name, taken in turns.items()}
    summary = {}
    for name, rate in rates.items():
        system, precision = name.split()
        if system == PEAK:
            summary[name] = {"flops_per_second": median(rate, "FLOP/s").to_json()}
            continue
        others = {
            other: rates[f"{other} {its}"]
            for other, its in ((EXAMPLES, "fp32"), (NANO, precision))
            if other != system and f"{other} {its}" in rates
        }
        summary[name] = {
            "tokens_per_second": median(rate, "tokens per second").to_json(),
            "share_of_peak": median(rate * flops / rates[f"{PEAK} {precision}"], "share").to_json(),
            "memory": max(turn.memory for turn in turns[name]),
            "times_as_fast_as": {o: median(rate / r, "times").to_json() for o, r in others.items()},
        }
    return summary


def measure_part(options) -> None:
    """Measure every case of one part that is not measured yet, and save each at once."""
    shape, cases = (QUICK_SHAPE, QUICK_CASES) if options.quick else (SHAPE, CASES)
    precisions = ["fp32"] + ["bf16"] * (options.part == "native" and has_native_bf16())
    modules = [Path(__file__).with_name(f"{name}.py") for name in (NAME, "common", "nano_gpt")]
    code = code_fingerprint("seqlm.training.tasks") + sha256_of(modules)
    key = [code, options.rounds, shape]
    for case in cases:
        record = load(NAME, options.results)
        measured = record.setdefault(options.part, {})
        if not options.fresh and measured.get(case.name, {}).get("key") == key:
            print(f"{options.part}, {case.name} tokens: kept", flush=True)
            continue
        lengths = [len(row) for row in case.rows()]
        flops = mean_flops_per_token(shape, len(VOCAB), lengths)
        try:
            taken = take_turns(competitors(case, shape, precisions), options.rounds, PRELOAD)
        except SeqlmError as error:
            print(f"error: {options.part}, {case.name} tokens: {error}", file=sys.stderr)
            continue
        measured[case.name] = {
            "key": key,
            "batch_size": case.batch_size,
            "flops_per_token": flops,
            "systems": summarize(taken, flops),
            "turns": {name: [turn.rate for turn in turns] for name, turns in taken.items()},
        }
        if options.part == "native":
            record.pop("machine", None)  # the facts of now, not those of an earlier run
        save(NAME, options.results, record, markdown(record))
        print(f"{options.part}, {case.name} tokens: measured", flush=True)


class Profiled(Turns):
    """Profiles `steps` steps after as many to warm up, and prints where their time went."""

    def __init__(self, steps: int):
        self.steps, self.done = steps, 0
        self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    def step_done(self, amount: float) -> None:
        self.done += 1
        if self.done == self.steps:
            self.profiler.start()
        if self.done == 2 * self.steps:
            self.profiler.stop()
            raise EOFError


def profile(options) -> None:
    """Print the share of each kind of operation in seqlm's steps, at 21 and 256 tokens."""
    shape, cases = (QUICK_SHAPE, QUICK_CASES) if options.quick else (SHAPE, CASES)
    columns = {}
    for precision in ["fp32"] + ["bf16"] * has_native_bf16():
        for case in cases[:1] if options.quick else cases[:2]:
            turns = Profiled(case.steps)
            with suppress(EOFError):
                train_ours(turns, case, shape, precision)
            spent = dict.fromkeys((*OPERATIONS, "the rest"), 0.0)
            for event in turns.profiler.key_averages():
                kinds = (k for k, names in OPERATIONS.items() if event.key.startswith(names))
                spent[next(kinds, "the rest")] += event.self_cpu_time_total
            columns[f"{case.name} tokens, {precision}"] = spent
    rows = [
        (kind, *(f"{spent[kind] / sum(spent.values()):.0%}" for spent in columns.values()))
        for kind in (*OPERATIONS, "the rest")
    ]
    print(markdown_table(("share of a training step", *columns), rows))


def markdown(record: Mapping) -> str:
    """A table for each part, and what the goals come to."""
    titles = {"native": "all instructions of this processor", "avx2": "as with AVX2 only"}
    header = ("tokens per row", "batch", "system", "tokens per second")
    header += (f"times {EXAMPLES}", f"times {NANO}", "share of peak", "peak memory", "goals")
    parts = ["### Training speed"]
    for part, title in titles.items():
        rows = []
        for case, measured in record.get(part, {}).items():
            for name, values in measured["systems"].items():
                if not name.startswith(PEAK):
                    rows.append(_row(case, measured["batch_size"], name, values))
        if rows:
            parts += [f"**{title}**", markdown_table(header, rows)]
    return "\n\n".join(parts)


def _row(case: str, batch_size: int, name: str, values: Mapping) -> tuple:
    ratios = {other: as_estimate(e) for other, e in values["times_as_fast_as"].items()}
    share = as_share(values["share_of_peak"])
    goals = GOALS.get((name.split()[1], case), {}) if name.startswith(OURS) else {}
    reached = [_goal(other, goal, {**ratios, PEAK: share}[other]) for other, goal in goals.items()]
    return (
        case,
        str(batch_size),
        name.replace(" ", ", "),
        as_estimate(values["tokens_per_second"]).format(),
        *(ratios[other].format() if other in ratios else "–" for other in (EXAMPLES, NANO)),
        share.format(),
        f"{values['memory'] / 1e9:.2f} GB",
        "; ".join(reached) or "–",
    )


def _goal(other: str, goal: float, reached: Estimate) -> str:
    wanted = f"{goal:.0%} of peak" if other == PEAK else f"{goal:g} x {other}"
    return f"{wanted}: {'met' if reached.value >= goal else 'missed'}"


def parts() -> list[str]:
    """ "native", and "avx2" where that is less than the processor has."""
    return ["native"] + ["avx2"] * (default_device() == "cpu" and "avx512_f" in flags())


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=None, help="turns of each competitor")
    parser.add_argument("--part", choices=("native", "avx2"), help="measure this part alone")
    parser.add_argument("--profile", action="store_true", help="where seqlm's time goes, instead")
    options = parse(parser)
    options.rounds = options.rounds or (2 if options.quick else 7)
    if options.profile:
        return profile(options)
    if options.part:
        return measure_part(options)
    for part in parts():
        environment = os.environ | (AVX2 if part == "avx2" else {})
        command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
        subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()
