"""Small made data that several tests read: a tokenizer of bytes, a corpus part."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from deconattn.data.documents import write_documents
from deconattn.data.tokenizer import END_OF_TEXT, save_tokenizer


def save_byte_tokenizer(folder: Path) -> Path:
    """A tokenizer without merges: token 0 ends a text, every byte is one token."""
    vocabulary = {END_OF_TEXT: 0}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[symbol] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    save_tokenizer(tokenizer.to_str(), folder, {})
    return folder


def save_part(texts: list[str], folder: Path, part: int = 0) -> Path:
    """A corpus part as the mirror writes it."""
    path = folder / f"part-{part:04d}.parquet"
    write_documents(((text, {}) for text in texts), path)
    return path
