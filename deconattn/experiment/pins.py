"""Hub sources that a config names without a commit, and how commits are written into its file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deconattn.data.definitions import HELDOUT, local_dataset
from deconattn.errors import UserError
from deconattn.experiment.load import Settings
from deconattn.experiment.section import Keys
from deconattn.experiment.yaml_lines import data_of, dotted, read
from deconattn.files import atomic_write, local_folder


@dataclass(frozen=True)
class Remote:
    """What is read from a hub: the keys of its commit in a config, `kind` of repository, name, revision as written now."""

    keys: Keys
    kind: str
    repository: str
    revision: str | None

    @property
    def pinned(self) -> bool:
        """Whether it names a commit; a branch or tag may come to mean another."""
        return bool(self.revision and re.fullmatch(r"[0-9a-f]{40}", self.revision))


def remotes(settings: Settings, repository_of: Callable[[str], str] = str) -> list[Remote]:
    """All that a config reads from a hub; `repository_of` gives that of an evaluation set."""
    found = []
    for section in ("corpus", "side_text", "tokenizer"):
        source = getattr(settings, section)
        if source is not None and source.kind == "hub" and not local_folder(source.dataset):
            kind = "model" if section == "tokenizer" else "dataset"
            found.append(Remote((section, "revision"), kind, source.dataset, source.revision))
    if settings.tasks and settings.tasks.kind == "hub":
        own = settings.evaluation.definitions
        for task in settings.evaluation.tasks:
            if task == HELDOUT or (task in own and local_dataset(own[task])):
                continue
            revision = settings.tasks.revisions.get(task)
            found.append(Remote(("tasks", "revisions", task), "dataset", repository_of(task), revision))
    return found


def unpinned(settings: Settings, configs: Sequence[str | Path]) -> str | None:
    """One line on what a hub may change unseen; None where every commit is named."""
    loose = [remote for remote in remotes(settings) if not remote.pinned]
    sources = [f"{remote.keys[0]} ({remote.repository})" for remote in loose if remote.keys[0] != "tasks"]
    if tasks := len(loose) - len(sources):
        sources.append(f"tasks ({tasks} of them)")
    names = " ".join(map(str, configs))
    text = "these revisions are not commits and may change; deconattn pin"
    return f"{names}: {', '.join(sources)}: {text} {names} writes the commits into the config" if loose else None


def write_commits(configs: Sequence[Path], commits: dict[Keys, str]) -> list[str]:
    """Write commits at their keys into the file that names each source; returns a line for each.

    Comments, order, quotes and white space stay as they are.

    Raises:
        UserError: a source whose file cannot be changed without changing something else; the files are as they were.
    """
    document = read(configs)
    texts = {str(path): path.read_bytes().decode() for path in configs}
    lines = []
    for keys, commit in commits.items():
        place = document.place((keys[0], "kind" if keys[0] == "tasks" else "dataset"))
        changed = _with_commit(texts[place.file], keys, commit)
        if changed is None:
            raise UserError(f'{place}: {dotted(keys)}: write "{commit}" there by hand: it is an alias or merged')
        texts[place.file] = changed
        lines.append(f"{place.file}: {dotted(keys)}: {commit}")
    for path in configs:
        with atomic_write(path.resolve()) as temporary:
            Path(temporary).write_bytes(texts[str(path)].encode())
            shutil.copymode(path, temporary)
    return lines


def _with_commit(text: str, keys: Keys, commit: str) -> str | None:
    """The text with a commit at `keys`; None where that would change something else.

    It is in quotes, as 40 hexadecimal digits may look like a number, and takes the place of what is written there or stands
    behind the last plain value of its mapping.
    """
    expected = data_of(text)
    inside: Any = expected
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    value = f'"{commit}"'
    for depth, key in enumerate(keys):
        pairs = {each.value: child for each, child in node.value}
        if depth < len(keys) - 1 and inside.get(key):
            inside, node = inside[key], pairs.get(key)
            if not isinstance(node, yaml.MappingNode):
                return None
            continue
        for below in reversed(keys[depth + 1 :]):
            value = f"{{{below}: {value}}}"
        inside[key] = data_of(f"x: {value}")["x"]
        changed = _set(text, node, pairs, str(key), value)
        return changed if data_of(changed) == expected else None
    return None


def _set(text: str, node: yaml.MappingNode, pairs: dict[str, Any], key: str, value: str) -> str:
    if key in pairs:
        start, end = pairs[key].start_mark.index, pairs[key].end_mark.index
        return text[:start] + ("" if text[start - 1].isspace() else " ") + value + text[end:]
    plain = [child for child in pairs.values() if isinstance(child, yaml.ScalarNode)]
    if not plain:
        return text
    end = plain[-1].end_mark.index
    if node.flow_style:
        return f"{text[:end]}, {key}: {value}{text[end:]}"
    newline = "\r\n" if "\r\n" in text else "\n"
    end += len(text[end:].partition(newline)[0])  # behind a comment
    return f"{text[:end]}{newline}{' ' * node.start_mark.column}{key}: {value}{text[end:]}"
