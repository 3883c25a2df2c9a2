"""A small DeepSeek-style mixture-of-experts language model that counts the tokens of every expert.

Routing follows DeepSeek-V3: sigmoid scores, group-limited top-k (a group's score is the sum of its two best experts), a
per-expert bias that enters the selection only, moved by a constant step against the load (auxiliary-loss-free
balancing), one shared expert.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from eplb_gap.experiments.loads.moe_trace.config import ModelConfig


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(_rotate(q), _rotate(k), v, is_causal=True)
        return self.out(attended.transpose(1, 2).reshape(batch, length, width))


def _rotate(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * frequencies
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()), dim=-1)


class SwiGLU(nn.Module):
    """Gated feed-forward block; the dense layer and the shared experts."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * value)


class MixtureOfExperts(nn.Module):
    """Routed experts plus one shared expert.

    After a forward pass ``counts`` holds the tokens sent to every logical expert, int64 [experts].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden, experts = config.width, config.expert_hidden, config.experts
        # A direction shared by the experts of a group gives the groups loads of their own, which the hierarchical
        # policy needs; an untrained router without it would load all groups alike.
        own = torch.randn(experts, width)
        shared = torch.randn(config.groups, width).repeat_interleave(experts // config.groups, dim=0)
        mix = math.sqrt(config.router_group_share) * shared + math.sqrt(1 - config.router_group_share) * own
        self.router = nn.Parameter(mix / math.sqrt(width))
        self.up = nn.Parameter(torch.randn(experts, width, 2 * hidden) / math.sqrt(width))
        self.down = nn.Parameter(torch.randn(experts, hidden, width) / math.sqrt(hidden))
        self.shared = SwiGLU(width, config.shared_hidden)
        self.register_buffer("bias", torch.zeros(experts))
        self.counts = torch.zeros(experts, dtype=torch.int64)
        self.chosen = torch.zeros(0, config.top_experts, dtype=torch.int64)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the chosen experts, int64 [tokens, top_experts], and their normalised weights."""
        config = self.config
        scores = torch.sigmoid(x @ self.router.T)
        biased = (scores + self.bias).detach()
        grouped = biased.view(-1, config.groups, config.experts // config.groups)
        group_score = grouped.topk(2, dim=-1).values.sum(dim=-1)
        best_groups = group_score.topk(config.top_groups, dim=-1).indices
        allowed = torch.zeros_like(group_score, dtype=torch.bool).scatter_(1, best_groups, True)
        masked = grouped.masked_fill(~allowed[..., None], -math.inf).flatten(1)
        chosen = masked.topk(config.top_experts, dim=-1).indices
        weights = scores.gather(1, chosen)
        return chosen, weights / weights.sum(dim=-1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        chosen, weights = self.route(tokens)
        self.chosen = chosen
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        self.counts = torch.bincount(flat, minlength=self.config.experts)
        offsets = self.counts.cumsum(0).to(torch.int32)
        source = order // self.config.top_experts
        gate, value = functional.grouped_mm(tokens[source], self.up, offs=offsets).chunk(2, dim=-1)
        routed = functional.grouped_mm((functional.silu(gate) * value).contiguous(), self.down, offs=offsets)
        routed = routed * weights.flatten()[order, None]
        combined = torch.zeros_like(tokens).index_add(0, source, routed)
        return (combined + self.shared(tokens)).view_as(x)

    def balance(self, step: float) -> None:
        """Move the selection bias by ``step`` against the load of the last forward pass."""
        load = self.counts.to(self.bias.dtype)
        self.bias += step * torch.sign(load.mean() - load)


class Block(nn.Module):
    """Attention and a feed-forward part, both on normalised input."""

    def __init__(self, config: ModelConfig, feed_forward: nn.Module) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width)
        self.attention = Attention(config)
        self.norm = nn.RMSNorm(config.width)
        self.feed_forward = feed_forward

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.norm(x))


class LanguageModel(nn.Module):
    """Decoder-only language model: dense layers first, then mixture-of-experts layers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        dense = [Block(config, SwiGLU(config.width, config.dense_hidden)) for _ in range(config.dense_layers)]
        self.mixtures = [MixtureOfExperts(config) for _ in range(config.moe_layers)]
        self.blocks = nn.ModuleList(dense + [Block(config, mixture) for mixture in self.mixtures])
        self.norm = nn.RMSNorm(config.width)

    def features(self, tokens: Tensor) -> Tensor:
        """Run all layers, [batch, length] -> [batch, length, width]; fills every mixture's ``counts``."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean next-token cross-entropy in nats; input and output embeddings are tied."""
        logits = self.features(tokens[:, :-1]) @ self.embedding.weight.T
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    def loads(self) -> Tensor:
        """Tokens per expert of the last forward pass, int64 [moe_layers, experts]."""
        return torch.stack([mixture.counts for mixture in self.mixtures])

    def routing(self) -> Tensor:
        """Experts of every token in the last forward pass, int64 [tokens, moe_layers, top_experts], ascending."""
        return torch.stack([mixture.chosen.sort(dim=-1).values for mixture in self.mixtures], dim=1)
