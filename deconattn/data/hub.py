"""A hub as a source, streamed through `datasets`; a local folder that is laid out like a repository works too."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import huggingface_hub
import pyarrow as pa
from fsspec.compression import register_compression
from huggingface_hub import errors

from deconattn.data.definitions import definition, scored_split
from deconattn.data.documents import Document, documents_of
from deconattn.data.tasks import conform
from deconattn.errors import UserError
from deconattn.files import local_folder

datasets.disable_progress_bars()
datasets.logging.set_verbosity(logging.CRITICAL)  # it logs each error that it raises

FORMATS = ("arrow", "csv", "json", "pandas", "parquet", "sql", "text", "xml")
"""What `datasets` reads from files of one's own instead of a repository."""


ELSEWHERE = "mirror on a machine with a network and copy resources/mirror here"


class Unreachable(UserError):
    """The hub answers no request at all."""


class _WholeZst(io.RawIOBase):
    """All frames of a .zst file. A truncated file is an error; fsspec's own reader would take it for a whole one."""

    def __init__(self, stream: BinaryIO, mode: str = "rb") -> None:
        self._name = getattr(stream, "path", None) or getattr(stream, "name", "zst data")
        self._content = pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            return self._content.readinto(buffer)
        except OSError as error:
            raise OSError(f"{self._name}: {error}") from error


register_compression("zstd", lambda stream, **mode: io.BufferedReader(_WholeZst(stream)), "zst", force=True)


@contextmanager
def _one_line(kind: str, repository: str, revision: str | None, split: str = "") -> Iterator[None]:
    """Turn any error of the libraries (a dozen unrelated classes) into one line: which repository, why, what to do.

    Raises:
        Unreachable: no network, or the hub is down or switched off.
        UserError: no such repository or revision, no permission to read it, or what is in it cannot be read.
    """
    try:
        yield
    except UserError:
        raise
    except StopIteration:
        raise UserError(f"hub {kind} {repository}{split}: no rows") from None
    except Exception as error:
        cause: BaseException | None = error
        while cause:  # `datasets` wraps what the hub has said
            if known := _known(cause, kind, repository, revision):
                raise known from error
            cause = cause.__cause__
        raise UserError(f"hub {kind} {repository}{split}: {_reason(error)}") from error


def _known(error: BaseException, kind: str, repository: str, revision: str | None) -> UserError | None:
    """Why the hub said no, and what to do; None for other errors."""
    what = f"hub {kind} {repository}"
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return Unreachable(f"{what}: the hub is switched off here; unset HF_HUB_OFFLINE, or {ELSEWHERE}")
    if isinstance(error, errors.GatedRepoError):  # is one that is not found, too
        return UserError(f"{what}: gated: accept its terms on {page} and set HF_TOKEN")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(f"{what}: gone, renamed or private; name another in the config, or set HF_TOKEN")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{what}: has no revision {revision!r}; {page}/commits/main lists them")
    if isinstance(error, errors.HFValidationError):
        return UserError(f"{what}: neither a folder here nor a name that a hub has (owner/name)")
    if isinstance(error, ConnectionError | errors.HTTPError) and not isinstance(error, errors.EntryNotFoundError):
        return Unreachable(
            f"{what}: no answer ({_reason(error)}); set HTTPS_PROXY or HF_ENDPOINT if it is reached so, or {ELSEWHERE}"
        )
    return None


def _reason(error: BaseException) -> str:
    return f"{' '.join(str(error).split())[:300] or 'no message'} ({type(error).__name__})"


def describe(dataset: str, revision: str | None) -> tuple[str | None, str | None]:
    """(commit, licence) of a dataset on the hub; (None, None) for a local folder.

    With the commit, every part of a corpus reads the same state of the repository.
    """
    if local_folder(dataset):
        return None, None
    info = _info("dataset", dataset, revision)
    licence = info.card_data.get("license") if info.card_data else None
    return info.sha, ", ".join(licence) if isinstance(licence, list) else licence


def commit_of(kind: str, repository: str, revision: str | None) -> str:
    """The commit on the hub behind `revision` (None: the newest) of a repository; `kind` is "dataset" or "model"."""
    return str(_info(kind, repository, revision).sha)


def _info(kind: str, repository: str, revision: str | None) -> Any:
    """What the hub knows about a repository. Raises as `_one_line` does."""
    with _one_line(kind, repository, revision):
        return huggingface_hub.HfApi().repo_info(repository, repo_type=kind, revision=revision)


def corpus_documents(source: dict[str, Any], part: int, parts: int, revision: str | None) -> Iterator[Document]:
    """Stream the documents of part `part` of `parts`.

    Whole source files are dealt out in turn (file i, i + parts, …) where there are at least `parts` of them, so that
    a part downloads only its own; otherwise every `parts`-th document.
    """
    dataset, split = source["dataset"], source["split"]
    with _one_line("dataset", dataset, revision, f", split {split}"):
        place = str(local_folder(dataset) or dataset)
        stream = datasets.load_dataset(place, source.get("name"), split=split, streaming=True, revision=revision)
        by_file = stream.num_shards >= parts
        if by_file:
            stream = stream.shard(num_shards=parts, index=part, contiguous=False)
        documents = documents_of(stream, source.get("text_column") or "text", f"hub dataset {dataset}")
        yield from documents if by_file else itertools.islice(documents, part, None, parts)


def task_table(source: dict[str, Any], task: str, own: str | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """The scored split of a task, from the dataset that its definition (lm-eval's or one's `own`) names, and what its manifest
    records about it.
    """
    config = definition(task, own)
    path, name, split = config["dataset_path"], config.get("dataset_name"), scored_split(config)
    if path in FORMATS:
        raise UserError(
            f"task {task}: its definition reads {path} files (dataset_path); put its items into tasks/{task}.parquet of a "
            "folder, and name that as source (tasks: {kind: folder, path: …})"
        )
    commit, licence = describe(path, (source.get("revisions") or {}).get(task))
    options = {key: value for key, value in (config.get("dataset_kwargs") or {}).items() if key != "trust_remote_code"}
    with _one_line("dataset", path, commit, f", split {split}"):
        place = str(local_folder(path) or path)
        stream = datasets.load_dataset(place, name, split=split, streaming=True, revision=commit, **options)
        table = pa.concat_tables(stream.with_format("arrow").iter(batch_size=1000))
    details = {"split": split, "dataset": path, "name": name, "commit": commit, "dataset_licence": licence}
    return conform(table, task, path), details


def tokenizer_file(repository: str, revision: str | None) -> Path:
    """The path of tokenizer.json in a model repository (downloaded into the hub's cache) or in a local folder."""
    if folder := local_folder(repository):
        return folder / "tokenizer.json"
    with _one_line("model", repository, revision):
        return Path(huggingface_hub.hf_hub_download(repository, "tokenizer.json", revision=revision))
