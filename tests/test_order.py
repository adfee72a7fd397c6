"""The order of training rows, and how a damaged table is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deconattn.data import order
from deconattn.data.order import TokenTable, batch, heldout_rows, permutation, rows_of_rank
from deconattn.data.packing import RowWriter
from deconattn.errors import UserError
from deconattn.files import sha256_file, write_json
from tests.conftest import ROOT
from tests.small_data import save_byte_tokenizer, save_part

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


# --- permutations ------------------------------------------------------------------------------------------------


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


def test_permutations_are_unlike() -> None:
    """Neighbouring keys share no more places than chance gives (one on average)."""
    keys = [(seed, epoch) for seed in range(6) for epoch in range(6)]
    arrays = [permutation(1000, *key) for key in keys]
    same = [int((first == second).sum()) for i, first in enumerate(arrays) for second in arrays[:i]]
    assert max(same) <= 8 and 0.8 < np.mean(same) < 1.2
    # First places are spread evenly over the range: a mean of 499.5, standard error 4.6.
    assert abs(np.mean([permutation(1000, 1, epoch)[0] for epoch in range(4000)]) - 499.5) < 5 * 4.6


# --- batches -----------------------------------------------------------------------------------------------------


def first_tokens(table: TokenTable, seed: int, steps: range, sequences: int) -> list[int]:
    return [int(row) for step in steps for row in batch(table, seed, step, sequences)[:, 0]]


@pytest.mark.parametrize("name", ["small", "large"])
def test_an_epoch_visits_every_row_once(name: str, request: pytest.FixtureRequest) -> None:
    with TokenTable(request.getfixturevalue(name)) as table:
        sequences = 100
        steps = range(2 * table.rows // sequences + 1)
        rows = first_tokens(table, 3, steps, sequences)
    first, second = rows[: table.rows], rows[table.rows : 2 * table.rows]
    assert sorted(first) == sorted(second) == list(range(table.rows))
    assert first != second and first != sorted(first)


def test_batches_have_whole_rows_in_int64(small: Path) -> None:
    with TokenTable(small) as table:
        rows = batch(table, 0, 5, 7)
    assert rows.shape == (7, CONTEXT) and rows.dtype == np.int64
    assert (rows == rows[:, :1] + np.arange(CONTEXT)).all()


def test_the_order_is_the_definition(large: Path) -> None:
    """Row by row against the definition in the module's docstring, by the reference permutation."""
    with TokenTable(large) as table:
        starts = np.cumsum([0, *table.group_rows])
        expected: list[int] = []
        for epoch in (0, 1):
            groups = reference_permutation(len(table.group_rows), 9, epoch)
            for window in range(0, -(-len(groups) // 16)):
                chosen = sorted(groups[16 * window : 16 * window + 16])
                rows = [row for group in chosen for row in range(starts[group], starts[group + 1])]
                expected += [rows[place] for place in reference_permutation(len(rows), 9, epoch, window)]
        sequences = 1000
        steps = range(len(expected) // sequences)
        assert first_tokens(table, 9, steps, sequences) == expected[: len(steps) * sequences]


def test_a_step_does_not_depend_on_what_came_before(large: Path) -> None:
    """Any step, in any order, from a fresh table or a used one: the same rows as read in sequence."""
    sequences = 900
    with TokenTable(large) as table:
        in_sequence = [batch(table, 1, step, sequences) for step in range(90)]
    generator = np.random.default_rng(0)
    with TokenTable(large) as used:
        for step in generator.permutation(90)[:30]:
            assert (batch(used, 1, int(step), sequences) == in_sequence[step]).all()
    for step in (0, 43, 44, 89):  # 43 spans two epochs
        with TokenTable(large) as fresh:
            assert (batch(fresh, 1, step, sequences) == in_sequence[step]).all()


def test_seeds_give_other_orders(small: Path) -> None:
    with TokenTable(small) as table:
        assert first_tokens(table, 0, range(3), 50) != first_tokens(table, 1, range(3), 50)


def test_a_batch_larger_than_the_table(small: Path) -> None:
    with TokenTable(small) as table:
        counts = Counter(first_tokens(table, 0, range(1), 3 * table.rows + 1))
    assert sorted(set(counts.values())) == [3, 4] and len(counts) == table.rows


@given(sequences=st.integers(0, 40), processes=st.integers(1, 9))
def test_ranks_share_a_batch(sequences: int, processes: int) -> None:
    shares = [list(range(sequences))[rows_of_rank(sequences, rank, processes)] for rank in range(processes)]
    assert [row for share in shares for row in share] == list(range(sequences))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_ranks_read_their_rows_of_the_same_batch(large: Path) -> None:
    with TokenTable(large) as table:
        whole = batch(table, 2, 43, 900)
        pieces = [batch(table, 2, 43, 900, rows_of_rank(900, rank, 7)) for rank in range(7)]
        assert (np.concatenate(pieces) == whole).all()
        assert batch(table, 2, 43, 3, rows_of_rank(3, 6, 7)).shape == (0, CONTEXT)


# --- the table ---------------------------------------------------------------------------------------------------


def test_reading_ahead_leaves_no_thread_and_little_in_memory(large: Path) -> None:
    before = set(threading.enumerate())
    with TokenTable(large) as table:
        for step in range(60):
            batch(table, 0, step, 1000)
            assert len(set(threading.enumerate()) - before) <= 1
            assert len(table._cache) <= 2
    assert set(threading.enumerate()) == before


def test_the_next_window_is_read_ahead(large: Path) -> None:
    with TokenTable(large) as table:
        batch(table, 0, 0, 10)
        assert table._ahead is not None
        table._ahead.join()
        assert len(table._cache) == 2
        groups = permutation(len(table.group_rows), 0, 0)
        assert tuple(sorted(groups[16:32].tolist())) in table._cache


def test_a_process_that_forgets_to_close_ends_and_needs_no_torch(large: Path) -> None:
    code = (
        "import sys; from deconattn.data.order import TokenTable, batch;"
        f"batch(TokenTable({str(large)!r}), 0, 0, 8);"
        "print(sorted({'torch', 'pandas', 'transformers', 'datasets', 'tokenizers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_damage_is_named(small: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(small, tmp_path / name))

    def all_rows(table: TokenTable) -> None:
        batch(table, 0, 0, table.rows)

    missing = copy("missing")
    (missing / "part-0001.parquet").unlink()
    with pytest.raises(UserError, match=r"missing/part-0001\.parquet: no such file, though manifest\.json lists it"):
        TokenTable(missing)

    damaged = copy("damaged")
    path = damaged / "part-0000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged/part-0000\.parquet: row group \d cannot be read \(.*(CRC|checksum)"):
        all_rows(TokenTable(damaged))

    short = copy("short")
    pq.write_table(pq.read_table(short / "part-0000.parquet"), short / "part-0000.parquet")
    with pytest.raises(UserError, match=r"row group 0 cannot be read \(1 row groups, the manifest lists \d\)"):
        all_rows(TokenTable(short))

    cut = copy("cut")
    path = cut / "part-0000.parquet"
    place = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[place : place + 200] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cut/part-0000\.parquet: row group 1 cannot be read") as caught:
        all_rows(TokenTable(cut))
    assert "\n" not in str(caught.value)

    other = copy("other")
    shutil.copy(small / "part-0001.parquet", other / "part-0000.parquet")
    with pytest.raises(UserError, match=r"other/part-0000\.parquet: row group [01] cannot be read"):
        all_rows(TokenTable(other))

    with pytest.raises(UserError, match=r"manifest\.json: no such file"):
        TokenTable(tmp_path / "nowhere")


def test_damage_found_while_reading_ahead_is_raised_when_it_is_reached(large: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(large, tmp_path / "table"))
    groups = permutation(40, 0, 0)
    table = TokenTable(folder)
    assert len(table.group_rows) == 40
    second = table._places[int(groups[16])]
    path = folder / f"part-{second[0]:04d}.parquet"
    place = pq.read_metadata(path).row_group(second[1]).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[place : place + 200] = b"\xff" * 200
    path.write_bytes(content)
    batch(table, 0, 0, 100)
    with pytest.raises(UserError, match=f"row group {second[1]} cannot be read"):
        batch(table, 0, 16, 1024)
    table.close()


# --- the held-out rows -------------------------------------------------------------------------------------------


def test_heldout_rows_are_the_heldout_documents(tmp_path: Path) -> None:
    from deconattn.data.tokens import finish_tokens, tokenize_part

    tokenizer = save_byte_tokenizer(tmp_path / "tokenizer")
    texts = [f"This is document {index}, of no great length." for index in range(200)]
    corpus = save_part(texts, tmp_path)
    tokenize_part(corpus, tokenizer, 32, tmp_path / "tokens", heldout_fraction=0.2)
    finish_tokens(tmp_path / "tokens", 1, tokenizer)
    documents = pq.read_table(tmp_path / "tokens" / "heldout.parquet").column("tokens").to_pylist()
    for limit in (None, 3):
        stream = [token for document in documents[:limit] for token in document]
        for context_length in (32, 50):
            rows = heldout_rows(tmp_path / "tokens", context_length, limit)
            assert rows.dtype == np.int64
            assert rows.tolist() == np.array(stream[: len(rows) * context_length]).reshape(-1, context_length).tolist()
            assert len(stream) - rows.size < context_length
    with pytest.raises(UserError, match="do not fill one row of 4096 tokens"):
        heldout_rows(tmp_path / "tokens", 4096, 1)
    with TokenTable(tmp_path / "tokens") as table:
        assert batch(table, 0, 0, 4).shape == (4, 32)
    with (tmp_path / "tokens" / "heldout.parquet").open("r+b") as stream_of_bytes:
        stream_of_bytes.write(b"x")
    with pytest.raises(UserError, match=r"heldout\.parquet: damaged"):
        heldout_rows(tmp_path / "tokens", 32)


def test_windows_are_what_the_docstring_says() -> None:
    assert order.WINDOW_GROUPS == 16
