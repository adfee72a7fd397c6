"""approximate: A_ij = w_ij / Σ_{m≤i} w_im with w = 1 + s + s²/2, the second-order Taylor form of exp(s) (Eq. 6; SPEC §3).

Relaxes "mathematical form". w = ((1 + s)² + 1) / 2 ≥ 1/2 always, so the normaliser needs no ε.
Reading: the three orders are normalised jointly, as Based does (Arora et al., 2024).
"""

from __future__ import annotations

import torch
from torch import Tensor

from deconattn.mixers._contract import QKVMixer, future, scores

BLOCK = 128
WHOLE_UP_TO = 512  # below this length the whole L × L map is faster than the block-wise form


def taylor_weights(s: Tensor) -> Tensor:
    """w = 1 + s + s²/2."""
    return 1 + s * (1 + 0.5 * s)


class Approximate(QKVMixer):
    """Taylor attention: softmax's exponential replaced by its second-order expansion."""

    def attention_map_of(self, q: Tensor, k: Tensor) -> Tensor:
        w = taylor_weights(scores(q, k)).masked_fill(future(q.shape[2], q.device), 0.0)
        return w / w.sum(-1, keepdim=True)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length = q.shape[2]
        block = length if length <= WHOLE_UP_TO else BLOCK
        rows = []
        for start in range(0, length, block):
            end = min(start + block, length)
            # The causal half is never computed beyond the block on the diagonal.
            s = scores(q[:, :, start:end], k[:, :, :end])
            wide = s.float() if s.dtype == torch.bfloat16 else s
            w = taylor_weights(wide).masked_fill(future(end, q.device)[start:end], 0.0)
            total = w.sum(-1, keepdim=True)
            rows.append((w / total).to(v.dtype) @ v[:, :, :end])
        return torch.cat(rows, dim=2)
