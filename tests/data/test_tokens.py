"""Tokenizers and the token table: packing, the held-out part, budgets, the side text."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from deconattn.data import tokens
from deconattn.data.documents import is_heldout, read_texts, write_documents
from deconattn.data.packing import ROW_GROUP_ROWS, RowWriter
from deconattn.data.table import side_tokens
from deconattn.data.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from deconattn.data.tokens import finish_tokens, share_of_budget, tokenize_part, write_side_text
from deconattn.errors import UserError
from deconattn.files import read_json, sha256_file, write_json
from tests.conftest import ROOT
from tests.data import save_byte_tokenizer, save_part

WORDS = "the a of night tale king ship sea old who went there once told again and but then never wind".split()


def stories(count: int, seed: int = 0, words: int = 60) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, words))) + f" {index}." for index in range(count)]


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def byte_ids() -> dict[int, int]:
    """Byte → token id of the byte tokenizer, from GPT-2's table of printable stand-ins for bytes (written out anew)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    rank = {symbol: index + 1 for index, symbol in enumerate(sorted(symbols.values()))}
    return {byte: rank[symbol] for byte, symbol in symbols.items()}


def rows_in(path: Path) -> np.ndarray:
    return np.array(pq.read_table(path).column("tokens").to_pylist())


def test_training_a_tokenizer_is_deterministic(tmp_path: Path) -> None:
    parts = [save_part(stories(200, seed=part), tmp_path / "corpus", part) for part in range(2)]
    manifest = train_tokenizer(parts, 400, tmp_path / "first")
    code = (
        "import sys; from pathlib import Path; from deconattn.data.tokenizer import train_tokenizer;"
        "train_tokenizer([Path(p) for p in sys.argv[2:]], 400, Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "second"), *map(str, parts)]
    subprocess.run(command, cwd=ROOT, check=True, env={"RAYON_NUM_THREADS": "3", "PYTHONHASHSEED": "5"})
    for name in ("tokenizer.json", "tokenizer_config.json", "manifest.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    tokenizer, end_of_text = load_tokenizer(tmp_path / "first")
    assert (manifest["vocab_size"], manifest["end_of_text_id"], end_of_text) == (400, 0, 0)
    assert manifest["sha256"] == sha256_file(tmp_path / "first" / "tokenizer.json")
    assert len(tokenizer.encode(" the night").ids) < 5
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path / "first")
    assert theirs.eos_token_id == 0
    for text in ("no such words: żółw 海 \x00\r\n\t ", "  leading and trailing  "):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
        assert theirs(text)["input_ids"] == tokenizer.encode(text).ids


def test_a_tokenizer_does_not_learn_from_heldout_documents(tmp_path: Path) -> None:
    texts = stories(300)
    kept = [text for text in texts if not is_heldout(text, 0.5)]
    assert 0 < len(kept) < len(texts)
    train_tokenizer([save_part(texts, tmp_path / "all")], 300, tmp_path / "first", heldout_fraction=0.5)
    train_tokenizer([save_part(kept, tmp_path / "kept")], 300, tmp_path / "second")
    assert (tmp_path / "first" / "tokenizer.json").read_bytes() == (tmp_path / "second" / "tokenizer.json").read_bytes()


def test_tokenizer_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        train_tokenizer([tmp_path / "part-0000.parquet"], 300, tmp_path)
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"not a tokenizer\.json"):
        load_tokenizer(tmp_path)
    without_end = '{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":[]}}'
    with pytest.raises(UserError, match=r"no token <\|endoftext\|>"):
        save_tokenizer(without_end, tmp_path, {})


def test_documents_of_white_space_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "part-0000.parquet"
    facts = write_documents(((text, {"license": "CC0"}) for text in ("one", " \n", "", "thrée")), path)
    assert list(read_texts(path)) == [["one", "thrée"]]
    assert (facts["rows"], facts["empty"], facts["bytes"], facts["licence"]) == (2, 2, 9, "CC0")


def test_heldout_is_the_hash_of_the_text() -> None:
    for fraction in (0.0, 0.01, 0.3, 1.0):
        for text in stories(400):
            assert is_heldout(text, fraction) == (
                int(hashlib.sha256(text.encode()).hexdigest(), 16) / 2**256 < fraction
            )


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 700), max_size=30),
    context_length=st.integers(1, 9),
    max_rows=st.none() | st.integers(0, 1500),
)
def test_rows_are_the_stream_cut_evenly(
    lengths: list[int], context_length: int, max_rows: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    stream = np.arange(sum(lengths), dtype=np.uint16)
    added = 0
    with RowWriter(path, context_length, np.dtype(np.uint16), max_rows) as writer:
        for length in lengths:
            if writer.full:
                break
            writer.add(stream[added : added + length])
            added += length
    rows = len(stream) // context_length
    rows = rows if max_rows is None else min(rows, max_rows)
    assert writer.rows == rows
    assert rows_in(path).tolist() == stream[: rows * context_length].reshape(rows, context_length).tolist()
    assert writer.dropped == added - rows * context_length
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == writer.row_groups
    assert all(count == ROW_GROUP_ROWS for count in writer.row_groups[:-1])
    schema = pq.read_schema(path).field("tokens")
    assert str(schema.type).startswith("fixed_size_list") and schema.type.list_size == context_length


def tokenized(
    texts: list[str], folder: Path, tokenizer: Path, part: int = 0, context_length: int = 16, **options: Any
) -> dict[str, Any]:
    options = {"heldout_fraction": 0.1, **options}
    corpus = save_part(texts, folder / "corpus", part)
    return tokenize_part(corpus, tokenizer, context_length, folder / "tokens", **options)


def test_tokens_are_the_documents_each_with_its_end(
    tmp_path: Path, byte_tokenizer: Path, byte_ids: dict[int, int]
) -> None:
    texts = [*stories(400), "naïve — 海", "<|endoftext|>"]
    manifest = tokenized(texts, tmp_path, byte_tokenizer)
    training = [text for text in texts if not is_heldout(text, 0.1)]
    stream = [token for text in training for token in [*(byte_ids[byte] for byte in text.encode()), 0]]
    rows = rows_in(tmp_path / "tokens" / "part-0000.parquet")
    assert rows.tolist() == np.array(stream[: len(stream) // 16 * 16]).reshape(-1, 16).tolist()
    assert manifest["rows"] == len(rows) > ROW_GROUP_ROWS
    assert manifest["tokens"] == rows.size
    assert manifest["dropped_tokens"] == len(stream) % 16
    assert manifest["documents"] == len(training)
    assert manifest["bytes"] == sum(len(text.encode()) for text in training)
    heldout = pq.read_table(tmp_path / "tokens" / "heldout-0000.parquet").to_pylist()
    assert [row["text"] for row in heldout] == [text for text in texts if is_heldout(text, 0.1)]
    assert all(row["tokens"] == [*(byte_ids[byte] for byte in row["text"].encode()), 0] for row in heldout)
    assert read_json(tmp_path / "tokens" / "part-0000.json") == manifest


def test_a_budget_is_exact_and_keeps_the_heldout_part(tmp_path: Path, byte_tokenizer: Path) -> None:
    texts = stories(600)
    whole = tokenized(texts, tmp_path / "all", byte_tokenizer)
    everything = rows_in(tmp_path / "all" / "tokens" / "part-0000.parquet")
    ends = np.cumsum([len(text.encode()) + 1 for text in texts if not is_heldout(text, 0.1)])
    for budget in (15, 1000, 16 * ROW_GROUP_ROWS + 17, 10**9):
        cut = tokenized(texts, tmp_path / "cut", byte_tokenizer, budget=budget)
        assert cut["rows"] == min(budget // 16, whole["rows"])
        rows = rows_in(tmp_path / "cut" / "tokens" / "part-0000.parquet")
        assert rows.tolist() == everything[: cut["rows"]].tolist()
        needed = np.searchsorted(ends, budget // 16 * 16) + 1 if budget >= 16 else 0
        assert cut["documents"] == min(needed, len(ends))
        assert cut["heldout"] == whole["heldout"]
    assert [share_of_budget(1001, part, 3) for part in range(3)] == [334, 334, 333]
    assert share_of_budget(None, 0, 3) is None


def finished(tmp_path: Path, tokenizer: Path) -> tuple[dict[str, Any], Path]:
    for part in range(3):
        tokenized(stories(150, seed=part), tmp_path, tokenizer, part)
    return finish_tokens(tmp_path / "tokens", 3, tokenizer), tmp_path / "tokens"


def test_books_are_not_encoded_all_at_once(
    tmp_path: Path, byte_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoded, a million characters take some 40 MB."""
    sizes = []

    def encode(encoder: Any, texts: list[str], *others: Any) -> Any:
        sizes.append(sum(map(len, texts)))
        return given_encode(encoder, [text[:9] for text in texts], *others)

    given_encode = tokens.encode
    monkeypatch.setattr(tokens, "encode", encode)
    part = save_part([f"{number} {'a tale ' * 43_000}" for number in range(12)], tmp_path, 0)
    tokenize_part(part, byte_tokenizer, 32, tmp_path / "tokens", heldout_fraction=0.1)
    assert len(sizes) == 3 and max(sizes) < 1_500_000, sizes


def test_the_manifest_describes_the_table(tmp_path: Path, byte_tokenizer: Path) -> None:
    manifest, folder = finished(tmp_path, byte_tokenizer)
    assert read_json(folder / "manifest.json") == manifest
    facts = ("context_length", "dtype", "vocab_size", "end_of_text_id")
    assert [manifest[fact] for fact in facts] == [16, "uint16", 257, 0]
    assert manifest["tokenizer_sha256"] == sha256_file(byte_tokenizer / "tokenizer.json")
    for entry in [*manifest["parts"], manifest["heldout"]]:
        assert entry["sha256"] == sha256_file(folder / entry["file"])
    assert manifest["rows"] == sum(len(rows_in(folder / entry["file"])) for entry in manifest["parts"])
    assert manifest["tokens"] == manifest["rows"] * 16
    texts = [text for part in range(3) for text in stories(150, seed=part) if is_heldout(text, 0.1)]
    heldout = pq.read_table(folder / "heldout.parquet")
    assert heldout.column("text").to_pylist() == texts
    size, words = sum(len(text.encode()) for text in texts), sum(len(re.split(r"\s+", text)) for text in texts)
    expected = {"documents": len(texts), "rows": len(texts), "words": words, "bytes": size, "tokens": size + len(texts)}
    assert manifest["heldout"].items() >= expected.items()


def test_the_side_text(tmp_path: Path, byte_tokenizer: Path, byte_ids: dict[int, int]) -> None:
    """The first tokens of a token table, through all its parts, or of a text."""
    _, folder = finished(tmp_path, byte_tokenizer)
    first, second = (rows_in(folder / f"part-000{part}.parquet").ravel().tolist() for part in (0, 1))
    side = tmp_path / "side.parquet"
    for length in (5000, len(first) + 50):
        write_side_text(folder / "manifest.json", byte_tokenizer, length, side)
        assert side_tokens(side).tolist() == [*first, *second][:length]
    text = save_part(["abc", "defg"], tmp_path / "other")
    write_side_text(text, byte_tokenizer, 7, side)
    assert side_tokens(side).tolist() == [byte_ids.get(byte, 0) for byte in (*b"abc", None, *b"def")]
    with pytest.raises(UserError, match="the side text has 9 tokens, but 10 are needed"):
        write_side_text(text, byte_tokenizer, 10, side)


def test_what_cannot_be_finished(tmp_path: Path, byte_tokenizer: Path) -> None:
    tokenized(stories(20), tmp_path / "none", byte_tokenizer, heldout_fraction=0.0)
    with pytest.raises(UserError, match=r"no document fell into the held-out part: raise tokens\.heldout_fraction"):
        finish_tokens(tmp_path / "none" / "tokens", 1, byte_tokenizer)
    tokenized(stories(20), tmp_path / "all", byte_tokenizer, heldout_fraction=1.0)
    with pytest.raises(UserError, match="does not fill one row of 16 tokens"):
        finish_tokens(tmp_path / "all" / "tokens", 1, byte_tokenizer)
    _, folder = finished(tmp_path, byte_tokenizer)
    tokenized(stories(50), tmp_path, byte_tokenizer, part=1, context_length=32)
    with pytest.raises(UserError, match=r"part-0001\.parquet: made with another tokenizer or other settings"):
        finish_tokens(folder, 3, byte_tokenizer)
    write_json(tmp_path / "tokenizer.json", {})
    with pytest.raises(UserError, match=r"part-0000\.parquet: made with another tokenizer"):
        finish_tokens(folder, 3, tmp_path)
