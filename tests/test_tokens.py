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

from deconattn.data.documents import read_texts, write_documents
from deconattn.data.encoding import token_dtype
from deconattn.data.heldout import is_heldout
from deconattn.data.order import side_tokens
from deconattn.data.packing import ROW_GROUP_ROWS, RowWriter
from deconattn.data.sidetext import write_side_text
from deconattn.data.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from deconattn.data.tokens import finish_tokens, share_of_budget, tokenize_part
from deconattn.errors import UserError
from deconattn.files import read_json, sha256_file, write_json
from tests.conftest import ROOT
from tests.small_data import save_byte_tokenizer, save_part

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


# --- tokenizers --------------------------------------------------------------------------------------------------


def test_the_pretrained_tokenizer_is_the_papers(shared_data: Path) -> None:
    tokenizer, end_of_text = load_tokenizer(shared_data / "tokenizer")
    assert tokenizer.encode("Hello world").ids == [12092, 1533]
    assert (tokenizer.get_vocab_size(), end_of_text) == (50277, 0)
    # Spelled out in a document it is text, not the end of one.
    ids = tokenizer.encode("a<|endoftext|>b").ids
    assert 0 not in ids and tokenizer.decode(ids) == "a<|endoftext|>b"


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
    for text in ("no such words: żółw 海 \x00\r\n\t ", "  leading and trailing  "):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_tokenizer_does_not_learn_from_heldout_documents(tmp_path: Path) -> None:
    texts = stories(300)
    kept = [text for text in texts if not is_heldout(text, 0.5)]
    assert 0 < len(kept) < len(texts)
    train_tokenizer([save_part(texts, tmp_path / "all")], 300, tmp_path / "first", heldout_fraction=0.5)
    train_tokenizer([save_part(kept, tmp_path / "kept")], 300, tmp_path / "second")
    assert (tmp_path / "first" / "tokenizer.json").read_bytes() == (tmp_path / "second" / "tokenizer.json").read_bytes()


def test_transformers_reads_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    train_tokenizer([save_part(stories(50), tmp_path)], 300, tmp_path / "tokenizer")
    ours, _ = load_tokenizer(tmp_path / "tokenizer")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "tokenizer")
    assert theirs.eos_token_id == 0
    assert theirs("the old king")["input_ids"] == ours.encode("the old king").ids


def test_tokenizer_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size 256: at least 257"):
        train_tokenizer([], 256, tmp_path)
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


# --- documents and the held-out part -----------------------------------------------------------------------------


def test_documents_of_white_space_and_half_characters(tmp_path: Path) -> None:
    texts = ["one", " \n", "tw\ud800o", "", "three"]
    facts = write_documents(((text, {"license": "CC0"}) for text in texts), tmp_path / "part-0000.parquet")
    assert [text for batch in read_texts(tmp_path / "part-0000.parquet") for text in batch] == ["one", "tw?o", "three"]
    assert (facts["rows"], facts["empty"], facts["bytes"], facts["licence"]) == (3, 2, 12, "CC0")


def test_heldout_is_the_hash_of_the_text() -> None:
    texts = stories(4000)
    for fraction in (0.0, 0.01, 0.3, 1.0):
        sides = [is_heldout(text, fraction) for text in texts]
        assert sides == [int(hashlib.sha256(text.encode()).hexdigest(), 16) / 2**256 < fraction for text in texts]
        assert abs(np.mean(sides) - fraction) < 0.02
    assert hashlib.sha256(b"abc").hexdigest().startswith("ba78")  # 0x0.ba78 = 0.72839
    assert is_heldout("abc", 0.7284) and not is_heldout("abc", 0.7283)


# --- packing -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
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
    groups = [pq.read_metadata(path).row_group(group).num_rows for group in range(len(writer.row_groups))]
    assert groups == writer.row_groups
    assert all(count == ROW_GROUP_ROWS for count in groups[:-1])
    schema = pq.read_schema(path).field("tokens")
    assert str(schema.type).startswith("fixed_size_list") and schema.type.list_size == context_length


def test_dtype_follows_the_vocabulary() -> None:
    assert [token_dtype(size).name for size in (257, 65536, 65537)] == ["uint16", "uint16", "uint32"]


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


@pytest.mark.parametrize("budget", [0, 15, 16, 1000, 16 * ROW_GROUP_ROWS, 16 * ROW_GROUP_ROWS + 17, 10**9])
def test_a_budget_is_exact_and_keeps_the_heldout_part(tmp_path: Path, byte_tokenizer: Path, budget: int) -> None:
    texts = stories(600)
    whole = tokenized(texts, tmp_path / "all", byte_tokenizer)
    cut = tokenized(texts, tmp_path / "cut", byte_tokenizer, budget=budget)
    assert cut["rows"] == min(budget // 16, whole["rows"])
    everything = rows_in(tmp_path / "all" / "tokens" / "part-0000.parquet")
    if cut["rows"]:
        assert (rows_in(tmp_path / "cut" / "tokens" / "part-0000.parquet") == everything[: cut["rows"]]).all()
    assert cut["heldout"] == whole["heldout"]
    assert cut["documents"] <= whole["documents"]


def test_shares_of_a_budget_add_up() -> None:
    assert [share_of_budget(1001, part, 3) for part in range(3)] == [334, 334, 333]
    assert share_of_budget(None, 0, 3) is None


def test_a_text_is_heldout_in_whichever_part(tmp_path: Path, byte_tokenizer: Path) -> None:
    texts = stories(300)
    tokenized(texts, tmp_path, byte_tokenizer, part=0)
    tokenized(texts[::-1], tmp_path, byte_tokenizer, part=7)
    first, second = (
        pq.read_table(tmp_path / "tokens" / f"heldout-000{part}.parquet").column("text").to_pylist() for part in (0, 7)
    )
    assert first == second[::-1] and first


# --- the whole table ---------------------------------------------------------------------------------------------


def finished(tmp_path: Path, tokenizer: Path, **options: Any) -> tuple[dict[str, Any], Path]:
    for part in range(3):
        tokenized(stories(150, seed=part), tmp_path, tokenizer, part)
    return finish_tokens(tmp_path / "tokens", 3, tokenizer, **options), tmp_path / "tokens"


def test_the_manifest_describes_the_table(tmp_path: Path, byte_tokenizer: Path) -> None:
    manifest, folder = finished(tmp_path, byte_tokenizer)
    assert read_json(folder / "manifest.json") == manifest
    assert (manifest["id"], manifest["context_length"], manifest["dtype"]) == ("tokens", 16, "uint16")
    assert (manifest["vocab_size"], manifest["end_of_text_id"]) == (257, 0)
    assert manifest["tokenizer_sha256"] == sha256_file(byte_tokenizer / "tokenizer.json")
    for entry in [*manifest["parts"], manifest["heldout"]]:
        assert entry["sha256"] == sha256_file(folder / entry["file"])
    assert manifest["rows"] == sum(len(rows_in(folder / entry["file"])) for entry in manifest["parts"])
    assert manifest["tokens"] == manifest["rows"] * 16
    texts = [text for part in range(3) for text in stories(150, seed=part) if is_heldout(text, 0.1)]
    heldout = pq.read_table(folder / "heldout.parquet")
    assert heldout.column("text").to_pylist() == texts
    assert manifest["heldout"]["documents"] == manifest["heldout"]["rows"] == len(texts)
    assert manifest["heldout"]["words"] == sum(len(re.split(r"\s+", text)) for text in texts)
    assert manifest["heldout"]["bytes"] == sum(len(text.encode()) for text in texts)
    assert manifest["heldout"]["tokens"] == sum(len(text.encode()) + 1 for text in texts)


def test_the_side_text(tmp_path: Path, byte_tokenizer: Path, byte_ids: dict[int, int]) -> None:
    _, folder = finished(tmp_path, byte_tokenizer)
    write_side_text(folder / "manifest.json", byte_tokenizer, 5000, folder / "side.parquet")
    stream = rows_in(folder / "part-0000.parquet").ravel()
    assert side_tokens(folder / "side.parquet").tolist() == stream[:5000].tolist()
    # The same by its own command, out of the table's manifest, and beyond the end of the first part.
    longer = len(stream) + 50
    write_side_text(folder / "manifest.json", byte_tokenizer, longer, tmp_path / "longer.parquet")
    both = [*stream, *rows_in(folder / "part-0001.parquet").ravel()]
    assert side_tokens(tmp_path / "longer.parquet").tolist() == both[:longer]
    # Out of another text.
    other = save_part(["abc", "defg"], tmp_path / "other")
    write_side_text(other, byte_tokenizer, 7, tmp_path / "other.parquet")
    assert side_tokens(tmp_path / "other.parquet").tolist() == [
        *(byte_ids[byte] for byte in b"abc"),
        0,
        *(byte_ids[byte] for byte in b"def"),
    ]
    with pytest.raises(UserError, match="the side text has 9 tokens, but 10 are needed"):
        write_side_text(other, byte_tokenizer, 10, tmp_path / "short.parquet")


def test_what_cannot_be_finished(tmp_path: Path, byte_tokenizer: Path) -> None:
    tokenized(stories(20), tmp_path / "none", byte_tokenizer, heldout_fraction=0.0)
    with pytest.raises(UserError, match=r"no document fell into the held-out part: raise tokens\.heldout_fraction"):
        finish_tokens(tmp_path / "none" / "tokens", 1, byte_tokenizer)
    tokenized(stories(20), tmp_path / "all", byte_tokenizer, heldout_fraction=1.0)
    with pytest.raises(UserError, match="does not fill one row of 16 tokens"):
        finish_tokens(tmp_path / "all" / "tokens", 1, byte_tokenizer)
    _, folder = finished(tmp_path, byte_tokenizer)
    with pytest.raises(UserError, match=r"part-0003\.json: no such file"):
        finish_tokens(folder, 4, byte_tokenizer)
    tokenized(stories(50), tmp_path, byte_tokenizer, part=1, context_length=32)
    with pytest.raises(UserError, match=r"part-0001\.parquet: made with other settings than part 0"):
        finish_tokens(folder, 3, byte_tokenizer)
    write_json(tmp_path / "tokenizer.json", {})
    with pytest.raises(UserError, match="another tokenizer"):
        finish_tokens(folder, 3, tmp_path)
    with pytest.raises(UserError, match="not the name of a corpus part"):
        tokenize_part(tmp_path / "x.parquet", byte_tokenizer, 16, tmp_path, heldout_fraction=0.1)


def test_real_text(tmp_path: Path, shared_data: Path) -> None:
    """Real prose with the paper's tokenizer, beside a naive packing of the same documents."""
    table = pq.read_table(shared_data / "corpus" / "wikipedia_sample.parquet", columns=["text"])
    texts = table.column("text").to_pylist()[:25]
    tokenizer = shared_data / "tokenizer"
    manifest = tokenized(texts, tmp_path, tokenizer, context_length=512, heldout_fraction=0.05)
    encoder, _ = load_tokenizer(tokenizer)
    stream = [token for text in texts if not is_heldout(text, 0.05) for token in [*encoder.encode(text).ids, 0]]
    rows = rows_in(tmp_path / "tokens" / "part-0000.parquet")
    assert rows.tolist() == np.array(stream[: len(rows) * 512]).reshape(-1, 512).tolist()
    assert manifest["tokens"] + manifest["dropped_tokens"] == len(stream)
    assert 3.5 < manifest["bytes"] / len(stream) < 5
