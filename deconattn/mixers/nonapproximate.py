"""nonapproximate: one score a key, u_j = Σ_c SiLU(q_jc)·k_jc / √dh, and A_ij = e^{u_j} / Σ_{m≤i} e^{u_m} (docs/method.md).

Relaxes "mathematical form" to a linear-time average: the weights of a query differ from those of another only in
how far they reach. Query and key stand at the same position, so RoPE cancels and is not applied. With `qk_norm` the
head norms come first, then SiLU. Scores beyond 10³ do occur: every exponential below is taken of a difference to
the running maximum, hence at most 1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from deconattn.config import ModelConfig
from deconattn.layers import widened, without_autocast
from deconattn.mixers.base import QKVMixer, future, with_one
from deconattn.mixers.cache import CacheLengths, State
from deconattn.mixers.formulas import FLOAT, Flops, projection_flops

CHUNK = 8  # positions that are summed as a product


class NonApproximate(QKVMixer):
    """A running softmax-weighted mean of the values, one weight a key."""

    rotary: ClassVar[bool] = False

    def attention_map_of(self, q: Tensor, k: Tensor) -> Tensor:
        u = key_scores(q, k)
        s = u.unsqueeze(-2).expand(*u.shape, u.shape[-1])
        return s.masked_fill(future(u.shape[-1], u.device), -torch.inf).softmax(-1)

    def raw_scores(self, source: Tensor) -> Tensor:
        q, k = self.queries_keys(source)
        return key_scores(q, self.repeat(k))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with without_autocast(v.device):
            return RunningMean.apply(q, self.repeat(k), self.repeat(v))

    def mix_step(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, past: CacheLengths, counts: Tensor | None
    ) -> Tensor:
        """The state is one key and value that stand for the past: the maximum (B, heads, 1), the sums (B, heads, 1, dh + 1)."""
        u, values, count = key_scores(q, self.repeat(k)), with_one(self.repeat(v)), v.shape[2]
        if counts is not None:
            u = u.masked_fill(torch.arange(count, device=u.device) >= counts[:, None, None], -torch.inf)
        if state.tensors and count == 1:  # the same as below in few operations
            before = state.tensors["maximum"]
            maximum = torch.maximum(before, u)
            kept, new = torch.exp(before - maximum).unsqueeze(-1), torch.exp(u - maximum).unsqueeze(-1)
            sums = torch.addcmul(new * values, kept, state.tensors["sums"])
        else:
            if state.tensors:
                u = torch.cat([state.tensors["maximum"], u], dim=-1)
                values = torch.cat([state.tensors["sums"], values], dim=-2)
            maximum, sums = running_sums(u, values)
        state.tensors = {"maximum": maximum[..., -1:].clone(), "sums": sums[..., -1:, :].clone()}
        return mean(sums)[..., -count:, :].to(v.dtype)


def key_scores(q: Tensor, k: Tensor) -> Tensor:
    """u (B, heads, L) in at least float32, of q, k (B, heads, L, head_dim)."""
    return (F.silu(widened(q)) * widened(k)).sum(-1) * q.shape[-1] ** -0.5


def mean(sums: Tensor) -> Tensor:
    """Σ e^u v / Σ e^u (…, D) of the sums (…, D + 1) of e^u·[v, 1]."""
    return sums[..., :-1] / sums[..., -1:]


class RunningMean(torch.autograd.Function):
    """o_i = Σ_{j≤i} e^{u_j} v_j / Σ_{j≤i} e^{u_j} of q, k, v (B, heads, L, dh), in time linear in L, both ways.

    With g_i = ∂/∂o_i / Σ_{m≤i} e^{u_m} and G_j = Σ_{i≥j} g_i, the gradients are again sums from the other end:
    ∂/∂v_j = e^{u_j} G_j and ∂/∂u_j = e^{u_j} Σ_{i≥j} g_i·(v_j − o_i). The latter as a difference of two sums loses all digits
    where one key has nearly all weight and every o_i is nearly its v_j. So it is taken from how far each key moves the mean,
    o_j − o_{j−1} = p_j·(v_j − o_{j−1}), where p_j is the weight of key j in o_j: with c_j = G_j·(v_j − o_{j−1}) the sum is
    (1 − p_j)·c_j − Σ_{m>j} p_m·c_m.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        u = key_scores(q, k)
        maximum, sums = running_sums(u, with_one(v))
        out = mean(sums).to(v.dtype)
        ctx.save_for_backward(q, k, v, u, maximum, sums[..., -1].clone(), out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, u, maximum, total, out = ctx.saved_tensors
        weight = torch.exp(u - maximum)
        # What a sum over the past is worth one position on: e^{max_{j−1} − max_j}. Before position 0 there is nothing.
        decay = torch.exp(F.pad(maximum[..., :-1], (1, 0), value=-torch.inf) - maximum)
        rest = decay * F.pad(total[..., :-1], (1, 0)) / total  # 1 − p, to the last bit where p is nearly 1
        moved = decay * weight / total  # p, seen from the position before
        # The maximum only grows with i, so that seen from the end −max_i is its own running maximum.
        after = scan(-maximum, -maximum, widened(grad) / total.unsqueeze(-1), reverse=True)
        c = (after * (widened(v) - F.pad(widened(out[..., :-1, :]), (0, 0, 1, 0)))).sum(-1)
        later = F.pad((moved * c)[..., 1:], (0, 1)).unsqueeze(-1)
        later = scan(-maximum, -maximum, later, reverse=True).squeeze(-1)
        of_u = (weight * (rest * c - later) * q.shape[-1] ** -0.5).unsqueeze(-1)
        gate = torch.sigmoid(widened(q))
        silu = widened(q) * gate
        slope = gate + silu * (1 - gate)  # SiLU′
        of_v = after.mul_(weight.unsqueeze(-1))
        return (slope * widened(k) * of_u).to(q.dtype), (silu * of_u).to(k.dtype), of_v.to(v.dtype)


def running_sums(u: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """m_i = max_{j≤i} u_j (…, L) and Σ_{j≤i} e^{u_j − m_i}·values_j (…, L, D)."""
    maximum = u.cummax(-1).values
    return maximum, scan(u, maximum, values)


def scan(u: Tensor, limit: Tensor, values: Tensor, reverse: bool = False) -> Tensor:
    """Σ_{j≤i} e^{u_j − m_i}·values_j (…, L, D), m the `limit` (…, L), at least the running maximum of u and growing with i.

    In `reverse` sums run over j ≥ i, the maximum from the end. Chunks of `CHUNK` positions are summed explicitly. The sums of
    whole chunks are again a sequence, with the limits at the chunks' ends for scores: the same function, called on a sequence
    `CHUNK` times shorter, carries them forward.
    """
    length = u.shape[-1]
    if length <= CHUNK:
        return _explicit(u, limit, reverse) @ values
    padding = -length % CHUNK
    if padding:  # padded keys weigh e^{-inf} = 0
        u, limit = F.pad(u, (0, padding), value=-torch.inf), F.pad(limit, (0, padding), mode="replicate")
        values = F.pad(values, (0, 0, 0, padding))
    u, limit, values = u.unflatten(-1, (-1, CHUNK)), limit.unflatten(-1, (-1, CHUNK)), values.unflatten(-2, (-1, CHUNK))
    sums = _explicit(u, limit, reverse) @ values
    # Whole chunks, under the limit at their end (their beginning, in reverse), are carried into the chunks behind them.
    last = 0 if reverse else -1
    sending, receiving = (slice(1, None), slice(None, -1)) if reverse else (slice(None, -1), slice(1, None))
    ends = limit[..., sending, last]
    carried = scan(ends, ends, sums[..., sending, last, :], reverse).unsqueeze(-2)
    kept = torch.exp(ends.unsqueeze(-1) - limit[..., receiving, :]).unsqueeze(-1)
    sums[..., receiving, :, :].addcmul_(kept, carried)
    return sums.flatten(-3, -2)[..., :length, :]


def _explicit(u: Tensor, limit: Tensor, reverse: bool) -> Tensor:
    exponent = u.unsqueeze(-2) - limit.unsqueeze(-1)
    masked = torch.full(exponent.shape[-2:], -torch.inf, dtype=u.dtype, device=u.device)
    # Added, as filling by a mask takes several times as long.
    return exponent.add_(masked.tril_(-1) if reverse else masked.triu_(1)).exp_()


def flops(config: ModelConfig, batch: int, length: int) -> Flops:
    """The sums over positions are element-wise, 4·d a token, and no matrix product; what is executed are those of the scan."""
    tokens, numbers = batch * length, batch * config.num_attention_heads * (config.head_dim + 1)
    projections = projection_flops(config, tokens, tokens)
    return Flops(
        prefill_square=projections,
        prefill_causal=projections,
        prefill=projections + 2 * numbers * scan_products(length),
        decode=projection_flops(config, batch, batch),
    )


def scan_products(length: int) -> int:
    """Products that `scan` takes for one number a position, over all its levels."""
    if length <= CHUNK:
        return length * length
    chunks = -(-length // CHUNK)
    return chunks * CHUNK * CHUNK + scan_products(chunks - 1)


def state_bytes(config: ModelConfig, batch: int, length: int, itemsize: int) -> int:
    """A maximum and a sum of [v, 1] for each head, in float32 whatever the model's precision."""
    return batch * config.num_attention_heads * (config.head_dim + 2) * max(itemsize, FLOAT)
