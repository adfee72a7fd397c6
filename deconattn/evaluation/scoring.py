"""Log-likelihoods for the harness, with its requests, windows and truncation, but without its repeated work.

The harness' `HFLM` reads a context anew for each of its choices, and takes a log-softmax over the whole vocabulary at every
position. Here a context is read once, and its decoding state repeated for the choices; the head is applied to the scored
positions alone, in chunks. The numbers are the same (tested against HFLM).
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from deconattn.data.tokenizer import load_tokenizer, vocabulary_rows
from deconattn.decoder import Decoder
from deconattn.errors import UserError
from deconattn.mixers.cache import CacheLengths, DecodingState

LOGITS_AT_ONCE = {"cpu": 2**23, "cuda": 2**28}  # positions × vocabulary whose logits are held together
PADDING = 0.1  # of a batch's tokens, at most, or as many as cost less than another pass would:
SPARE = {"cpu": 32, "cuda": 4096}
SPARE_IF_NARROW = (
    2**20
)  # or this over the square of the hidden size, as the products of narrow models cost next to nothing
BRANCHES = 16  # continuations of a context that are scored together

Request = tuple[Any, list[int], list[int]]
"""A name, the context's tokens, the continuation's."""
Score = tuple[float, bool]
"""Log-likelihood in nats, and whether each token is the most likely one."""
Tokens = tuple[int, ...]
Piece = tuple[int, Tokens]
"""The number of a request, and tokens of its continuation that are scored together."""
Batch = tuple[list[Piece], Tensor]
Item = TypeVar("Item")


class TokenizedLM(TemplateLM):
    """The part of a harness model that only needs a tokenizer: encoding, prefix token, rolling windows.

    Text has the ids that it has in training: see `load_tokenizer`.

    Args:
        tokenizer_folder: holds tokenizer.json.
        context_length: most tokens that are read at once; longer prompts lose their beginning, as in HFLM.
    """

    def __init__(self, tokenizer_folder: str | Path, context_length: int) -> None:
        super().__init__()
        self.max_length = context_length
        self.windows_nll: list[list[float]] = []
        """Of each text that was last scored whole, the negative log-likelihood (nats) of each window, in order."""
        self._tokenizer, self._end_of_text = load_tokenizer(Path(tokenizer_folder))
        # Every mode and context length encodes the same texts; the choices of an item share their context.
        self._encode = functools.cache(lambda text: self._tokenizer.encode(text).ids)

    @property
    def eot_token_id(self) -> int:
        """Id of the end-of-text token, which also comes before a text without context, as before one in training."""
        return self._end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids of a text; no special token is ever added, whatever `add_special_tokens` says."""
        return self._encode(string)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The harness' own, but a context of white space alone, which it moves to the continuation, counts as none."""
        before, scored = super()._encode_pair(context, continuation)
        return before or [self.prefix_token_id], scored

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Score]:
        """(log-likelihood in nats, is greedy) of each (context, continuation).

        Raises:
            UserError: a continuation that the tokenizer joins to the last token of its context: nothing is left to score.
        """
        for request in requests:
            context, continuation = request.args
            if context and not self._encode_pair(context, continuation)[1]:
                raise UserError(
                    f"item {request.doc_id} (from 0), choice {request.idx}: the tokenizer joins {continuation[:40]!r} to "
                    f"the end of {context[-40:]!r}, so that none of its tokens is left to score"
                )
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood in nats of each whole text, in windows of the context length that score each token once."""
        windows: list[Request] = [
            (number, context, continuation)
            for number, request in enumerate(requests)
            for context, continuation in self.windows(self.tok_encode(request.args[0]), self.prefix_token_id)
        ]
        self.windows_nll = [[] for _ in requests]
        for (number, _, _), (score, _) in zip(windows, self._loglikelihood_tokens(windows), strict=True):
            self.windows_nll[number].append(-score)
        return [-math.fsum(losses) for losses in self.windows_nll]

    def windows(self, tokens: list[int], prefix: int) -> Iterator[tuple[list[int], list[int]]]:
        """The harness' rolling windows: (context, continuation) pairs whose continuations make up `tokens`."""
        rolling = get_rolling_token_windows(tokens, prefix, max_seq_len=self.max_length, context_len=1)
        return (make_disjoint_window(window) for window in rolling)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """No task needs it."""
        raise NotImplementedError("the tasks score given texts; none generates")


class HarnessModel(TokenizedLM):
    """A causal language model as the harness sees it.

    Args:
        model: `final_hidden(input_ids (B, L))` returns the input (B, L, d) of the linear `lm_head`. Where its `model` is a
            `Decoder`, contexts that several continuations share are read once.
        tokenizer_folder, context_length: see `TokenizedLM`. `max_length` may be set anew between evaluations.
        batch_size: sequences of full context length in one forward pass; shorter ones come in larger batches.
        precision: "float32", or "bf16" by autocast, as in training.
    """

    def __init__(
        self, model: Any, tokenizer_folder: str | Path, context_length: int, batch_size: int, precision: str = "float32"
    ) -> None:
        super().__init__(tokenizer_folder, context_length)
        rows = model.lm_head.weight.shape[0]
        if (needed := vocabulary_rows(self._tokenizer)) > rows:
            raise UserError(
                f"{Path(tokenizer_folder) / 'tokenizer.json'}: its ids go up to {needed - 1}, beyond the model's "
                f"vocabulary of {rows}: not the tokenizer that the model was trained with"
            )
        self._model = model
        decoder = getattr(model, "model", None)
        self._decoder = decoder if isinstance(decoder, Decoder) else None
        self._batch_size = batch_size
        self._bf16 = precision == "bf16"
        self._device: torch.device = next(model.parameters()).device
        self._rows_at_once = max(1, LOGITS_AT_ONCE[self._device.type] // rows)
        self._spare = max(SPARE[self._device.type], SPARE_IF_NARROW // model.lm_head.weight.shape[1] ** 2)
        self.shortened = 0
        """Requests of the last call that did not fit the context length."""

    @torch.inference_mode()
    def _loglikelihood_tokens(self, requests: list[Request], **kwargs: Any) -> list[Score]:
        """Score token requests.

        A continuation longer than the context length, which HFLM refuses, is scored in rolling windows, so that none
        of its tokens is left out (leaving some out would favour long choices).
        """
        self.shortened = 0
        wanted: dict[Tokens, list[Piece]] = {}  # what is read of a context → what is scored behind it
        for number, (_, context, continuation) in enumerate(requests):
            self.shortened += len(context) + len(continuation) > self.max_length + 1
            long = len(continuation) > self.max_length
            for before, scored in self.windows(continuation, context[-1]) if long else [(context, continuation)]:
                read = tuple(before[max(0, len(before) + len(scored) - self.max_length - 1) :])
                wanted.setdefault(read, []).append((number, tuple(scored)))
        totals = [0.0] * len(requests)
        greedy = [True] * len(requests)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            for pieces, hidden in self._in_bulk(self._final_states(wanted)):
                targets = torch.tensor([token for _, scored in pieces for token in scored])
                logprobs, hits = self._score(hidden, targets)
                lengths = [len(scored) for _, scored in pieces]
                for (number, _), values, hit in zip(pieces, logprobs.split(lengths), hits.split(lengths), strict=True):
                    totals[number] += values.sum().item()
                    greedy[number] &= bool(hit.all())
        return list(zip(totals, greedy, strict=True))

    def _in_bulk(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches gathered until the head has its fill of them."""
        pieces: list[Piece] = []
        hidden: list[Tensor] = []
        for some, states in batches:
            pieces, hidden = pieces + some, [*hidden, states]
            if sum(map(len, hidden)) >= self._rows_at_once:
                yield pieces, torch.cat(hidden)
                pieces, hidden = [], []
        if pieces:
            yield pieces, torch.cat(hidden)

    def _final_states(self, wanted: dict[Tokens, list[Piece]]) -> Iterator[Batch]:
        """Pieces with the final hidden states (all their tokens, d) that predict them."""
        tokens = self._batch_size * self.max_length
        plain: dict[Tokens, list[Piece]] = {}
        shared: list[tuple[Tokens, list[Piece]]] = []
        for context, pieces in wanted.items():
            if self._decoder is not None and len({scored[:-1] for _, scored in pieces}) > 1:
                shared += [(context, pieces[n : n + BRANCHES]) for n in range(0, len(pieces), BRANCHES)]
            else:
                for number, scored in pieces:
                    plain.setdefault(context + scored[:-1], []).append((number, scored))
        for inputs in batches(plain, len, self._spare, len, tokens):
            hidden = self._model.final_hidden(self._padded(inputs))
            rows = [(row, read, piece) for row, read in enumerate(inputs) for piece in plain[read]]
            ends = [hidden[row, len(read) - len(scored) : len(read)] for row, read, (_, scored) in rows]
            yield [piece for *_, piece in rows], torch.cat(ends)
        for stems in batches(shared, lambda stem: len(stem[0]), self._spare, held_tokens, tokens):
            yield from self._branches([context for context, _ in stems], [pieces for _, pieces in stems])

    def _branches(self, contexts: list[Tokens], pieces: list[list[Piece]]) -> Iterator[Batch]:
        """As `_final_states`, of contexts that are read once: their state is repeated for each of their pieces."""
        assert self._decoder is not None
        lengths = [len(context) for context in contexts]
        counts = None if len(set(lengths)) == 1 else torch.tensor(lengths, device=self._device)
        state = self._decoder.new_state()
        hidden = self._decoder(self._padded(contexts), self._model.skip, state, counts)
        last = [hidden[row, length - 1] for row, length in enumerate(lengths)]
        rows = [(row, piece) for row, own in enumerate(pieces) for piece in own]
        for batch in batches(rows, lambda row: len(row[1][1]), self._spare):
            longest, most = len(batch[0][1][1]), max(lengths[row] for row, _ in batch)
            # In a batch every row counts as long as its longest context and continuation, which a side stream must reach.
            limited = self._decoder.side_stream is not None
            apart = limited and most + longest > self._decoder.config.max_position_embeddings
            of_one = [[each for each in batch if each[0] == row] for row in dict.fromkeys(row for row, _ in batch)]
            for part in of_one if apart else [batch]:
                ends = torch.stack([last[row] for row, _ in part]).unsqueeze(1)
                if len(part[0][1][1]) > 1:  # what predicts the first token has been read with the context
                    ids = self._padded([scored[:-1] for _, (_, scored) in part])
                    copied = repeated(state, [row for row, _ in part], lengths)
                    ends = torch.cat([ends, self._decoder(ids, self._model.skip, copied)], dim=1)
                own = [end[: len(scored)] for end, (_, (_, scored)) in zip(ends, part, strict=True)]
                yield [piece for _, piece in part], torch.cat(own)

    def _padded(self, rows: Sequence[Tokens]) -> Tensor:
        """Token ids (B, L), padded on the right, which a causal model does not see."""
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(self._device)

    def _score(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of `targets` (N,) after `hidden` (N, d), and which are the argmax: both (N,), on the CPU."""
        logprobs, hits = [], []
        parts = hidden.split(self._rows_at_once), targets.to(self._device).split(self._rows_at_once)
        for states, target in zip(*parts, strict=True):
            logits = self._model.lm_head(states).float()  # (n, V)
            logprobs.append(-F.cross_entropy(logits, target, reduction="none").double())
            hits.append(logits.argmax(1) == target)
        return torch.cat(logprobs).cpu(), torch.cat(hits).cpu()


def held_tokens(stem: tuple[Tokens, list[Piece]]) -> int:
    """Tokens whose states are held at once for a context and its pieces."""
    context, pieces = stem
    return len(context) + sum(len(context) + len(scored) for _, scored in pieces)


def repeated(state: DecodingState, rows: list[int], lengths: list[int]) -> DecodingState:
    """A state whose rows are `rows` of another, which stays as it is; `lengths` are the tokens that each row of that has seen."""
    assert state.seen is not None
    index, seen = torch.tensor(rows, device=state.seen.rows.device), [lengths[row] for row in rows]
    new = copy.copy(state)
    new.layers = [copy.copy(layer) for layer in state.layers]
    new.select(index)
    new.seen = CacheLengths(state.seen.rows[index], max(seen), len(set(seen)) == 1)
    return new


def batches(
    items: Iterable[Item],
    length: Callable[[Item], int],
    spare: int,
    cost: Callable[[Item], int] = lambda item: 0,
    most: int = 0,
) -> Iterator[list[Item]]:
    """Cut items into batches, longest first, each of a cost of at most `most` (or one item).

    At most `PADDING` of a batch's tokens, or `spare` tokens, are padding.
    """
    batch: list[Item] = []
    total = padding = 0
    for item in sorted(items, key=length, reverse=True):
        if batch:
            longest = length(batch[0])
            padding += longest - length(item)
            if padding > max(spare, PADDING * longest * (len(batch) + 1)) or total + cost(item) > most:
                yield batch
                batch, total, padding = [], 0, 0
        batch.append(item)
        total += cost(item)
    if batch:
        yield batch
