"""nonapproximate: one score a key, u_j = Σ_c SiLU(q_jc)·k_jc / √dh, and A_ij = e^{u_j} / Σ_{m≤i} e^{u_m} (SPEC §3).

Relaxes "mathematical form" to a linear-time average: the weights of a query differ from those of another only in
how far they reach. Query and key stand at the same position, so RoPE cancels and is not applied. With `qk_norm` the
head norms come first, then SiLU. Scores beyond 10³ do occur: every exponential below is taken of a difference to
the running maximum, hence at most 1.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from deconattn.mixers._contract import QKVMixer, future

CHUNK = 32


class NonApproximate(QKVMixer):
    """A running softmax-weighted mean of the values, one weight a key."""

    rotary: ClassVar[bool] = False

    def attention_map_of(self, q: Tensor, k: Tensor) -> Tensor:
        u = key_scores(q, k)
        s = u.unsqueeze(-2).expand(*u.shape, u.shape[-1])
        return s.masked_fill(future(u.shape[-1], u.device), -torch.inf).softmax(-1)

    def raw_scores(self, source: Tensor) -> Tensor:
        return key_scores(*self.queries_keys(source))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        wide = torch.float64 if v.dtype == torch.float64 else torch.float32
        u = key_scores(q.to(wide), k.to(wide))
        # The denominator is the numerator of a value that is 1 everywhere.
        values = F.pad(v.to(wide), (0, 1), value=1.0)
        with torch.autocast(v.device.type, enabled=False):
            numerator = running_sums(u, values)[1]
        return (numerator[..., :-1] / numerator[..., -1:]).to(v.dtype)


def key_scores(q: Tensor, k: Tensor) -> Tensor:
    """u (B, heads, L) of q, k (B, heads, L, head_dim)."""
    return (F.silu(q) * k).sum(-1) / q.shape[-1] ** 0.5


def running_sums(u: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Running maximum m_i = max_{j≤i} u_j and N_i = Σ_{j≤i} e^{u_j − m_i}·values_j, in time linear in L.

    Shapes: u and m (B, heads, L), values and N (B, heads, L, D).

    Chunks of `CHUNK` positions are summed explicitly; the sums of whole chunks are again a sequence with scores
    (the chunks' maxima) and values (the chunks' sums), so the same function, called on a sequence `CHUNK` times
    shorter, carries them forward. The maximum is a constant in backward: it scales numerator and denominator alike,
    and their ratio does not depend on it.
    """
    length = u.shape[-1]
    running_max = u.detach().cummax(-1).values
    if length <= CHUNK:
        weights = torch.exp(
            (u.unsqueeze(-2) - running_max.unsqueeze(-1)).masked_fill(future(length, u.device), -torch.inf)
        )
        return running_max, weights @ values
    padding = -length % CHUNK
    if padding:  # padded keys weigh e^{-inf} = 0, and nothing comes after them
        u = F.pad(u, (0, padding), value=-torch.inf)
        values = F.pad(values, (0, 0, 0, padding))
        running_max = F.pad(running_max, (0, padding), mode="replicate")
    u, values = u.unflatten(-1, (-1, CHUNK)), values.unflatten(-2, (-1, CHUNK))
    limit = running_max.unflatten(-1, (-1, CHUNK))
    weights = torch.exp((u.unsqueeze(-2) - limit.unsqueeze(-1)).masked_fill(future(CHUNK, u.device), -torch.inf))
    within = weights @ values

    chunk_max = u.detach().amax(-1)
    chunk_sum = (torch.exp(u - chunk_max.unsqueeze(-1)).unsqueeze(-2) @ values).squeeze(-2)
    before_max, before_sum = running_sums(chunk_max[..., :-1], chunk_sum[..., :-1, :])
    carried = torch.exp(before_max.unsqueeze(-1) - limit[..., 1:, :]).unsqueeze(-1) * before_sum.unsqueeze(-2)
    numerator = torch.cat([within[..., :1, :, :], within[..., 1:, :, :] + carried], dim=-3)
    return running_max[..., :length], numerator.flatten(-3, -2)[..., :length, :]
