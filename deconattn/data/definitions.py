"""Definitions of tasks: lm-eval's own, found by name, and YAML of one's own in its form; and whether they can be scored.

Nothing here imports lm-eval, which imports torch and evaluate, and takes seconds to index its thousands of files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deconattn.errors import UserError
from deconattn.files import local_folder, sha256_file
from deconattn.nearest import nearest

OUTPUT_TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")
"""Kinds of tasks that are scored by the log-likelihood of given text."""
HELDOUT = "heldout"
"""The corpus' own held-out documents, which no definition of lm-eval describes."""
NINE = {
    "arc_easy": "arc/arc_easy.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "copa": "super_glue/copa/default.yaml",
    "piqa": "piqa/piqa.yaml",
    "sciq": "sciq/sciq.yaml",
    "rte": "glue/rte/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "wikitext": "wikitext/wikitext.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
}
"""The paper's tasks → their definitions below lm_eval/tasks: known without a search."""
_NAMED = re.compile(rb"^[\"']?(?:task|group)[\"']?[ \t]*:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)


def _harness() -> importlib.metadata.Distribution:
    return importlib.metadata.distribution("lm_eval")


def _folder() -> Path:
    return Path(str(_harness().locate_file("lm_eval/tasks")))


@cache
def index() -> dict[str, Path]:
    """Name → definition, of all of lm-eval's tasks and groups, read off its 14,000 files in about half a second."""
    found: dict[str, Path] = {}
    for path in sorted(_folder().rglob("*.yaml")):
        for name in _NAMED.findall(path.read_bytes()):
            found.setdefault(name.decode(), path)
    return found


def definition_path(task: str, own: str | Path | None = None) -> Path:
    """The YAML that defines a task: `own` where it is given, else lm-eval's (KeyError where it has none)."""
    if own is not None:
        return Path(own)
    return _folder() / NINE[task] if task in NINE else index()[task]


def definition(task: str, own: str | Path | None = None, resolve_functions: bool = False) -> dict[str, Any]:
    """A task's definition, with its `include`s merged.

    `resolve_functions` imports the Python functions that it names; otherwise they are strings.
    """
    return _read(definition_path(task, own), resolve_func=resolve_functions)


def _read(path: Path, **options: Any) -> dict[str, Any]:
    # By lm-eval's own reader, which is a file that imports nothing of lm-eval.
    spec = importlib.util.spec_from_file_location("deconattn_lm_eval_yaml_loader", _folder() / "_yaml_loader.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.load_yaml(path, **options))


def files_of(own: str | Path) -> list[Path]:
    """What the meaning of a definition of one's own depends on: its YAML, those that it includes, and the Python beside them."""
    path = Path(own)
    included = _read(path, resolve_func=False, recursive=False).get("include") or []
    names = [included] if isinstance(included, str) else included
    return [path, *sorted(path.parent.glob("*.py")), *(file for name in names for file in files_of(path.parent / name))]


def sum_of(own: str | Path) -> str:
    """One SHA-256 over all that a definition of one's own depends on.

    Raises:
        UserError: a file that is gone.
    """
    try:
        lines = [f"{sha256_file(path)} {path.name}\n" for path in files_of(own)]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror} (definition of a task)") from None
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def local_dataset(own: str | Path) -> str | None:
    """The folder on this machine that a definition of one's own reads; None for a dataset of a hub."""
    name = str(definition("", own).get("dataset_path"))
    return name if local_folder(name) else None


def scored_split(config: dict[str, Any]) -> str:
    """The split that the harness scores: the test split where the definition names one, else validation."""
    return str(config.get("test_split") or config["validation_split"])


def problem(task: str, own: str | Path | None = None) -> str | None:
    """Why a task cannot be scored here, in one line; None where it can."""
    if task == HELDOUT or (task in NINE and own is None):
        return None
    if own is None and task not in index():
        near = nearest(task, [*NINE, HELDOUT, *index()])
        hint = f"; did you mean {near!r}?" if near else ""
        return f"{task!r} is neither a task of lm-eval {_harness().version} nor one of evaluation.definitions{hint}"
    if own is not None and (task == HELDOUT or task in NINE):
        return f"{task!r} is a task already; give yours another name"
    try:
        return _refusal(task, definition(task, own))
    except FileNotFoundError as error:
        return f"no such file: {error.filename}"
    except (OSError, ValueError, yaml.YAMLError) as error:
        return f"{definition_path(task, own)} is not a definition of a task: {' '.join(str(error).split())[:200]}"


def _refusal(task: str, config: dict[str, Any]) -> str | None:
    kind = config.get("output_type", "generate_until")
    if "group" in config or isinstance(config.get("task"), list):
        return f"{task!r} is a group of tasks; name its tasks one by one"
    if "class" in config:
        return f"{task!r} is a Python class; only tasks that a YAML defines can be scored"
    if kind not in OUTPUT_TYPES:
        generates = ", which scores text that the model writes" if kind == "generate_until" else ""
        return (
            f"{task!r} has output_type {kind}{generates}; must be {', '.join(OUTPUT_TYPES[:-1])} or {OUTPUT_TYPES[-1]}"
        )
    if wrong := next((key for key in ("doc_to_image", "doc_to_audio", "custom_dataset") if config.get(key)), None):
        return f"{task!r} has {wrong}; only tasks of text in a dataset can be scored"
    if config.get("unsafe_code"):
        return f"{task!r} runs code that the model writes (unsafe_code)"
    if not (config.get("test_split") or config.get("validation_split")):
        return f"{task!r} names neither test_split nor validation_split"
    return None
