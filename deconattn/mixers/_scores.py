"""Mixers whose weights are a function of one query's scores s = q·k / √dh against its past.

Such a variant states that function once, `weights`; its map, its fast form over blocks of queries, its decoding from
keys and values and its costs follow.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from deconattn.functions import widened
from deconattn.mixers._contract import QKVMixer, future, scores
from deconattn.mixers._costs import FLOAT, Costs, block_pairs, causal_pairs, square_pairs
from deconattn.mixers._states import Rows, Seen, State, paged

if TYPE_CHECKING:
    from deconattn.model import ModelConfig

BLOCK = 256  # queries a block; up to here the whole map is made at once


class ScoreMixer(QKVMixer):
    """A_ij from s_i1 … s_ii. Where `qk_source` is "side", one map serves the whole batch and keys are not kept with a state.

    What backward reads of `weights` is a part of the costs: `held_a_pair` bytes for each query, key and head (A itself, of
    which softmax's backward is made), and `held_a_query` for each query of the map.
    """

    held_a_pair: ClassVar[int] = FLOAT
    held_a_query: ClassVar[int] = 0

    @abstractmethod
    def weights(self, s: Tensor, hidden: Tensor, reach: Tensor) -> Tensor:
        """Rows of A, (…, n, m), summing to 1, from scores s (…, n, m) of n queries against m keys.

        `hidden` (…, n, m) is true where a key must not be seen; `reach` (…, n, 1) is how many keys a query sees.
        """

    def attention_map_of(self, q: Tensor, k: Tensor) -> Tensor:
        length = q.shape[2]
        reach = torch.arange(1, length + 1, device=q.device).unsqueeze(-1)
        return self.weights(scores(q, k), future(length, q.device), reach)

    def raw_scores(self, source: Tensor) -> Tensor:
        q, k = self.queries_keys(source)
        return scores(q, self.repeat(k))[..., ~future(source.shape[1], source.device)]

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, length, head_dim = v.shape
        shared = q.shape[0] == 1 and batch > 1
        if shared:
            # The batch is folded into the features: each head is one product (n, m) × (m, B·head_dim).
            v = v.permute(1, 2, 0, 3).reshape(1, heads, length, batch * head_dim)
        # Once for all blocks: a product would copy each block's keys and values anew, and hold every copy for backward.
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        mixed = torch.cat([self._block(q, k, v, start) for start in range(0, length, BLOCK)], dim=2)
        return mixed.view(heads, length, batch, head_dim).permute(2, 0, 1, 3) if shared else mixed

    def _block(self, q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
        end = min(start + BLOCK, q.shape[2])
        s = scores(q[:, :, start:end], k[:, :, :end])
        reach = torch.arange(start + 1, end + 1, device=q.device).unsqueeze(-1)
        return self.weights(widened(s), future(end, q.device, start), reach).to(v.dtype) @ v[:, :, :end]

    def new_state(self) -> State:
        return Rows()

    def fill(self, state: State, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None) -> None:
        assert isinstance(state, Rows)
        state.fill(**({"values": v} if self.qk_source == "side" else {"keys": k, "values": v}))

    def mix_step(self, q: Tensor, k: Tensor, v: Tensor, state: State, seen: Seen) -> Tensor:
        q, keys, values = self.past(q, k, v, state, seen)
        reach = (seen.rows + 1)[:, None, None, None]
        hidden = torch.arange(seen.most + 1, device=q.device) >= reach
        s = scores(q, keys)
        mixed = self.weights(widened(s), hidden, reach).to(values.dtype) @ values
        return mixed.flatten(1, 2).unsqueeze(2)

    def past(self, q: Tensor, k: Tensor, v: Tensor, state: State, seen: Seen) -> tuple[Tensor, Tensor, Tensor]:
        """One token put into `state`; its queries (B, KV heads, group, head_dim), all keys and values (B, KV heads, n, head_dim).

        With a side stream q and k are those of all its positions, for one row; each row of the batch takes its own.
        """
        assert isinstance(state, Rows)
        if self.qk_source == "side":
            (values,) = state.append(seen, values=v)
            q = q[:, :, seen.most : seen.most + 1] if seen.equal else q[0, :, seen.rows].transpose(0, 1).unsqueeze(2)
            keys = k[:, :, : seen.most + 1]
        else:
            keys, values = state.append(seen, keys=k, values=v)
        return q.unflatten(1, (keys.shape[1], -1)).squeeze(3), keys, values

    @classmethod
    def visited_pairs(cls, length: int) -> int:
        """Pairs of positions that `mix` visits."""
        return block_pairs(length, BLOCK)

    @classmethod
    def costs(cls, config: ModelConfig, batch: int, length: int, itemsize: int = 4) -> Costs:
        """Scores and sums over values are 2·d each a pair; a state holds keys and values of whole pages of positions.

        With a side stream a prefill takes scores once for the batch; in decoding rows may stand at different positions, and each
        takes its own. The state then holds values, beside the stream's own queries and keys, which are counted once.
        """
        d, kv_size = config.hidden_size, config.kv_heads * config.head_dim
        side = cls.qk_source == "side"
        maps = 1 if side else batch
        projections = cls.projection_flops(config, maps * length, batch * length)
        a_pair = 2 * d * (maps + batch)
        held = batch * paged(length) * kv_size * (1 if side else 2)
        if side:
            held += side_positions(config, length) * (d + kv_size)
        return Costs(
            prefill_flops_square=projections + a_pair * square_pairs(length),
            prefill_flops_causal=projections + a_pair * causal_pairs(length),
            prefill_flops=projections + a_pair * cls.visited_pairs(length),
            decode_flops=cls.projection_flops(config, 0 if side else batch, batch) + 4 * d * batch * length,
            activation_bytes=FLOAT * cls.head_norm_numbers(config, maps * length)
            + cls.mix_activation_bytes(config, maps, batch, length),
            state_bytes=held * itemsize,
        )

    @classmethod
    def mix_activation_bytes(cls, config: ModelConfig, maps: int, batch: int, length: int) -> int:
        """What `mix` and the output projection hold for backward, `maps` maps serving `batch` rows.

        q, k, v and what they mix to, a key head a query head; what `weights` holds, block by block; each block's causal mask,
        a byte a pair.
        """
        vectors = FLOAT * 2 * (maps + batch) * length * config.hidden_size
        pairs = block_pairs(length, BLOCK)
        of_weights = cls.held_a_pair * maps * config.num_attention_heads * pairs + cls.held_a_query * length
        return vectors + of_weights + pairs

    @classmethod
    def block_activation_bytes(cls, config: ModelConfig, maps: int, batch: int, length: int) -> int:
        """The same where `mix` is `block_attention`: q, k, v, the output and each query's normaliser; no scores.

        The output lies as the values do. Those of one row come position by position, as the projection gave them, unless
        they were repeated for grouped queries; where one map serves several rows, even one position is copied.
        """
        d, heads = config.hidden_size, config.num_attention_heads
        joined = cls.joined_numbers(config, batch, length) if batch > 1 or config.kv_heads < heads else 0
        if maps < batch and length == 1 and heads > 1:
            joined = batch * d
        return FLOAT * (length * (2 * (maps + batch) * d + maps * heads) + joined)


def side_positions(config: ModelConfig, length: int) -> int:
    """Positions of the side stream that are computed for a text of `length`: a power of two, at most all there are."""
    return min(1 << max(0, length - 1).bit_length(), config.max_position_embeddings)
