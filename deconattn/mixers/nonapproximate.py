"""nonapproximate: one score a key, u_j = Σ_c SiLU(q_jc)·k_jc / √dh, and A_ij = e^{u_j} / Σ_{m≤i} e^{u_m} (SPEC §3).

Relaxes "mathematical form" to a linear-time average: the weights of a query differ from those of another only in
how far they reach. Query and key stand at the same position, so RoPE cancels and is not applied. With `qk_norm` the
head norms come first, then SiLU. Scores beyond 10³ do occur: every exponential below is taken of a difference to
the running maximum, hence at most 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from deconattn.autograd import first_order
from deconattn.functions import widened, without_autocast
from deconattn.mixers._contract import QKVMixer, future
from deconattn.mixers._costs import FLOAT, Costs
from deconattn.mixers._states import Seen, State

if TYPE_CHECKING:
    from deconattn.model import ModelConfig

CHUNK = 8
IN_CACHE = 2**18  # numbers of a segment's values on a CPU: 1 MB in float32, half of a usual L2 cache


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
            return RunningMean.apply(q, k, v)

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
        values = torch.empty(batch, heads, length, config.head_dim, device="meta")
        lengths = [end - start for start, end in segments(values)]
        # Within chunks the weights are summed; over chunks their sums are taken as products, as those of the values are.
        over_chunks = [scan_products(-(-n // CHUNK) - 1) if n > CHUNK else 0 for n in lengths]
        products = config.hidden_size * sum(map(scan_products, lengths)) + heads * sum(over_chunks)
        return Costs(
            prefill_flops_square=projections,
            prefill_flops_causal=projections,
            prefill_flops=projections + 2 * batch * products,
            decode_flops=cls.projection_flops(config, batch, batch),
            activation_bytes=FLOAT * cls._activation_numbers(config, batch, length),
            state_bytes=batch * heads * (config.head_dim + 2) * max(itemsize, FLOAT),
        )

    @classmethod
    def _activation_numbers(cls, config: ModelConfig, batch: int, length: int) -> int:
        """q, k, v and the output; u, its running maximum and the normaliser of each head."""
        tokens = batch * length
        held = tokens * (4 * config.hidden_size + 3 * config.num_attention_heads)
        # The output lies as the values do: position by position, unless they were repeated for grouped queries.
        joined = cls.joined_numbers(config, batch, length) if config.kv_heads < config.num_attention_heads else 0
        return cls.head_norm_numbers(config, tokens) + held + joined


def key_scores(q: Tensor, k: Tensor) -> Tensor:
    """u (B, heads, L) in at least float32, of q, k (B, heads, L, head_dim)."""
    return (F.silu(widened(q)) * widened(k)).sum(-1) * q.shape[-1] ** -0.5


class RunningMean(torch.autograd.Function):
    """o_i = Σ_{j≤i} e^{u_j} v_j / Σ_{j≤i} e^{u_j} of q, k, v (B, heads, L, dh), in time linear in L, both ways.

    With g_i = ∂/∂o_i / Σ_{m≤i} e^{u_m} and G_j = Σ_{i≥j} g_i, the gradients are again sums from the other end:
    ∂/∂v_j = e^{u_j} G_j and ∂/∂u_j = e^{u_j} Σ_{i≥j} g_i·(v_j − o_i). The latter as a difference of two sums loses all digits
    where one key has nearly all weight and every o_i is nearly its v_j. So it is taken from how far each key moves the mean,
    o_j − o_{j−1} = p_j·(v_j − o_{j−1}), where p_j is the weight of key j in o_j: with c_j = G_j·(v_j − o_{j−1}) the sum is
    (1 − p_j)·c_j − Σ_{m>j} p_m·c_m.

    Segments of the sequence are taken in turn, so that what is in work stays in the processor's cache at any length; what
    is carried from one to the next is one sum of each kind.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(v)
        wide = torch.float64 if v.dtype == torch.float64 else torch.float32
        u, maximum, total = (torch.empty(v.shape[:-1], dtype=wide, device=v.device) for _ in range(3))
        carried: tuple[Tensor, Tensor, Tensor] | None = None
        for start, end in segments(v):
            here = (..., slice(start, end))
            u[here] = key_scores(q[:, :, start:end], k[:, :, start:end])
            top = u[here].cummax(-1).values
            if carried is not None:
                top = torch.maximum(top, carried[0])
            values = widened(v[:, :, start:end])
            weighted, sums = scan(u[here], top, values, None)
            if carried is not None:
                kept = torch.exp(carried[0] - top)
                weighted.addcmul_(kept.unsqueeze(-1), carried[1])
                sums.addcmul_(kept, carried[2])
            carried = top[..., -1:], weighted[..., -1:, :].clone(), sums[..., -1:].clone()
            store(torch.div, weighted, sums.unsqueeze(-1), out[:, :, start:end])
            maximum[here], total[here] = top, sums
        ctx.save_for_backward(q, k, v, u, maximum, total, out)
        return out

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, u, maximum, total, out = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        weight = torch.exp(u - maximum)
        # What a sum over the past is worth one position on: e^{max_{j−1} − max_j}. Before position 0 there is nothing.
        decay = torch.exp(F.pad(maximum[..., :-1], (1, 0), value=-torch.inf) - maximum)
        rest = decay * F.pad(total[..., :-1], (1, 0)) / total  # 1 − p, to the last bit where p is nearly 1
        moved = decay * weight / total  # p, seen from the position before
        carried: tuple[Tensor, Tensor] | None = None
        for start, end in reversed(segments(v)):
            here, rows = (..., slice(start, end)), (slice(None), slice(None), slice(start, end))
            g = widened(grad[rows]) / total[here].unsqueeze(-1)
            # The maximum only grows with i, so that seen from the end −max_i is its own running maximum.
            after, _ = scan(-maximum[here], -maximum[here], g, None, reverse=True)
            if carried is not None:
                after.addcmul_(torch.exp(maximum[here] - maximum[..., end - 1 : end]).unsqueeze(-1), carried[0])
            gap = v[rows].to(total.dtype, copy=True)
            gap[:, :, 1:] -= out[:, :, start : end - 1]
            if start > 0:
                gap[:, :, :1] -= out[:, :, start - 1 : start]
            c = gap.mul_(after).sum(-1)
            moves = moved[here] * c
            later = F.pad(moves[..., 1:], (0, 1))
            if carried is not None:
                later[..., -1:] = carried[1]
            add_later(later, decay[..., start + 1 : end])
            last = decay[..., start : start + 1]
            carried = last.unsqueeze(-1) * after[..., :1, :], torch.addcmul(moves[..., :1], last, later[..., :1])
            of_u = weight[here] * (rest[here] * c - later) * q.shape[-1] ** -0.5
            store(torch.mul, after, weight[here].unsqueeze(-1), grad_v[rows])
            queries, of_u = widened(q[rows]), of_u.unsqueeze(-1)
            gate = torch.sigmoid(queries)
            silu = queries * gate
            store(torch.mul, silu, of_u, grad_k[rows])
            slope = torch.lerp(silu, silu.new_ones(()), gate)  # SiLU′ = SiLU + σ·(1 − SiLU)
            store(torch.mul, slope.mul_(widened(k[rows])), of_u, grad_q[rows])
        return grad_q, grad_k, grad_v


def add_later(x: Tensor, decay: Tensor) -> None:
    """x_j += Σ_{m>j} (decay_j ··· decay_{m−1})·x_m, in place; x (…, L), decay (…, L − 1).

    Each step doubles how far a position has looked.
    """
    reach = 1
    while reach < x.shape[-1]:
        x[..., :-reach] += decay * x[..., reach:]
        decay = decay[..., :-reach] * decay[..., reach:]
        reach *= 2


def store(operation: Callable[..., Tensor], left: Tensor, right: Tensor, out: Tensor) -> None:
    """out = operation(left, right), without a copy where the precision is the same; what is compiled makes none anyway."""
    if out.dtype == left.dtype and not torch.compiler.is_compiling():
        operation(left, right, out=out)
    else:
        out.copy_(operation(left, right))


def segments(v: Tensor) -> list[tuple[int, int]]:
    """Start and end of each segment of v (B, heads, L, dh); a GPU has no such cache and takes the whole at once."""
    length = v.shape[2]
    size = length if v.is_cuda else max(4 * CHUNK, IN_CACHE * length // max(1, v.numel()) // CHUNK * CHUNK)
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def scan(
    u: Tensor, limit: Tensor, values: Tensor, scalars: Tensor | None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Σ_{j≤i} e^{u_j − m_i}·x_j for x the `values` (…, L, D) and the `scalars` (…, L; None: all 1), m the `limit` (…, L).

    `limit` is at least the running maximum of u and grows with i. In `reverse` sums run over j ≥ i, the maximum from the end.
    Chunks of `CHUNK` positions are summed explicitly; the sums of whole chunks are again a sequence with scores
    (the limits at the chunks' ends) and values (the chunks' sums), so the same function, called on a sequence `CHUNK`
    times shorter, carries them forward.
    """
    length = u.shape[-1]
    if length <= CHUNK:
        return _chunk_sums(u, limit, values, scalars, reverse)
    padding = -length % CHUNK
    if padding:  # padded keys weigh e^{-inf} = 0
        u, limit = F.pad(u, (0, padding), value=-torch.inf), F.pad(limit, (0, padding), mode="replicate")
        values = F.pad(values, (0, 0, 0, padding))
        scalars = None if scalars is None else F.pad(scalars, (0, padding))
    u, limit, values = u.unflatten(-1, (-1, CHUNK)), limit.unflatten(-1, (-1, CHUNK)), values.unflatten(-2, (-1, CHUNK))
    scalars = None if scalars is None else scalars.unflatten(-1, (-1, CHUNK))
    vectors, numbers = _chunk_sums(u, limit, values, scalars, reverse)

    # The chunk's sum under the limit at its end (its beginning, in reverse): again a sequence of scores and values.
    last, sending, receiving = (
        (0, slice(1, None), slice(None, -1)) if reverse else (-1, slice(None, -1), slice(1, None))
    )
    end = limit[..., sending, last]
    before = scan(end, end, vectors[..., sending, last, :], numbers[..., sending, last], reverse)
    carry = torch.exp(end.unsqueeze(-1) - limit[..., receiving, :])
    vectors[..., receiving, :, :].addcmul_(carry.unsqueeze(-1), before[0].unsqueeze(-2))
    numbers[..., receiving, :].addcmul_(carry, before[1].unsqueeze(-1))
    return vectors.flatten(-3, -2)[..., :length, :], numbers.flatten(-2)[..., :length]


def _chunk_sums(
    u: Tensor, limit: Tensor, values: Tensor, scalars: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    exponent = u.unsqueeze(-2) - limit.unsqueeze(-1)
    hidden = torch.full(exponent.shape[-2:], -torch.inf, dtype=u.dtype, device=u.device)
    # Added, as filling by a mask takes several times as long.
    weights = exponent.add_(hidden.tril_(-1) if reverse else hidden.triu_(1)).exp_()
    numbers = weights.sum(-1) if scalars is None else (weights @ scalars.unsqueeze(-1)).squeeze(-1)
    return weights @ values, numbers


def scan_products(length: int) -> int:
    """Products that `scan` takes for one number a position, over all its levels."""
    if length <= CHUNK:
        return length * length
    chunks = -(-length // CHUNK)
    return chunks * CHUNK * CHUNK + scan_products(chunks - 1)
