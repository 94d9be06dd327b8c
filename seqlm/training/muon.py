"""Muon on the matrices inside the blocks and AdamW on all other weights, as one optimizer.

AdamW scales each entry of a gradient by itself. Muon treats a matrix as a whole: with U S V^T the
singular value decomposition of its momentum, the update is U V^T, so that every direction is
learned at the same pace. A polynomial in the matrix, applied a few times (Newton-Schulz), comes
near U V^T by matrix products alone. Sources: K. Jordan et al., Muon: An optimizer for hidden layers
in neural networks (2024, kellerjordan.github.io/posts/muon); the scale of the update, which makes
one learning rate fit both optimizers: J. Liu et al., Muon is Scalable for LLM Training (2025,
arXiv 2502.16982). torch.optim.Muon does the same for one matrix at a time, without AdamW.
"""

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from accelerate.utils import parse_flag_from_env
from torch import nn
from transformers.pytorch_utils import Conv1D

from seqlm.config import TrainConfig
from seqlm.errors import ConfigError
from seqlm.training.timing import has_native_bf16

MOMENTUM = 0.95
STEPS = 4  # of Newton-Schulz; a fifth learned no better on our data (docs/experiments.md)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's: singular values end between 0.7 and 1.2
EPSILON = 1e-7


class MuonWithAdamW(torch.optim.AdamW):
    """One optimizer, so that schedule, clipping, checkpoints and resuming need nothing special.

    `groups` are those of `parameter_groups`: AdamW updates those with "parts" 0; in the others each
    weight counts as that many matrices side by side. `dtype` is the precision of Newton-Schulz, by
    default bf16 where the machine computes in it; the momentum keeps the weight's own.
    """

    def __init__(self, groups: list[dict], lr: float, dtype: torch.dtype | None = None):
        on_cpu = all(w.device.type == "cpu" for group in groups for w in group["params"])
        super().__init__(groups, lr=lr, fused=on_cpu)
        self.dtype = dtype or (torch.bfloat16 if has_native_bf16() else torch.float32)

    def __setstate__(self, state: dict) -> None:
        # AdamW's own looks for AdamW's moments in every group.
        torch.optim.Optimizer.__setstate__(self, state)

    def step(self, closure: Callable[[], float] | None = None):
        """Update all weights that have a gradient."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["parts"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        self._muon_step()
        return loss

    @torch.no_grad()
    def _muon_step(self) -> None:
        waiting = defaultdict(list)  # by shape, so that one batched product updates many matrices
        for group in self.param_groups:
            for weight in group["params"] if group["parts"] else ():
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                update = weight.grad.lerp(momentum, MOMENTUM).to(self.dtype)  # Nesterov: one ahead
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                for part, change in zip(
                    weight.chunk(group["parts"], 1), update.chunk(group["parts"], 1), strict=True
                ):
                    if part.shape[0] > part.shape[1]:
                        part, change = part.T, change.T  # the smaller square is the cheaper one
                    waiting[part.shape].append((part, change, group["lr"]))
        for (_, longer), entries in waiting.items():
            parts, changes, rates = zip(*entries, strict=True)
            updates = orthogonalize(torch.stack(changes))
            for part, update, rate in zip(parts, updates, rates, strict=True):
                part.sub_(update, alpha=rate * 0.2 * math.sqrt(longer))


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """`matrices` (N, R, C) with singular values near 1, in their own precision; R is at most C."""
    a, b, c = COEFFICIENTS
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)
    square = x @ x.mT  # (N, R, R)
    if x.shape[2] >= 2 * x.shape[1] and x.dtype == torch.float32:
        # Each step multiplies x by a polynomial in x x^T. With long rows it is cheaper to multiply
        # the polynomials, and x once in the end; bf16 is not precise enough for that.
        identity = total = torch.eye(x.shape[1], device=x.device)
        for _ in range(STEPS):
            polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c) + a * identity
            total, square = polynomial @ total, polynomial @ square @ polynomial
        return total @ x
    for step in range(STEPS):
        square = x @ x.mT if step else square
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The trainable weights of `model`, each in one group, with its "parts" and "weight_decay".

    Muon takes the matrices of linear layers (GPT-2's Conv1D among them), but none that reads or
    writes tokens or classes: embeddings and output layers go to AdamW, and so do layer norms,
    biases, an LSTM, and LoRA's matrices, which are two factors of one. Where queries, keys and
    values are one weight, they are three matrices. Only matrices are decayed.
    """
    linear = {
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and not {"lm_head", "score", "lora_A", "lora_B"} & set(name.split("."))
    }
    groups = defaultdict(list)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            parts = 0 if weight not in linear else 3 if "c_attn" in name else 1
            groups[parts, weight_decay if weight.ndim > 1 else 0.0].append(weight)
    return [
        {"params": weights, "parts": parts, "weight_decay": decay}
        for (parts, decay), weights in groups.items()
    ]


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of `config` for the trainable weights of `model`; ConfigError under FSDP."""
    groups = parameter_groups(model, config.weight_decay)
    if config.optimizer == "muon":
        if parse_flag_from_env("ACCELERATE_USE_FSDP"):
            raise ConfigError(
                "optimizer: muon needs whole matrices and FSDP splits them; use adamw"
            )
        return MuonWithAdamW(groups, config.learning_rate)
    return torch.optim.AdamW(groups, config.learning_rate, fused=True)
