"""Tokenizers, pretrained or a byte-level BPE trained on the corpus, and the encoding of texts.

Training and evaluation both read text through `load_tokenizer`, so that the same text has the same ids in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from deconattn.data.documents import is_heldout, read_texts
from deconattn.errors import UserError
from deconattn.files import atomic_write, sha256_file, write_json

END_OF_TEXT = "<|endoftext|>"
_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": END_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "unk_token": END_OF_TEXT,
    "add_prefix_space": False,
    "clean_up_tokenization_spaces": False,
}
"""tokenizer_config.json, from which transformers reads a tokenizer."""


def train_tokenizer(parts: list[Path], vocab_size: int, out: Path, *, heldout_fraction: float = 0.0) -> dict[str, Any]:
    """Train a byte-level BPE on the documents of corpus parts and save it into `out`; returns its manifest.

    Deterministic: the same parts give the same bytes. Token 0 is `<|endoftext|>`. Held-out documents
    (`heldout_fraction` as for the token table) are not trained on. A small corpus may give fewer than `vocab_size`
    (at least 257) tokens; the manifest says how many there are.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (
        [text for text in batch if not is_heldout(text, heldout_fraction)]
        for part in parts
        for batch in read_texts(part)
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    facts = {"trained_on": [sha256_file(part) for part in parts], "heldout_fraction": heldout_fraction}
    return save_tokenizer(tokenizer.to_str(pretty=True), out, facts)


def save_tokenizer(content: str, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write tokenizer.json (with this content), tokenizer_config.json and manifest.json; returns the manifest.

    Raises `UserError` when the content is no tokenizer or has no `<|endoftext|>`.
    """
    path = folder / "tokenizer.json"
    tokenizer, end_of_text = _parse(content, path)
    with atomic_write(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    write_json(folder / "tokenizer_config.json", _CONFIG)
    manifest = {
        "file": path.name,
        "sha256": sha256_file(path),
        "vocab_size": vocabulary_rows(tokenizer),
        "end_of_text_id": end_of_text,
        **facts,
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def load_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """The tokenizer of a folder with tokenizer.json, and the id of its end-of-text token.

    Text is text: a special token spelled out in a document or an item is encoded as ordinary characters, and no
    post-processor adds anything at the beginning or the end. Only packing puts end-of-text after a document, and only
    the harness' rule for a text without context puts it before one. (lm-eval's HFLM reads a spelled-out special token
    as that token, and applies the post-processor.) Nothing is truncated or padded.
    Raises `UserError` when there is no tokenizer or no such token.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    tokenizer, end_of_text = _parse(path.read_text(encoding="utf-8"), path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    tokenizer.post_processor = None
    return tokenizer, end_of_text


def _parse(content: str, path: Path) -> tuple[Tokenizer, int]:
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path}: not a tokenizer.json ({' '.join(str(error).split())[:200]})") from error
    end_of_text = tokenizer.token_to_id(END_OF_TEXT)
    if end_of_text is None:
        raise UserError(f"{path}: the tokenizer has no token {END_OF_TEXT}, which separates documents")
    return tokenizer, end_of_text


def vocabulary_rows(tokenizer: Tokenizer) -> int:
    """Rows of an embedding that holds every id: the largest id + 1, more than the number of entries if some ids are unused."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 where every id fits, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 65536 else np.uint32)


def encode(tokenizer: Tokenizer, texts: list[str], end_of_text: int, dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    """Yield the ids of each text followed by end-of-text: 1-D arrays of `dtype`."""
    for encoding in tokenizer.encode_batch_fast(texts):
        yield np.array([*encoding.ids, end_of_text], dtype=dtype)
