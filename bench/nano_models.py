"""Train the small models that come with the project, and write them to models/, card included.

`python bench/nano_models.py nano28 --images_path FOLDER` trains models/nano28 on handwriting of
28x28 pixels, from a folder of IDX files (without it, as `seqlm build --source mnist` finds them);
`python bench/nano_models.py nano8` trains models/nano8 on scikit-learn's digits. Everything between
is kept in outputs/NAME: a run that was stopped goes on, and a finished one is only written again.

The weights are stored in fp16 and computed with in fp32; all numbers are those of the stored ones.
Val chose the checkpoint; test is measured once, in the end.
"""

import argparse
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import seqlm  # noqa: F401  (it sets GOMP_SPINCOUNT, before torch is imported)

# isort: split

import numpy as np
from safetensors.torch import load_file, save_file

from seqlm.atomic import atomic_dir
from seqlm.config import DRAWING, DataConfig, DataFiles, ModelConfig, SampleConfig, TrainConfig
from seqlm.data.build import (
    CODEBOOK,
    IMAGES,
    SEQUENCES,
    VOCAB,
    Pictures,
    build_dataset,
    is_built,
    load_pictures,
)
from seqlm.data.codebook import PatchCodebook, psnr
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.errors import SeqlmError
from seqlm.evaluation.estimates import as_estimate, proportion
from seqlm.evaluation.scores import class_probabilities
from seqlm.evaluation.tables import markdown_table
from seqlm.lab.image_quality import real_vs_generated_auc, train_digit_classifier
from seqlm.models.generation import draw
from seqlm.models.gpt2 import load_lm
from seqlm.ownership import CARD
from seqlm.training.cards import model_card
from seqlm.training.measure import evaluate_lm
from seqlm.training.replay import LEARNED
from seqlm.training.tasks import train_lm, validation_metric
from seqlm.utils import read_json, write_json, write_text

ROOT = Path(__file__).parents[1]
MODELS, METRICS = ROOT / "models", "metrics.json"
N_SHOWN = 10  # test images of each class that lie beside a model whose images are not in the clone
N_EACH = 100  # generated images of each class that are measured
SEED = 7  # of what is generated; notebook 7's
WEIGHTS = "model.safetensors"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
AS_IT_IS = ("config.json", "generation_config.json", "special_tokens_map.json", "vocab.json")
AS_IT_IS += ("merges.txt",)
OWN = """\
On val, which chose the checkpoint: NLL per code {val:.3f}, class accuracy {val_accuracy:.1%}.

{table}

The SVM learned from the same training images, in their pixels, and also classifies what is
generated. metrics.json has all numbers. They are those of the weights as they are stored, in fp16;
transformers computes with them in fp32, as config.json says.

```sh
{command}                      # makes this folder
seqlm infer --model_path models/{model} --mode generate --label 7
seqlm export --format html --model_path models/{model} --output_file digits.html
```
"""
THEIRS = f"""
{IMAGES} holds {10 * N_SHOWN} of the test images, the first ten of each digit, for the playground.
They are MNIST's, under its licence, CC BY-SA 3.0. {LEARNED} has hashes of the training images, but
not of their augmented images.
"""


@dataclass(frozen=True)
class Recipe:
    """Images, size and settings of one model."""

    data: DataConfig
    size: ModelConfig
    train: TrainConfig
    command: str
    images: str  # where they are from


MUON = TrainConfig(batch_size=64, optimizer="muon", learning_rate=3e-3, evals=10, patience=0)
RECIPES = {
    "nano28": Recipe(
        DataConfig("mnist", patch=4, copies=15, shift=0.7),
        ModelConfig(5, 6, 168, 64, 0.0),
        replace(MUON, num_epochs=1.0),
        "python bench/nano_models.py nano28 --images_path FOLDER",
        "the 10,000 test images of MNIST (Y. LeCun, C. Cortes, C. J. C. Burges; CC BY-SA 3.0), "
        "divided anew: the last 2,000 are test",
    ),
    "nano8": Recipe(
        DataConfig(),
        ModelConfig(4, 4, 128, 64, 0.0),
        replace(MUON, num_epochs=3.0),
        "python bench/nano_models.py nano8",
        "the 1,797 digits that come with scikit-learn (E. Alpaydin and C. Kaynak, UCI; CC BY 4.0)",
    ),
}


def make_model(name: str, images_path: Path | None) -> None:
    """Train a model, measure it, and write models/NAME."""
    recipe, folder = RECIPES[name], ROOT / "outputs" / name
    config, data = replace(recipe.data, images_path=images_path), folder / "data"
    if not is_built(config, data, ROOT / "data"):
        print(build_dataset(config, data, ROOT / "data"), flush=True)
    corpus = load_corpus(DataFiles(data / SEQUENCES, data / VOCAB))
    record = train_lm(corpus, recipe.size, replace(recipe.train, output_dir=folder))
    store_rounded(folder / "best_model", folder / "rounded")
    pictures, book = load_pictures(data), PatchCodebook.load(data / CODEBOOK)
    left_out = ("history", "settings")
    metrics = {
        "model": name,
        "command": recipe.command,
        "images": recipe.images,
        "vocab_size": len(corpus.vocab),
        "rows": {split: len(rows) for split, rows in corpus.splits.items()},
        "data": {k: v for k, v in asdict(recipe.data).items() if k != "images_path"},
        "size": asdict(recipe.size),
        "settings": {k: v for k, v in record["settings"].items() if k != "output_dir"},
        "record": {key: value for key, value in record.items() if key not in left_out},
        **measure(folder / "rounded", corpus, pictures, book),
    }
    publish(folder, metrics, corpus, pictures)


def store_rounded(trained: Path, rounded: Path) -> None:
    """The trained model with its weights in fp16; `config.json` still has it computed in fp32.

    The tokenizer's files lose their indentation, a third of their size.
    """
    with atomic_dir(rounded) as aside:
        weights = load_file(trained / WEIGHTS)
        halves = {name: weight.half() for name, weight in weights.items()}
        save_file(halves, aside / WEIGHTS, {"format": "pt"})
        for name in TOKENIZER:
            text = json.dumps(read_json(trained / name), ensure_ascii=False, separators=(",", ":"))
            write_text(aside / name, text + "\n")
        for name in AS_IT_IS:
            shutil.copyfile(trained / name, aside / name)


def measure(directory: Path, corpus: Corpus, pictures: Pictures, book: PatchCodebook) -> dict:
    """The numbers of the card, on test unless they say val."""
    model = load_lm(directory)
    on_val = validation_metric(corpus).measure(model)
    values = evaluate_lm(model, corpus, "test")
    prompts, labels = corpus.to_classify("test")
    at_cls = class_probabilities(model, prompts, corpus.class_ids).argmax(1)
    classifier = train_digit_classifier(*pictures.of("train"))
    images, real_labels = pictures.of("test")
    codes = book.encode(images)
    decoded = book.decode(codes)
    measured = {
        "class_token": proportion(at_cls == labels).to_json(),
        "svm": proportion(classifier.predict(images) == real_labels).to_json(),
        "svm_decoded": proportion(classifier.predict(decoded) == real_labels).to_json(),
        "psnr": psnr(images, decoded),
    }
    asked = np.repeat(np.arange(len(corpus.class_ids)), N_EACH)
    settings = {"default": SampleConfig(**DRAWING, seed=SEED), "plain": SampleConfig(seed=SEED)}
    generated = {}
    for name, config in settings.items():
        drawn = book.decode(draw(model, corpus.vocab, asked.tolist(), book.n_patches, config))
        as_asked = proportion(classifier.predict(drawn) == asked)
        auc = real_vs_generated_auc(decoded[: len(drawn)], drawn)
        generated[name] = {"as_asked": as_asked.to_json(), "auc": auc.to_json()}
        print(f"{name}: {as_asked}, real-vs-generated AUC {auc}", flush=True)
    half = book.grid[1] * (book.grid[0] // 2)
    wanted = real_labels.tolist(), book.n_patches, settings["default"], codes[:, :half]
    completed = classifier.predict(book.decode(draw(model, corpus.vocab, *wanted))) == real_labels
    generated["completed"] = {"as_asked": proportion(completed).to_json()}
    return {
        "val": on_val, "values": values, "images_measured": measured, "generated": generated,
    }  # fmt: skip


def publish(folder: Path, metrics: Mapping, corpus: Corpus, pictures: Pictures) -> None:
    """Write models/NAME whole: weights, tokenizer, codebook, numbers and card.

    Where its images are not in the clone, some test images, too, and of what it has learned from
    only the originals, so that the folder stays small.
    """
    directory = MODELS / metrics["model"]
    with atomic_dir(directory, run=metrics["record"]["identity"]) as aside:
        shutil.copytree(folder / "rounded", aside, dirs_exist_ok=True)
        shutil.copyfile(folder / "data" / CODEBOOK, aside / CODEBOOK)
        learned = np.load(folder / "best_model" / LEARNED)
        if metrics["data"]["source"] == "mnist":
            rows = corpus.records("train", "read")
            original = np.array([row.meta["copy"] == 0 for row in rows])
            learned = np.unique(rows.column("codes")[original])
            images, labels = pictures.of("test")
            of_each = [np.flatnonzero(labels == k)[:N_SHOWN] for k in range(10)]
            some = np.stack(of_each, axis=1).ravel()  # 0, 1, 2 … 9, and again
            split = np.full(len(some), "test")
            shown = {"images": images[some], "labels": labels[some], "split": split}
            np.savez_compressed(aside / IMAGES, **shown)
        np.save(aside / LEARNED, learned)
        write_json(aside / METRICS, metrics)
        write_text(aside / CARD, card(read_json(aside / METRICS)))
    size = sum(path.stat().st_size for path in directory.iterdir())
    print(f"{directory}: {size / 1e6:.2f} MB")


def card(metrics: Mapping) -> str:
    """README.md of the model's directory, from its metrics.json alone."""
    rows = ", ".join(f"{n:,} {split}" for split, n in metrics["rows"].items())
    data = f"{rows} rows of codes, made from {metrics['images']}"
    record = metrics["record"] | {"settings": metrics["settings"]}
    text = model_card(record, metrics["values"], metrics["vocab_size"], data)
    own = OWN.format(
        command=metrics["command"],
        val=metrics["val"]["code_nll"],
        val_accuracy=metrics["val"]["class_accuracy"],
        table=images_table(metrics),
        model=metrics["model"],
    )
    text = text.replace("\n## How it was trained\n", f"\n{own}\n## How it was trained\n", 1)
    text = re.sub("; final_model is the model after step .*", ".", text)  # it is not here
    text = text.replace("are best_model's, the checkpoint", "are of the checkpoint")
    return text + (THEIRS if metrics["data"]["source"] == "mnist" else "")


def images_table(metrics: Mapping) -> str:
    """What the model makes of images, beside an SVM on the pixels of the same training images."""
    images, drawn = metrics["images_measured"], metrics["generated"]
    lines = [
        ("accuracy of the class token", images["class_token"]),
        ("accuracy of an RBF-SVM on pixels", images["svm"]),
        ("the same SVM on images decoded from their codes", images["svm_decoded"]),
        ("generated, default settings: classified as asked", drawn["default"]["as_asked"]),
        ("generated, temperature 1: classified as asked", drawn["plain"]["as_asked"]),
        ("lower half completed: classified as asked", drawn["completed"]["as_asked"]),
        ("real-vs-generated AUC, default settings", drawn["default"]["auc"]),
        ("real-vs-generated AUC, temperature 1", drawn["plain"]["auc"]),
    ]
    estimates = [(words, as_estimate(numbers)) for words, numbers in lines]
    cells = [(words, e.format_value(), e.format_interval(), f"{e.n:,}") for words, e in estimates]
    return markdown_table(("On test images", "Value", "95 % interval", "n"), cells, "lrrr")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--images_path", type=Path, help="nano28: folder of IDX files")
    parser.add_argument("--card", action="store_true", help="only write the card again")
    options = parser.parse_args()
    try:
        if options.card:
            directory = MODELS / options.name
            write_text(directory / CARD, card(read_json(directory / METRICS)))
        else:
            make_model(options.name, options.images_path)
    except SeqlmError as error:
        raise SystemExit(f"error: {error}") from error
