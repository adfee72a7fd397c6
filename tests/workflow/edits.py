"""What tests do to a project: edits of its files, as functions to be called with it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from tests.project import CONFIG, Project

Edit = Callable[[Project], object]


def edit(file: str, old: str, new: str) -> Edit:
    """Replace a passage of a file."""
    return lambda project: project.edit(file, old, new)


def code(file: str, old: str, new: str) -> Edit:
    """Replace a passage of the package."""
    return edit(f"deconattn/{file}", old, new)


def config(old: str, new: str) -> Edit:
    """Replace a passage of the config."""
    return edit(CONFIG, old, new)


MLP_EDITED = code("mixers/mlp.py", "return max(1, round(", "return max(1, 1 + round(")
"""One function of one mixer computes something else."""


def both(*edits: Edit) -> Edit:
    """Several edits one after the other."""
    return lambda project: [each(project) for each in edits]


def add_file(file: str, text: str) -> Edit:
    """Write a new file."""

    def write(project: Project) -> None:
        path = project.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


def remove(*patterns: str) -> Edit:
    """Delete files or folders."""

    def change(project: Project) -> None:
        for path in [path for pattern in patterns for path in project.folder.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def touch(*patterns: str) -> Edit:
    """Give files new times, in an order that says nothing."""

    def change(project: Project) -> None:
        paths = [path for pattern in patterns for path in sorted(project.folder.glob(pattern)) if path.is_file()]
        random.Random(1).shuffle(paths)
        now = 1_900_000_000
        for rank, path in enumerate(paths):
            os.utime(path, (now + rank, now + rank))

    return change


def more_text(file: str) -> Edit:
    """Append a document to a corpus, or an item to an evaluation set: its last one again."""

    def change(project: Project) -> None:
        table = pq.read_table(project.folder / file)
        pq.write_table(pa.concat_tables([table, table.slice(table.num_rows - 1)]), project.folder / file)

    return change


def copy_file(source: str, target: str) -> Edit:
    """Copy one file of the project."""
    return lambda project: shutil.copy(project.folder / source, project.folder / target)


def moved(project: Project) -> None:
    """The project in another folder, as copied to another machine: new times, and no notes of Snakemake."""
    touch("**/*")(project)
    remove(".snakemake")(project)
    target = project.folder.with_name("elsewhere")
    project.folder.rename(target)
    project.folder = target
