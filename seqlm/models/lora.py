"""LoRA: train small matrices beside the frozen weights of a model.

Beside each weight W (in, out) stand A (r, in) and B (out, r), and x is mapped to
x W + (alpha / r) x A^T B^T. B starts at zero, so the model starts unchanged. Saving adds the
product to W: an ordinary model that does not need LoRA. Source: E. Hu et al., LoRA: Low-Rank
Adaptation of Large Language Models, ICLR 2022. peft does the mathematics.
"""

import copy
import warnings
from pathlib import Path

from huggingface_hub import ModelCardData
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from seqlm.models.gpt2 import build_seeded, is_classifier
from seqlm.utils import fill_template, write_text

ADAPTER = "adapter"


class LoraModel(PeftModel):
    """A model under LoRA that saves itself merged; Trainer's checkpoints hold the adapter alone."""

    def save_pretrained(self, save_directory, **kwargs):
        """Write the merged model, and the adapter into a folder of its own there, with a README.

        With further arguments, as from Trainer, the adapter alone.
        """
        if kwargs:
            # The embedding's new rows are in the adapter; the others did not change.
            super().save_pretrained(save_directory, **kwargs, save_embedding_layers=False)
            return
        # A copy: the product of A and B is added to each W, and training may go on without it.
        copy.deepcopy(self).merge_and_unload().save_pretrained(save_directory)
        # Beside the weights its configuration would make the folder an adapter to transformers.
        folder = Path(save_directory) / ADAPTER
        super().save_pretrained(folder, save_embedding_layers=False)
        write_text(folder / "README.md", _adapter_card(self))


def add_lora(
    model: PreTrainedModel, rank: int, alpha: float, first_new: int, directory: Path, seed: int
) -> LoraModel:
    """Freeze the weights of `model` and put LoRA of `rank` beside each matrix of its blocks.

    Tokens from id `first_new` up are new and learn their own rows of the embedding; a classifier's
    head learns, too, and the adapter holds it whole. `directory` is where the model came from; the
    adapter keeps its last name. B starts at zero and A at random from `seed`.

    `model` itself changes: use only the result. Raises ValueError (of peft) for a rank below 1.
    """
    new = list(range(first_new, model.config.vocab_size))
    tied = model.config.tie_word_embeddings or model.get_output_embeddings() is None
    layers = ["wte"] if tied else ["wte", "lm_head"]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=["c_attn", "c_proj", "c_fc"],  # every matrix of a block
        fan_in_fan_out=True,  # GPT-2 holds its matrices as (in, out)
        modules_to_save=["score"] if is_classifier(model) else None,
        trainable_token_indices=dict.fromkeys(layers, new) if new else None,
        base_model_name_or_path=Path(directory).resolve().name,
    )
    # peft calls transformers by an older name.
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return build_seeded(lambda: LoraModel(model, config), seed)


def _adapter_card(model: LoraModel) -> str:
    adapter, base = model.peft_config["default"], model.get_base_model()
    classifies = is_classifier(base)
    return fill_template(
        "models/adapter_card.md",
        card_data=ModelCardData(library_name="peft", tags=["lora", "gpt2", "seqlm"]).to_yaml(),
        adapter=adapter,
        base=adapter.base_model_name_or_path,
        kind=f"AutoModelFor{'SequenceClassification' if classifies else 'CausalLM'}",
        classes=base.config.num_labels if classifies else 0,
        grows=bool(adapter.trainable_token_indices),
        vocab_size=base.config.vocab_size,
    )
