"""Log-likelihoods for the harness: its requests, windows and truncation, the vocabulary only where a token is scored.

The harness' `HFLM` takes a log-softmax over the whole vocabulary at every position of every prompt and keeps it. Here
the head is applied to the scored positions alone, in chunks, and inputs that occur twice run once. The numbers are the
same (tested against HFLM).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor, nn
from torch.nn import functional as F

from deconattn.errors import UserError
from deconattn.files import read_json

# Elements (positions × vocabulary) of one chunk of logits; on a CPU more of them only miss the cache.
LOGITS_AT_ONCE = {"cpu": 2**23, "cuda": 2**28}
END_OF_TEXT = "<|endoftext|>"

Request = tuple[Any, list[int], list[int]]
"""A name, the context's tokens, the continuation's."""
Score = tuple[float, bool]
"""Log-likelihood in nats, and whether each token is the most likely one."""
Piece = tuple[tuple[int, ...], tuple[int, ...]]
"""An input, and the tokens that its last positions are to predict."""


class TokenizedLM(TemplateLM):
    """The part of a harness model that only needs a tokenizer: encoding, prefix token, rolling windows.

    Args:
        tokenizer_folder: holds tokenizer.json and, optionally, tokenizer_config.json (`eos_token`, `bos_token`).
        context_length: most tokens that are read at once; longer prompts lose their beginning, as in HFLM.
    """

    def __init__(self, tokenizer_folder: str | Path, context_length: int) -> None:
        super().__init__()
        self.max_length = context_length
        self._tokenizer, self._end_of_text, self._prefix = read_tokenizer(tokenizer_folder)
        # Every mode and context length asks for the same texts; the choices of an item share their context.
        self._pairs: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        self._documents: dict[str, list[int]] = {}
        self._encode = functools.lru_cache(maxsize=16)(self._encode_uncached)

    @property
    def eot_token_id(self) -> int:
        """Id of the end-of-text token."""
        return self._end_of_text

    @property
    def prefix_token_id(self) -> int:
        """Id of the token before a text that has no context: beginning-of-text if there is one, else end-of-text."""
        return self._prefix

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids of a text; special tokens as the tokenizer itself adds them unless told otherwise."""
        return self._encode(string, add_special_tokens is not False)

    def _encode_uncached(self, string: str, add_special_tokens: bool) -> list[int]:
        return self._tokenizer.encode(string, add_special_tokens=add_special_tokens).ids

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        key = (context, continuation)
        if key not in self._pairs:
            self._pairs[key] = super()._encode_pair(context, continuation)
        return self._pairs[key]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Score]:
        """(log-likelihood in nats, is greedy) of each (context, continuation)."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood in nats of each whole text, in windows of the context length that score each token once."""
        owners: list[int] = []
        windows: list[Request] = []
        for owner, request in enumerate(requests):
            text = request.args[0]
            if text not in self._documents:
                self._documents[text] = self.tok_encode(text)
            for context, continuation in self.windows(self._documents[text], self.prefix_token_id):
                owners.append(owner)
                windows.append((None, context, continuation))
        totals = [0.0] * len(requests)
        for owner, (score, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += score
        return totals

    def windows(self, tokens: list[int], prefix: int) -> Iterator[tuple[list[int], list[int]]]:
        """The harness' rolling windows: (context, continuation) pairs whose continuations make up `tokens`."""
        rolling = get_rolling_token_windows(tokens, prefix, max_seq_len=self.max_length, context_len=1)
        return (make_disjoint_window(window) for window in rolling)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Not needed by any of the tasks."""
        raise NotImplementedError("the tasks score given texts; none generates")


class HarnessModel(TokenizedLM):
    """A causal language model as the harness sees it.

    Args:
        model: forward(input_ids (B, L)) gives logits (B, L, V) by one call of its linear `lm_head`.
        tokenizer_folder, context_length: see `TokenizedLM`. `max_length` may be set anew between evaluations.
        batch_size: sequences of full context length in one forward pass; shorter ones come in larger batches.
    """

    def __init__(self, model: Any, tokenizer_folder: str | Path, context_length: int, batch_size: int) -> None:
        super().__init__(tokenizer_folder, context_length)
        self._model = model
        self._head: nn.Linear = model.lm_head
        self._batch_size = batch_size
        self._device: torch.device = next(model.parameters()).device
        self.shortened = 0

    @torch.inference_mode()
    def _loglikelihood_tokens(self, requests: list[Request], **kwargs: Any) -> list[Score]:
        """Score token requests; `shortened` counts those that did not fit the context length.

        A continuation longer than the context length, which HFLM refuses, is scored in rolling windows, so that none
        of its tokens is left out (leaving some out would favour long choices).
        """
        self.shortened = 0
        owners: list[int] = []
        pieces: list[Piece] = []
        for owner, (name, context, continuation) in enumerate(requests):
            if not context or not continuation:
                raise ValueError(f"request with an empty context or continuation: {name!r}")
            self.shortened += len(context) + len(continuation) > self.max_length + 1
            long = len(continuation) > self.max_length
            for before, scored in self.windows(continuation, context[-1]) if long else [(context, continuation)]:
                owners.append(owner)
                pieces.append((tuple((before + scored)[-(self.max_length + 1) : -1]), tuple(scored)))
        totals = [0.0] * len(requests)
        greedy = [True] * len(requests)
        for index, score, is_greedy in self._score(pieces):
            totals[owners[index]] += score
            greedy[owners[index]] &= is_greedy
        return list(zip(totals, greedy, strict=True))

    def _score(self, pieces: list[Piece]) -> Iterator[tuple[int, float, bool]]:
        """(index, log-likelihood, is greedy) of each piece, in order of falling length."""
        by_input: dict[tuple[int, ...], list[int]] = {}
        for index, (tokens, _) in enumerate(pieces):
            by_input.setdefault(tokens, []).append(index)
        inputs = sorted(by_input, key=lambda tokens: (-len(tokens), tokens))
        for batch in batches(inputs, self._batch_size * self.max_length):
            # Padded on the right, which a causal model does not see.
            ids = torch.zeros(len(batch), len(batch[0]), dtype=torch.long)
            members, positions, targets, lengths = [], [], [], []
            for row, tokens in enumerate(batch):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                end = row * len(batch[0]) + len(tokens)
                for index in by_input[tokens]:
                    scored = pieces[index][1]
                    members.append(index)
                    positions.append(torch.arange(end - len(scored), end))
                    targets.append(torch.tensor(scored))
                    lengths.append(len(scored))
            logprobs, is_greedy = self._score_positions(ids, torch.cat(positions), torch.cat(targets))
            for index, values, hits in zip(members, logprobs.split(lengths), is_greedy.split(lengths), strict=True):
                yield index, values.sum().item(), bool(hits.all())

    def _score_positions(self, ids: Tensor, positions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of `targets` at flat `positions` of `ids` (B, L), and which are the argmax: all (N,)."""
        hidden = self._final_hidden(ids.to(self._device)).flatten(0, 1)
        logprobs, is_greedy = [], []
        chunk = LOGITS_AT_ONCE.get(self._device.type, LOGITS_AT_ONCE["cpu"])
        step = max(1, chunk // self._head.weight.shape[0])
        for where, target in zip(positions.split(step), targets.split(step), strict=True):
            target = target.to(self._device)
            logits = self._head(hidden[where.to(self._device)]).float()  # (n, V)
            logprobs.append(-F.cross_entropy(logits, target, reduction="none").double().cpu())
            is_greedy.append(is_argmax(logits, target).cpu())
        return torch.cat(logprobs), torch.cat(is_greedy)

    def _final_hidden(self, ids: Tensor) -> Tensor:
        """What the model's own forward pass hands to its head for `ids` (B, L): (B, L, d).

        Caught on its way, so that all that forward does (skipped layers, side streams) is in it.
        """
        caught: list[Tensor] = []

        def catch(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            caught.append(args[0])
            return (args[0][:, :0],)

        handle = self._head.register_forward_pre_hook(catch)
        try:
            self._model(ids)
        finally:
            handle.remove()
        if len(caught) != 1:
            raise RuntimeError(f"forward called the head {len(caught)} times instead of once: nothing can be scored")
        return caught[0]


def is_argmax(logits: Tensor, target: Tensor) -> Tensor:
    """Whether `target` (N,) is the argmax of `logits` (N, V), the first one where several are equal."""
    hits = logits.gather(1, target[:, None]).squeeze(1) >= logits.amax(1)
    # argmax is ten times slower than amax, and needed only where there may be a tie.
    candidates = hits.nonzero().squeeze(1)
    hits[candidates] = logits[candidates].argmax(1) == target[candidates]
    return hits


def batches(inputs: list[tuple[int, ...]], tokens: int) -> Iterator[list[tuple[int, ...]]]:
    """Cut inputs, longest first, into batches of at most `tokens` padded tokens (one input at least)."""
    start = 0
    while start < len(inputs):
        rows = max(1, tokens // len(inputs[start]))
        yield inputs[start : start + rows]
        start += rows


def read_tokenizer(folder: str | Path) -> tuple[tokenizers.Tokenizer, int, int]:
    """The tokenizer of a folder, the id of its end-of-text token, and that of the token before a text without context.

    Raises:
        UserError: no tokenizer.json there, or an end-of-text token that is not in its vocabulary.
    """
    folder = Path(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file (the tokenizer that the model was trained with)")
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    end_of_text = config.get("eos_token") or END_OF_TEXT
    ids = []
    for token in (end_of_text, config.get("bos_token") or end_of_text):
        content = token["content"] if isinstance(token, dict) else token
        token_id = tokenizer.token_to_id(content)
        if token_id is None:
            raise UserError(f"{path}: the token '{content}', which begins and ends texts, is not in the vocabulary")
        ids.append(token_id)
    return tokenizer, ids[0], ids[1]
