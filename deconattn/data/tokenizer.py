"""Tokenizers: a pretrained one kept as it is, or a byte-level BPE trained on the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from deconattn.data.documents import read_texts
from deconattn.data.heldout import is_heldout
from deconattn.errors import UserError
from deconattn.files import atomic_write, sha256_file, write_json

END_OF_TEXT = "<|endoftext|>"
_SMALLEST = 257  # the 256 bytes and the end-of-text token


def train_tokenizer(parts: list[Path], vocab_size: int, out: Path, *, heldout_fraction: float = 0.0) -> dict[str, Any]:
    """Train a byte-level BPE on the documents of corpus parts and save it into `out`; returns its manifest.

    Deterministic: the same parts give the same bytes. Token 0 is `<|endoftext|>`. Documents of the held-out part
    (`heldout_fraction` as for the token table) are not trained on. A small corpus may give fewer than `vocab_size`
    (>= 257) tokens; the manifest says how many there are.
    """
    if vocab_size < _SMALLEST:
        raise UserError(
            f"tokenizer.vocab_size {vocab_size}: at least {_SMALLEST} (256 bytes and the end-of-text token)"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def texts() -> Iterator[list[str]]:
        for part in parts:
            for batch in read_texts(Path(part)):
                yield [text for text in batch if not is_heldout(text, heldout_fraction)]

    tokenizer.train_from_iterator(texts(), trainer=trainer)
    trained_on = [sha256_file(part) for part in parts]
    return save_tokenizer(
        tokenizer.to_str(pretty=True),
        Path(out),
        {"trained_on": trained_on, "heldout_fraction": heldout_fraction},
    )


def save_tokenizer(content: str, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write tokenizer.json (with this content), tokenizer_config.json and manifest.json; returns the manifest.

    Raises `UserError` when the content is no tokenizer or has no `<|endoftext|>`.
    """
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{folder}: not a tokenizer.json ({error})") from error
    end_of_text = tokenizer.token_to_id(END_OF_TEXT)
    if end_of_text is None:
        raise UserError(f"{folder}: the tokenizer has no token {END_OF_TEXT}, which separates documents")
    path = folder / "tokenizer.json"
    with atomic_write(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "unk_token": END_OF_TEXT,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
        },
    )
    manifest = {
        "file": path.name,
        "sha256": sha256_file(path),
        "vocab_size": tokenizer.get_vocab_size(with_added_tokens=True),
        "end_of_text_id": end_of_text,
        **facts,
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def load_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """The tokenizer of a folder with tokenizer.json, and the id of its end-of-text token.

    Text that spells out a special token is encoded as ordinary text: only the packing ends a document.
    Nothing is truncated or padded. Raises `UserError` when there is no tokenizer or no such token.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path}: not a tokenizer.json ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    end_of_text = tokenizer.token_to_id(END_OF_TEXT)
    if end_of_text is None:
        raise UserError(f"{path}: the tokenizer has no token {END_OF_TEXT}, which separates documents")
    return tokenizer, end_of_text
