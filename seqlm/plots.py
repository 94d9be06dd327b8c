"""One function a figure: data in, a matplotlib Figure out; no file is written, nothing is shown.

Every figure carries `.alt`, a few sentences worked out from the data, for readers who do not see
it: what is shown, how many cases it rests on, what stands out.
"""

from seqlm.plots_attention import attention_heads
from seqlm.plots_classes import (
    class_probabilities,
    confusion_matrix,
    dots_by_class,
    next_token_bars,
)
from seqlm.plots_drawings import diversity_curves, neighbour_distances
from seqlm.plots_finetune import gained_and_lost, while_finetuning
from seqlm.plots_insight import code_by_code, traced_choices
from seqlm.plots_lab import comparison_ladder, reliability_diagram
from seqlm.plots_ladder import floors_ladder
from seqlm.plots_learning import learning_curves, recipes
from seqlm.plots_pictures import (
    augmented_copies,
    code_frequencies,
    codebook_patches,
    completions,
    drawings,
    encoding_steps,
    picture_grid,
)
from seqlm.plots_ruler import closing_gap, reported_against_true
from seqlm.plots_summary import performance_summary
from seqlm.plots_training import nll_by_position, training_process

__all__ = [
    "attention_heads",
    "augmented_copies",
    "class_probabilities",
    "closing_gap",
    "code_by_code",
    "code_frequencies",
    "codebook_patches",
    "comparison_ladder",
    "completions",
    "confusion_matrix",
    "diversity_curves",
    "dots_by_class",
    "drawings",
    "encoding_steps",
    "floors_ladder",
    "gained_and_lost",
    "learning_curves",
    "neighbour_distances",
    "next_token_bars",
    "nll_by_position",
    "performance_summary",
    "picture_grid",
    "recipes",
    "reliability_diagram",
    "reported_against_true",
    "traced_choices",
    "training_process",
    "while_finetuning",
]
