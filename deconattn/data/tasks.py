"""The nine evaluation sets: their columns, their licences, and where the harness itself says they come from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pyarrow as pa

from deconattn.errors import UserError

_STRING, _STRINGS = pa.string(), pa.list_(pa.string())

COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "arc_easy": {
        "id": _STRING,
        "question": _STRING,
        "choices": pa.struct({"text": _STRINGS, "label": _STRINGS}),
        "answerKey": _STRING,
    },
    "boolq": {"question": _STRING, "passage": _STRING, "idx": pa.int32(), "label": pa.int64()},
    "copa": {
        "premise": _STRING,
        "choice1": _STRING,
        "choice2": _STRING,
        "question": _STRING,
        "idx": pa.int32(),
        "label": pa.int64(),
    },
    "piqa": {"goal": _STRING, "sol1": _STRING, "sol2": _STRING, "label": pa.int64()},
    "sciq": {
        "question": _STRING,
        "distractor3": _STRING,
        "distractor1": _STRING,
        "distractor2": _STRING,
        "correct_answer": _STRING,
        "support": _STRING,
    },
    "rte": {"sentence1": _STRING, "sentence2": _STRING, "label": pa.int64(), "idx": pa.int32()},
    "hellaswag": {
        "ind": pa.int32(),
        "activity_label": _STRING,
        "ctx_a": _STRING,
        "ctx_b": _STRING,
        "ctx": _STRING,
        "endings": _STRINGS,
        "source_id": _STRING,
        "split": _STRING,
        "split_type": _STRING,
        "label": _STRING,
    },
    "wikitext": {"page": _STRING},
    "lambada_openai": {"text": _STRING},
}

LICENCES = {
    "arc_easy": "CC BY-SA 4.0",
    "boolq": "CC BY-SA 3.0",
    "copa": "BSD-2-Clause",
    "piqa": "AFL-3.0",
    "sciq": "CC BY-NC 3.0",
    "rte": "research use",
    "hellaswag": "MIT",
    "wikitext": "CC BY-SA 3.0",
    "lambada_openai": "MIT",
}

# Relative to lm_eval/tasks. Asking TaskManager instead costs seconds: it indexes thousands of files.
_DEFINITIONS = {
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


def _harness_folder() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("lm-eval is not installed in this environment: the tasks' definitions come with it")
    return Path(spec.submodule_search_locations[0]) / "tasks"


def definition_path(task: str) -> Path:
    """Path of lm-eval's own YAML definition of a task, found without importing lm-eval."""
    check_known(task)
    path = _harness_folder() / _DEFINITIONS[task]
    if not path.is_file():
        raise UserError(f"task {task}: lm-eval has no definition at {path} (is it the pinned version?)")
    return path


def definition(task: str, resolve_functions: bool = False) -> dict[str, Any]:
    """lm-eval's own definition of a task, with its `include`s merged.

    `resolve_functions` imports the Python functions that it names; left unresolved they are strings.
    """
    path = definition_path(task)
    # Loaded by its path: the package around it imports torch and evaluate, and all that is wanted here is YAML.
    loader_path = _harness_folder() / "_yaml_loader.py"
    spec = importlib.util.spec_from_file_location("deconattn_lm_eval_yaml_loader", loader_path)
    if spec is None or spec.loader is None:
        raise UserError(f"{loader_path}: lm-eval's loader of definitions is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.load_yaml(path, resolve_func=resolve_functions))


def scored_split(config: dict[str, Any]) -> str:
    """The split that the harness scores: the test split where the definition names one, else validation."""
    return str(config.get("test_split") or config["validation_split"])


def check_known(task: str) -> None:
    if task not in COLUMNS:
        raise UserError(f"task {task!r} is not known (allowed: {', '.join(COLUMNS)})")


def conform(table: pa.Table, task: str, where: str) -> pa.Table:
    """Exactly the task's columns, in order, with their types; `where` names the source in an error."""
    columns = COLUMNS[task]
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise UserError(f"{where}: task {task} lacks the column {missing[0]!r} (needed: {', '.join(columns)})")
    try:
        return table.select(list(columns)).cast(pa.schema(list(columns.items())))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{where}: task {task} has a column of another type ({str(error).splitlines()[0]})") from error
