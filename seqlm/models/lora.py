"""LoRA: the weights of a trained model stand still, and small matrices beside them learn.

Beside each weight W (in, out) stand A (r, in) and B (out, r), and x is mapped to
x W + (alpha / r) x A^T B^T. B starts at nought, so the model starts as it was. What is saved is W
with the product added: an ordinary model that knows nothing of LoRA. Source: E. Hu et al., LoRA:
Low-Rank Adaptation of Large Language Models, ICLR 2022. The mathematics is peft's; here is what
makes it fit training.py.
"""

import copy
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from seqlm.models.gpt2 import build_seeded
from seqlm.models.resize import is_classifier
from seqlm.utils import write_text

WEIGHTS = "adapter_model.safetensors"
ADAPTER = "adapter"
_LINEAR = ["c_attn", "c_proj", "c_fc"]  # every matrix of a block


class Adapted(PeftModel):
    """A model under LoRA that saves itself merged; Trainer's checkpoints hold the adapter alone."""

    def save_pretrained(self, save_directory, **kwargs):
        """Write the merged model; or, told more, as Trainer does for a checkpoint, the adapter."""
        if kwargs:
            # The embedding's new rows are in the adapter as they are; the others did not change.
            super().save_pretrained(save_directory, **kwargs, save_embedding_layers=False)
            return
        merge_lora(self).save_pretrained(save_directory)
        # Without its configuration beside it, so that transformers does not take the folder for
        # an adapter; `keep_adapter` gives it one in a folder of its own.
        with TemporaryDirectory(dir=save_directory) as aside:
            super().save_pretrained(aside, save_embedding_layers=False)
            (Path(aside) / WEIGHTS).replace(Path(save_directory) / WEIGHTS)


def add_lora(
    model: PreTrainedModel, rank: int, alpha: float, first_new: int, directory: Path, seed: int
) -> Adapted:
    """`model` with every weight frozen, and LoRA of `rank` beside each matrix of its blocks.

    Tokens from id `first_new` up are new and learn their own rows of the embedding; so does a
    classifier's head, which the adapter then holds whole. `directory` is where the model came from;
    of it the adapter keeps the last name alone. B starts at nought and A at random from `seed`.

    Returns the model under LoRA, which computes what `model` does; `model` itself is changed by
    that and is not to be used any more. Raises ValueError (of peft) for a rank below 1.
    """
    new = list(range(first_new, model.config.vocab_size))
    tied = model.config.tie_word_embeddings or model.get_output_embeddings() is None
    layers = ["wte"] if tied else ["wte", "lm_head"]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=_LINEAR,
        fan_in_fan_out=True,  # GPT-2 holds its matrices as (in, out)
        modules_to_save=["score"] if is_classifier(model) else None,
        trainable_token_indices=dict.fromkeys(layers, new) if new else None,
        base_model_name_or_path=Path(directory).resolve().name,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an older name
        return build_seeded(lambda: Adapted(model, config), seed)


def merge_lora(model: Adapted) -> PreTrainedModel:
    """An ordinary model that does what `model` does, of the class and shapes as before `adapt`.

    Its weights are copies, with the product of A and B added to each W, and the new rows put into
    the embedding; answers are the same up to rounding. `model` itself stays under LoRA.
    """
    return copy.deepcopy(model).merge_and_unload()


def save_adapter(model: Adapted, directory: Path) -> int:
    """Give the adapter saved in a model `directory` its own folder there, and say how to load it.

    Returns the bytes of the folder.
    """
    folder = Path(directory) / ADAPTER
    folder.mkdir(exist_ok=True)
    loose = Path(directory) / WEIGHTS
    if loose.is_file():
        loose.replace(folder / WEIGHTS)
    config = copy.copy(model.peft_config["default"])
    config.inference_mode = True
    config.save_pretrained(str(folder))
    write_text(folder / "README.md", _how_to_load(model))
    return sum(path.stat().st_size for path in folder.iterdir())


def _how_to_load(model: Adapted) -> str:
    """README.md of an adapter: the lines that put it upon the model that it belongs to."""
    config, size = model.peft_config["default"], model.get_base_model().config
    start, new = config.base_model_name_or_path, config.trainable_token_indices
    kind, more = "AutoModelForCausalLM", ""
    if is_classifier(model.get_base_model()):
        kind = "AutoModelForSequenceClassification"
        more = f", num_labels={size.num_labels}, ignore_mismatched_sizes=True"
    lines = [
        "from peft import PeftModel",
        f"from transformers import {kind}",
        "",
        f'model = {kind}.from_pretrained("{start}"{more})',
        'model = PeftModel.from_pretrained(model, "adapter")',
    ]
    told = f"It belongs upon the model that was fine-tuned, `{start}`, and is loaded with peft:"
    if new:
        lines.insert(-1, f"model.resize_token_embeddings({size.vocab_size})")
        told += (
            " Tokens were appended to the vocabulary, so the embedding must grow before the "
            "adapter is put upon it; the adapter then fills in their rows."
        )
    code = "\n".join(lines)
    return (
        f"# A LoRA adapter of rank {config.r}\n\n{told}\n\n```python\n{code}\n```\n\nBoth names "
        "stand for folders; put in where yours are. The folder above holds the same model with the "
        "adapter added in, which needs none of this.\n"
    )
