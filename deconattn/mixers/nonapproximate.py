"""nonapproximate: one score a key, u_j = Σ_c SiLU(q_jc)·k_jc / √dh, and A_ij = e^{u_j} / Σ_{m≤i} e^{u_m} (SPEC §3).

Relaxes "mathematical form" to a linear-time average: the weights of a query differ from those of another only in
how far they reach. Query and key stand at the same position, so RoPE cancels and is not applied. With `qk_norm` the
head norms come first, then SiLU. Scores beyond 10³ do occur: every exponential below is taken of a difference to
the running maximum, hence at most 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from deconattn.mixers._contract import QKVMixer, future, widened, without_autocast
from deconattn.mixers._costs import Costs
from deconattn.mixers._states import Seen, State

if TYPE_CHECKING:
    from deconattn.model import ModelConfig

CHUNK = 32


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
        u, wide = key_scores(q, k), widened(v)
        with without_autocast(v.device):
            return RunningMean.apply(u, wide).to(v.dtype)

    def new_state(self) -> State:
        return State()

    def fill(self, state: State, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None) -> None:
        with torch.no_grad():
            u, values = key_scores(q, self.repeat(k)), self.repeat(widened(v))
            if lengths is not None:
                beyond = torch.arange(u.shape[-1], device=u.device) >= lengths[:, None, None]
                u = u.masked_fill(beyond, -torch.inf)
            maximum = u.amax(-1, keepdim=True)
            weights = torch.exp(u - maximum)
            state.tensors = {
                "maximum": maximum,
                "total": weights.sum(-1, keepdim=True),
                "weighted": (weights.unsqueeze(-2) @ values).squeeze(-2),
            }

    def mix_step(self, q: Tensor, k: Tensor, v: Tensor, state: State, seen: Seen) -> Tensor:
        u, value = key_scores(q, self.repeat(k)), self.repeat(v).squeeze(2)
        past = state.tensors
        maximum = torch.maximum(past["maximum"], u)
        kept, new = torch.exp(past["maximum"] - maximum), torch.exp(u - maximum)
        total = torch.addcmul(new, past["total"], kept)
        weighted = torch.addcmul(new * value, past["weighted"], kept)
        state.tensors = {"maximum": maximum, "total": total, "weighted": weighted}
        return (weighted / total).to(v.dtype).unsqueeze(2)

    @classmethod
    def costs(cls, config: ModelConfig, batch: int, length: int, itemsize: int = 4) -> Costs:
        """The sums over positions are element-wise, 4·d a token, and no matrix product; what is executed are those of the scan.

        A state is a maximum, a total and a weighted sum a head, in float32 whatever the model's precision.
        """
        tokens, heads = batch * length, config.num_attention_heads
        projections = cls.projection_flops(config, tokens, tokens)
        return Costs(
            prefill_flops_square=projections,
            prefill_flops_causal=projections,
            prefill_flops=projections + 2 * batch * (config.hidden_size + heads) * scan_products(length),
            decode_flops=cls.projection_flops(config, batch, batch),
            state_bytes=batch * heads * (config.head_dim + 2) * max(itemsize, 4),
        )


def key_scores(q: Tensor, k: Tensor) -> Tensor:
    """u (B, heads, L) in at least float32, of q, k (B, heads, L, head_dim)."""
    return (F.silu(widened(q)) * widened(k)).sum(-1) * q.shape[-1] ** -0.5


class RunningMean(torch.autograd.Function):
    """o_i = Σ_{j≤i} e^{u_j} v_j / Σ_{j≤i} e^{u_j} of u (…, L), v (…, L, D), in time linear in L, both ways.

    With g_i = ∂/∂o_i / Σ_{m≤i} e^{u_m}, the gradients are again sums of the same kind, from the other end:
    ∂/∂v_j = e^{u_j} Σ_{i≥j} g_i and ∂/∂u_j = e^{u_j} Σ_{i≥j} g_i·(v_j − o_i).
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor) -> Tensor:
        running_max = u.cummax(-1).values
        weighted, total = scan(u, running_max, v, torch.ones_like(u))
        out = weighted / total.unsqueeze(-1)
        ctx.save_for_backward(u, v, running_max, total, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        u, v, running_max, total, out = ctx.saved_tensors
        grad = grad / total.unsqueeze(-1)
        # The maximum only grows with i, so that seen from the end −max_i is its own running maximum.
        after, outs_after = scan(
            -running_max.flip(-1), -running_max.flip(-1), grad.flip(-2), (grad * out).sum(-1).flip(-1)
        )
        weight = torch.exp(u - running_max)
        after = after.flip(-2)
        grad_u = weight * ((after * v).sum(-1) - outs_after.flip(-1))
        return grad_u, after.mul_(weight.unsqueeze(-1))


def scan(u: Tensor, running_max: Tensor, values: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_{j≤i} e^{u_j − m_i}·x_j for x the `values` (…, L, D) and the `scalars` (…, L), where m = max_{j≤i} u_j (…, L).

    Chunks of `CHUNK` positions are summed explicitly; the sums of whole chunks are again a sequence with scores
    (the maxima at the chunks' ends) and values (the chunks' sums), so the same function, called on a sequence `CHUNK`
    times shorter, carries them forward.
    """
    length = u.shape[-1]
    if length <= CHUNK:
        weights = _chunk_weights(u, running_max)
        return weights @ values, (weights @ scalars.unsqueeze(-1)).squeeze(-1)
    padding = -length % CHUNK
    if padding:  # padded keys weigh e^{-inf} = 0, and nothing comes after them
        u = F.pad(u, (0, padding), value=-torch.inf)
        running_max = F.pad(running_max, (0, padding), mode="replicate")
        values, scalars = F.pad(values, (0, 0, 0, padding)), F.pad(scalars, (0, padding))
    u, limit = u.unflatten(-1, (-1, CHUNK)), running_max.unflatten(-1, (-1, CHUNK))
    values, scalars = values.unflatten(-2, (-1, CHUNK)), scalars.unflatten(-1, (-1, CHUNK))
    weights = _chunk_weights(u, limit)
    vectors, numbers = weights @ values, (weights @ scalars.unsqueeze(-1)).squeeze(-1)

    # The last row of a chunk is its sum under the running maximum at its end: again a sequence of scores and values.
    end = limit[..., :-1, -1]
    before = scan(end, end, vectors[..., :-1, -1, :], numbers[..., :-1, -1])
    carry = torch.exp(end.unsqueeze(-1) - limit[..., 1:, :])
    vectors[..., 1:, :, :].addcmul_(carry.unsqueeze(-1), before[0].unsqueeze(-2))
    numbers[..., 1:, :].addcmul_(carry, before[1].unsqueeze(-1))
    return vectors.flatten(-3, -2)[..., :length, :], numbers.flatten(-2)[..., :length]


def _chunk_weights(u: Tensor, limit: Tensor) -> Tensor:
    """e^{u_j − m_i} for j ≤ i within a chunk, (…, n, n)."""
    exponent = u.unsqueeze(-2) - limit.unsqueeze(-1)
    return exponent.masked_fill_(future(u.shape[-1], u.device), -torch.inf).exp_()


def scan_products(length: int) -> int:
    """Products that `scan` takes for one number a position, over all its levels."""
    if length <= CHUNK:
        return length * length
    chunks = -(-length // CHUNK)
    return chunks * CHUNK * CHUNK + scan_products(chunks - 1)
