"""Initial weights that already look back: without them two cores wait very long for look-ups to emerge.

The first layer begins with heads that attend 1, 2, 3 and 4 tokens back and write what stands there into
the residual stream. In the second layer, group ``j`` begins as a matching head: it attends to tokens whose
predecessor at distance ``j + 1`` equals the present token's predecessor at distance ``j``, and copies them.
All other weights are small and random; training is free to change everything.
"""

import torch
from transformers import LlamaForCausalLM

CONSTANT = 0
"""Residual dimension that has the same value in every embedding, so that heads can attend by position alone."""


def _subspaces(count: int, size: int, width: int) -> torch.Tensor:
    """Draw orthonormal bases (count, size, width) of subspaces that share nothing, nor the constant dimension."""
    basis = torch.linalg.qr(torch.randn(width - 1, count * size)).Q.T
    return torch.cat([torch.zeros(count * size, 1), basis], dim=1).reshape(count, size, width)


@torch.no_grad()
def look_back(model: LlamaForCausalLM, reach: int = 4) -> None:
    """Write the heads described above into a freshly built model, for distances up to ``reach`` key-value groups."""
    config = model.config
    size, per_group = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    half = size // 2
    theta = config.rope_parameters["rope_theta"]
    frequency = theta ** (-torch.arange(half) / half)
    fast, slow = torch.arange(4), torch.arange(9, half)
    content = torch.cat([slow, slow + half])  # dimensions that hardly turn within the context
    model.model.embed_tokens.weight[:, CONSTANT] = 8 * config.initializer_range
    first, second = (layer.self_attn for layer in model.model.layers[:2])
    token, *written = _subspaces(reach + 1, size, config.hidden_size)

    def rows(head: int) -> slice:
        return slice(head * size, (head + 1) * size)

    for head in range(reach):
        group, distance = head // per_group, head + 1
        query, key = torch.zeros(2, size, config.hidden_size)
        query[fast, CONSTANT] = 0.93 * torch.cos(frequency[fast] * distance)
        query[fast + half, CONSTANT] = -0.93 * torch.sin(frequency[fast] * distance)
        key[fast, CONSTANT] = 0.93
        first.q_proj.weight[rows(head)] = query
        first.k_proj.weight[rows(group)] = key
        first.v_proj.weight[rows(group)] = token
        first.o_proj.weight[:, rows(head)] = 0.1 * written[head].T
    for group in range(min(reach, config.num_key_value_heads)):
        head = group * per_group
        seen = 3.2 * token if group == 0 else 2.0 * written[group - 1]
        query, key = torch.zeros(2, size, config.hidden_size)
        query[content] = seen[: len(content)]
        key[content] = (3.2 if group == 0 else 2.0) * written[group][: len(content)]
        second.q_proj.weight[rows(head)] = query
        second.k_proj.weight[rows(group)] = key
        second.v_proj.weight[rows(group)] = token
        second.o_proj.weight[:, rows(head)] = 0.6 * token.T
