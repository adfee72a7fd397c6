"""The order of training rows, and how a damaged table is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deconattn.data.order import batch, permutation, rows_of_rank
from deconattn.data.packing import RowWriter
from deconattn.data.table import TokenTable, heldout_rows
from deconattn.data.tokens import finish_tokens, tokenize_part
from deconattn.errors import UserError
from deconattn.files import sha256_file, write_json
from tests.conftest import ROOT
from tests.data import save_byte_tokenizer, save_part

CONTEXT = 4


def make_table(folder: Path, rows_of_parts: list[int]) -> Path:
    """A table whose row r is (r, r + 1, r + 2, r + 3) mod 2^16, numbered through all parts."""
    folder.mkdir()
    entries, first = [], 0
    for part, rows in enumerate(rows_of_parts):
        path = folder / f"part-{part:04d}.parquet"
        with RowWriter(path, CONTEXT, np.dtype(np.uint16)) as writer:
            ids = np.arange(first, first + rows)[:, None] + np.arange(CONTEXT)
            writer.add(ids.astype(np.uint16).ravel())
        entries.append({"file": path.name, "sha256": sha256_file(path), "row_group_rows": writer.row_groups})
        first += rows
    manifest = {"context_length": CONTEXT, "vocab_size": 300, "end_of_text_id": 0, "parts": entries, "rows": first}
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One window: three row groups."""
    return make_table(tmp_path_factory.mktemp("small") / "table", [1500, 77])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty row groups in three parts, so three windows an epoch."""
    return make_table(tmp_path_factory.mktemp("large") / "table", [20 * 1024, 12 * 1024 + 5, 6 * 1024 + 900])


def reference_permutation(count: int, *key: int) -> list[int]:
    """SplitMix64 in Python's integers, after Steele, Lea and Flood (2014), figure 16."""
    mask = 2**64 - 1

    def mix(state: int) -> int:
        z = (state + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    assert mix(0) == 0xE220A8397B1DCDAF  # the generator's published first output for seed 0
    state = 0
    for value in key:
        state = mix(state ^ (value & mask))
    return sorted(range(count), key=lambda index: mix(index ^ state))


@given(count=st.integers(0, 300), key=st.lists(st.integers(-(2**40), 2**70), max_size=3))
def test_permutations_are_splitmix64s(count: int, key: list[int]) -> None:
    found = permutation(count, *key)
    assert found.tolist() == reference_permutation(count, *key)
    assert sorted(found.tolist()) == list(range(count))


@pytest.mark.parametrize("name", ["small", "large"])
def test_the_order_is_the_definition(name: str, request: pytest.FixtureRequest) -> None:
    """Two epochs, row by row, against the definition in the module's docstring; whatever steps were read before."""
    expected: list[int] = []
    with TokenTable(request.getfixturevalue(name)) as table:
        starts = np.cumsum([0, *table.group_rows])
        for epoch in (0, 1):
            groups = reference_permutation(len(table.group_rows), 9, epoch)
            for window in range(0, -(-len(groups) // 16)):
                chosen = sorted(groups[16 * window : 16 * window + 16])
                rows = [row for group in chosen for row in range(starts[group], starts[group + 1])]
                expected += [rows[place] for place in reference_permutation(len(rows), 9, epoch, window)]
        sequences = len(expected) // 7
        batches = {step: batch(table, 9, step, sequences) for step in (6, 3, 0, 4, 1, 2, 5)}
    found = np.concatenate([batches[step] for step in range(7)])
    assert found.dtype == np.int64
    assert found.tolist() == [[(row + place) % 2**16 for place in range(CONTEXT)] for row in expected[: 7 * sequences]]


def test_ranks_read_their_rows_of_the_same_batch(large: Path) -> None:
    with TokenTable(large) as table:
        whole = batch(table, 2, 43, 900)
        pieces = [batch(table, 2, 43, 900, rows_of_rank(900, rank, 7)) for rank in range(7)]
        assert (np.concatenate(pieces) == whole).all() and {len(piece) for piece in pieces} == {128, 129}
        assert batch(table, 2, 43, 3, rows_of_rank(3, 6, 7)).shape == (0, CONTEXT)


def test_a_process_that_forgets_to_close_ends_and_needs_no_torch(large: Path) -> None:
    code = (
        "import sys; from deconattn.data.order import TokenTable, batch;"
        f"batch(TokenTable({str(large)!r}), 0, 0, 8);"
        "print(sorted({'torch', 'pandas', 'transformers', 'datasets', 'tokenizers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FIRST = r"table/part-0000\.parquet: row group"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, r"table/part-0000\.parquet: no such file, though manifest\.json lists it"),
        (flip_a_bit, rf"{FIRST} \d cannot be read \(.*(CRC|checksum)"),
        (lambda path: pq.write_table(pq.read_table(path), path), rf"{FIRST} 0 .*\(1 row groups, the manifest lists 2"),
        (lambda path: shutil.copy(path.with_name("part-0001.parquet"), path), rf"{FIRST} [01] cannot be read"),
        (lambda path: (path.parent / "manifest.json").unlink(), r"manifest\.json: no such file"),
    ],
    ids=["missing", "bit", "groups", "other", "manifest"],
)
def test_damage_is_named(damage: Callable[[Path], object], message: str, small: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "table"))
    damage(folder / "part-0000.parquet")
    with pytest.raises(UserError, match=message) as caught, TokenTable(folder) as table:
        batch(table, 0, 0, table.rows)
    assert "\n" not in str(caught.value)


def test_damage_found_while_reading_ahead_is_raised_when_it_is_reached(large: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(large, tmp_path / "table"))
    with TokenTable(folder) as table:
        assert len(table.group_rows) == 40
        part, group = table._groups[int(permutation(40, 0, 0)[16])]
        path = folder / part["file"]
        place = pq.read_metadata(path).row_group(group).column(0).data_page_offset
        with path.open("r+b") as stream:
            stream.seek(place)
            stream.write(b"\xff" * 200)
        batch(table, 0, 0, 100)
        with pytest.raises(UserError, match=f"row group {group} cannot be read"):
            batch(table, 0, 16, 1024)


def test_heldout_rows_are_the_heldout_documents(tmp_path: Path) -> None:
    tokenizer, tokens = save_byte_tokenizer(tmp_path / "tokenizer"), tmp_path / "tokens"
    corpus = save_part([f"This is document {index}, of no great length." for index in range(200)], tmp_path)
    tokenize_part(corpus, tokenizer, 32, tokens, heldout_fraction=0.2)
    finish_tokens(tokens, 1, tokenizer)
    documents = pq.read_table(tokens / "heldout.parquet").column("tokens").to_pylist()
    for limit in (None, 3):
        stream = [token for document in documents[:limit] for token in document]
        for context_length in (32, 50):
            rows = heldout_rows(tokens, context_length, limit)
            assert rows.dtype == np.int64
            assert rows.tolist() == np.array(stream[: len(rows) * context_length]).reshape(-1, context_length).tolist()
            assert len(stream) - rows.size < context_length
    with pytest.raises(UserError, match="do not fill one row of 4096 tokens"):
        heldout_rows(tokens, 4096, 1)
    flip_a_bit(tokens / "heldout.parquet")
    with pytest.raises(UserError, match=r"heldout\.parquet: missing or damaged"):
        heldout_rows(tokens, 32)
