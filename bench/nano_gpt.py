"""A training step as nanoGPT's README and code describe it, in our own words.

Source: A. Karpathy, nanoGPT, github.com/karpathy/nanoGPT: pre-norm blocks with one matrix for
query, key and value, fused causal attention, exact GELU, input and output embeddings shared; AdamW
with weight decay on matrices only, gradients clipped at 1, dropout 0, batches cut from one long
array of ids. Its defaults for a processor: no torch.compile.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Attention, then a perceptron; each adds to the residual stream what it computes."""

    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.n_head = n_head
        self.norm_1, self.norm_2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.qkv, self.out = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.up, self.down = nn.Linear(n_embd, 4 * n_embd), nn.Linear(4 * n_embd, n_embd)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n_rows, length, n_embd = x.shape
        heads = (n_rows, length, self.n_head, n_embd // self.n_head)
        qkv = self.qkv(self.norm_1(x)).split(n_embd, dim=-1)
        q, k, v = (part.view(heads).transpose(1, 2) for part in qkv)  # (B, heads, T, width)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n_rows, length, n_embd))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class NanoGPT(nn.Module):
    """Token and position embeddings, blocks, and the token embedding once more as output."""

    def __init__(self, vocab_size: int, n_positions: int, n_layer: int, n_head: int, n_embd: int):
        super().__init__()
        self.tokens, self.positions = (
            nn.Embedding(rows, n_embd) for rows in (vocab_size, n_positions)
        )
        self.blocks = nn.ModuleList(Block(n_embd, n_head) for _ in range(n_layer))
        self.norm = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * n_layer) ** (0.5 * residual))
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss of `targets` (B, T), the tokens after `ids` (B, T)."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


def train(turns, shape: dict, data: np.ndarray, batch_size: int, length: int, dtype) -> None:
    """Train without an end; `data` (N,) are the ids of all rows one after another."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = NanoGPT(**shape).to(device).train()
    kinds = [[w for w in model.parameters() if (w.ndim >= 2) == matrix] for matrix in (True, False)]
    groups = [{"params": kinds[0], "weight_decay": 0.1}, {"params": kinds[1], "weight_decay": 0.0}]
    fused = device == "cuda"  # as nanoGPT has it
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=fused)
    rng = np.random.default_rng(0)
    while True:
        starts = rng.integers(len(data) - length, size=batch_size)
        x = torch.stack([torch.from_numpy(data[i : i + length]) for i in starts])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + length]) for i in starts])
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = model(x.to(device), y.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        turns.step_done(batch_size * length)
