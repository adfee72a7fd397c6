"""A hub as a source, through `datasets` (streaming) and `huggingface_hub`; a local folder of a hub's form works too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa

from deconattn.data.folder import meta_of
from deconattn.data.tasks import conform, definition, scored_split
from deconattn.errors import UserError

datasets.disable_progress_bars()


@contextmanager
def readable_errors(what: str) -> Iterator[None]:
    """Turn whatever the libraries beneath raise (a dozen unrelated classes) into one line that names the source."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or "no message"
        raise UserError(f"hub {what}: {reason} ({type(error).__name__})") from error


def describe(dataset: str, revision: str | None) -> tuple[str | None, str | None]:
    """(commit, licence) of a dataset on the hub; (None, None) for a local folder.

    Knowing the commit, every part of a corpus reads the same state of the repository.
    """
    if Path(dataset).is_dir():
        return None, None
    with readable_errors(f"dataset {dataset}"):
        info = huggingface_hub.HfApi().dataset_info(dataset, revision=revision)
    licence = info.card_data.get("license") if info.card_data else None
    return info.sha, ", ".join(licence) if isinstance(licence, list) else licence


def corpus_documents(
    source: dict[str, Any], part: int, parts: int, revision: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stream the (text, meta) documents of part `part` of `parts`.

    Whole source files are dealt out in turn (file i, i + parts, …) where there are at least `parts` of them, so that
    a part downloads only its own; otherwise documents are, by their index modulo `parts`.
    """
    column = source.get("text_column") or "text"
    split = source.get("split") or "train"
    with readable_errors(f"dataset {source['dataset']}, split {split}"):
        stream = datasets.load_dataset(
            source["dataset"], source.get("name"), split=split, streaming=True, revision=revision
        )
        by_file = stream.num_shards >= parts
        if by_file:
            stream = stream.shard(num_shards=parts, index=part, contiguous=False)
        for index, row in enumerate(stream):
            if column not in row:
                raise UserError(f"dataset {source['dataset']}: no column {column!r} (it has: {', '.join(row)})")
            if by_file or index % parts == part:
                text = row.pop(column) or ""
                yield text, meta_of(row)


def task_table(source: dict[str, Any], task: str) -> tuple[pa.Table, dict[str, Any]]:
    """The scored split of a task from where lm-eval's definition says; also what its manifest should say of it.

    A source with `dataset` names a local folder that holds copies of the repositories, each under its hub name.
    """
    config = definition(task)
    path, name, split = config["dataset_path"], config.get("dataset_name"), scored_split(config)
    commit, licence = None, None
    if source.get("dataset"):
        location = str(Path(source["dataset"]) / path)
        if not Path(location).is_dir():
            raise UserError(f"task {task}: no folder {path} in {source['dataset']}")
    else:
        location = path
        commit, licence = describe(path, source.get("revision"))
    with readable_errors(f"dataset {path}, split {split}"):
        stream = datasets.load_dataset(location, name, split=split, streaming=True, revision=commit)
        batches = list(stream.with_format("arrow").iter(batch_size=1000))
        table = pa.concat_tables(batches)
    details = {"split": split, "dataset": path, "name": name, "commit": commit, "dataset_licence": licence}
    return conform(table, task, path), details


def tokenizer_file(repository: str, revision: str | None) -> Path:
    """tokenizer.json of a model repository (downloaded into the hub's cache) or of a local folder."""
    if Path(repository).is_dir():
        file = Path(repository) / "tokenizer.json"
        if not file.is_file():
            raise UserError(f"folder {repository}: no tokenizer.json in it")
        return file
    with readable_errors(f"tokenizer {repository}"):
        return Path(huggingface_hub.hf_hub_download(repository, "tokenizer.json", revision=revision))
