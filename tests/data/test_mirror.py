"""The mirror of a hub's form on disk and of a folder of Parquet: text and tokenizers."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from deconattn.data import mirror
from deconattn.data.documents import read_texts
from deconattn.data.tokenizer import load_tokenizer
from deconattn.errors import UserError
from deconattn.files import read_json, sha256_file
from tests.conftest import ROOT

FILES, DOCUMENTS = 7, 30


def part_path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:04d}.parquet"


def texts_of(folder: Path, parts: int) -> list[list[str]]:
    return [[text for batch in read_texts(part_path(folder, part)) for text in batch] for part in range(parts)]


def slimpajama_line(file: int, document: int) -> dict[str, Any]:
    tale = f"the {file * 37 + document}th tale of a long night. " * (3 + document % 5)
    meta = {"redpajama_set_name": ("RedPajamaC4", "RedPajamaBook")[document % 2]}
    return {"text": f"File {file}, document {document}: {tale}", "meta": meta}


def lines_of(file: int) -> bytes:
    return "".join(json.dumps(slimpajama_line(file, document)) + "\n" for document in range(DOCUMENTS)).encode()


LINES = lines_of(0)


@pytest.fixture(scope="session")
def slimpajama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/chunk1/example_train_N.jsonl.zst and so on, as the hub has it, each of two frames."""
    root = tmp_path_factory.mktemp("SlimPajama-627B")
    places = [f"train/chunk{1 + file // 5}/example_train_{file % 5}" for file in range(FILES)]
    places += ["validation/chunk1/example_holdout_0", "test/chunk1/example_holdout_0"]
    for file, place in enumerate(places):
        path = root / f"{place}.jsonl.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = lines_of(file)
        path.write_bytes(zstandard.compress(lines[:500]) + zstandard.compress(lines[500:]))
    return root


def hub(dataset: Path, **others: Any) -> dict[str, Any]:
    return {"kind": "hub", "dataset": str(dataset), "name": None, "split": "train", "revision": None, **others}


@pytest.mark.parametrize("parts", [3, 12])
def test_parts_of_a_hub_dataset_are_all_of_it_once(slimpajama: Path, tmp_path: Path, parts: int) -> None:
    for part in reversed(range(parts)):  # in whatever order
        mirror.mirror_corpus_part(hub(slimpajama), part, parts, part_path(tmp_path, part))
    manifest = mirror.merge_manifests(tmp_path, parts)
    by_part = texts_of(tmp_path, parts)
    expected = [slimpajama_line(file, document)["text"] for file in range(FILES) for document in range(DOCUMENTS)]
    assert sorted(text for texts in by_part for text in texts) == sorted(expected)
    assert manifest["rows"] == len(expected)
    if parts <= FILES:  # whole files, so that no file is read by two parts
        assert sum(len({text.split(",")[0] for text in texts}) for texts in by_part) == FILES
    else:  # every part reads on, and keeps each `parts`-th document
        assert by_part[5] == expected[5::parts]
    meta = json.loads(pq.read_table(tmp_path / "part-0000.parquet").column("meta")[0].as_py())
    assert meta == {"redpajama_set_name": "RedPajamaC4"}


def test_a_part_stops_at_its_share_of_the_bytes(slimpajama: Path, tmp_path: Path) -> None:
    for part in range(3):
        mirror.mirror_corpus_part(hub(slimpajama), part, 3, part_path(tmp_path / "cut", part), max_bytes=10_001)
        mirror.mirror_corpus_part(hub(slimpajama), part, 3, part_path(tmp_path / "all", part))
    for cut, whole in zip(texts_of(tmp_path / "cut", 3), texts_of(tmp_path / "all", 3), strict=True):
        sizes = [len(text.encode()) for text in cut]
        assert sum(sizes[:-1]) < 3334 <= sum(sizes) + 1
        assert cut == whole[: len(cut)]


def test_corpora_of_a_folder(shared_data: Path, tmp_path: Path) -> None:
    source = {"kind": "folder", "path": str(shared_data), "names": ["wikipedia_sample", "peps"], "parts": 2}
    for part in range(2):
        mirror.mirror_corpus_part(source, part, 2, part_path(tmp_path, part))
    manifest = mirror.merge_manifests(tmp_path, 2)
    tables = [pq.read_table(shared_data / "corpus" / f"{name}.parquet") for name in source["names"]]
    expected = [text for table in tables for text in table.column("text").to_pylist()]
    assert texts_of(tmp_path, 2) == [expected[0::2], expected[1::2]]
    assert manifest["rows"] == len(expected) and manifest["licence"]
    meta = json.loads(pq.read_table(tmp_path / "part-0000.parquet").column("meta")[0].as_py())
    assert set(meta) == {"redpajama_set_name", "source", "title", "license"}


def test_parts_that_do_not_belong_together(slimpajama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="corpus part 400 of 500 has no document: lower the number of parts"):
        mirror.mirror_corpus_part(hub(slimpajama), 400, 500, part_path(tmp_path, 400))
    mirror.mirror_corpus_part(hub(slimpajama), 0, 2, part_path(tmp_path, 0))
    mirror.mirror_corpus_part(hub(slimpajama, split="test"), 1, 2, part_path(tmp_path, 1))
    with pytest.raises(UserError, match=r"part-0001\.parquet: mirrored with source .*delete the folder"):
        mirror.merge_manifests(tmp_path, 2)


def without_end(lines: bytes) -> bytes:
    """A zst frame whose blocks are whole and whose end mark is missing: what is left of a download that stopped."""
    frame = zstandard.ZstdCompressor().compressobj()
    return frame.compress(lines) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


@pytest.mark.parametrize(
    ("name", "content", "others", "message"),
    [
        ("a.jsonl.zst", without_end(LINES), {}, r"a\.jsonl\.zst: Truncated compressed stream"),
        ("a.jsonl.zst", zstandard.compress(LINES) + without_end(LINES), {}, r"a\.jsonl\.zst: Truncated compressed"),
        ("a.jsonl.gz", gzip.compress(LINES)[:-4], {}, "ended before the end-of-stream marker"),
        ("a.jsonl", LINES[:-20], {}, "JSON parse error"),
        ("a.jsonl", b"", {}, "no rows"),
        ("a.jsonl", b'{"text": 7}\n', {}, r"row 0 \(from 0\), column 'text': 7 is int, not text"),
        ("a.jsonl", LINES, {"split": "trian"}, "Bad split: trian"),
        ("a.jsonl", LINES, {"name": "nonesuch"}, "nonesuch"),
        ("a.jsonl", LINES, {"text_column": "content"}, r"no column 'content' \(it has: text, meta\)"),
    ],
    ids=["zst", "zst-frame", "gz", "cut", "empty", "int", "split", "name", "column"],
)
def test_a_hub_source_that_cannot_be_read(
    name: str, content: bytes, others: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        mirror.mirror_corpus_part(hub(tmp_path / "data", **others), 0, 1, part_path(tmp_path / "out", 0))
    assert "\n" not in str(caught.value) and not part_path(tmp_path / "out", 0).exists()


def write_values(values: list[Any], path: Path) -> None:
    pq.write_table(pa.table({"text": values}), path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_text("no Parquet"), "not readable as Parquet"),
        (lambda path: write_values([7], path), r"row 0 \(from 0\), column 'text': 7 is int, not text"),
        (lambda path: write_values([["a"]], path), r"row 0 \(from 0\), column 'text': .* not text"),
    ],
    ids=["missing", "broken", "int", "list"],
)
def test_a_folder_that_cannot_be_read(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    source = {"kind": "folder", "path": str(tmp_path), "names": ["x"]}
    (tmp_path / "corpus").mkdir()
    make(tmp_path / "corpus" / "x.parquet")
    with pytest.raises(UserError, match=rf"corpus/x\.parquet: {message}"):
        mirror.mirror_corpus_part(source, 0, 1, part_path(tmp_path, 0))
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file"):
        mirror.mirror_tokenizer(source, tmp_path / "out")


def test_no_hub_is_one_line(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from deconattn.data import mirror\n"
        "from deconattn.errors import UserError\n"
        f"out = Path({str(tmp_path)!r}) / 'x.parquet'\n"
        "slim = {'kind': 'hub', 'dataset': 'gmongaras/SlimPajama-627B_Reupload', 'split': 'train'}\n"
        "for call in (lambda: mirror.mirror_corpus_part(slim, 0, 1, out),\n"
        "             lambda: mirror.mirror_task({'kind': 'hub'}, 'copa', out),\n"
        "             lambda: mirror.mirror_tokenizer({'kind': 'hub', 'dataset': 'EleutherAI/pythia-70m'}, out)):\n"
        "    try:\n        call()\n"
        "    except UserError as error:\n        print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("unset HF_HUB_OFFLINE, or mirror on a machine with a network") == 3
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "hub dataset gmongaras/SlimPajama-627B_Reupload",
        "hub dataset aps/super_glue",
        "hub model EleutherAI/pythia-70m",
    ]


def test_the_papers_tokenizer(shared_data: Path, tmp_path: Path) -> None:
    manifest = mirror.mirror_tokenizer({"kind": "folder", "path": str(shared_data)}, tmp_path)
    assert (manifest["vocab_size"], manifest["end_of_text_id"]) == (50277, 0)
    assert manifest["sha256"] == sha256_file(tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path)[0].encode("Hello world").ids == [12092, 1533]
    assert read_json(tmp_path / "tokenizer_config.json")["eos_token"] == "<|endoftext|>"
    again = mirror.mirror_tokenizer({"kind": "hub", "dataset": str(shared_data / "tokenizer")}, tmp_path / "again")
    assert again["sha256"] == manifest["sha256"]
