"""The nine tasks as lm-evaluation-harness defines them, read from local Parquet, and `heldout` (SPEC §6).

Prompts, choices, targets, scoring and aggregation are the harness' own; only the place where the items come from is
ours. The YAML definitions are loaded by their paths: the harness' index of all its tasks takes seconds to build.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from lm_eval import utils as harness_utils
from lm_eval.api.task import ConfigurableTask

from deconattn.data import tasks as sources
from deconattn.errors import UserError
from deconattn.evaluation.names import METRICS, check_names

HELDOUT: dict[str, Any] = {
    "task": "heldout",
    "test_split": "test",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "text",
    "metric_list": [{"metric": metric} for metric in METRICS["heldout"]],
    "metadata": {"version": 1.0},
}
SPLITS = ("training_split", "validation_split", "test_split")

# The harness compiles a template anew for each field of each item, which is most of the time of building a task.
harness_utils.env.from_string = functools.lru_cache(harness_utils.env.from_string)


class LocalTask(ConfigurableTask):
    """A harness task whose items are given, with no loading script, network or cache folder."""

    def __init__(self, config: dict[str, Any], items: datasets.Dataset) -> None:
        self._items = items
        super().__init__(config=config)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Take the given items as the split that is scored."""
        self.dataset = {self.config.test_split or self.config.validation_split: self._items}

    def aggregation(self) -> dict[str, Callable]:
        """The harness' aggregations; a perplexity beyond the largest float64 is inf where the harness would raise."""
        return {
            name: overflow_is_infinite(fn) if "perplexity" in name else fn for name, fn in super().aggregation().items()
        }


def overflow_is_infinite(aggregate: Callable[[list], float]) -> Callable[[list], float]:
    """`aggregate`, with inf for an exponential that overflows."""

    @functools.wraps(aggregate)
    def safe(items: list) -> float:
        try:
            return aggregate(items)
        except OverflowError:
            return math.inf

    return safe


def definition(name: str) -> dict[str, Any]:
    """The configuration of a task: the harness' own, as it ships it, or that of `heldout`.

    Raises:
        UserError: not one of the tasks.
    """
    check_names([name])
    return copy.deepcopy(HELDOUT) if name == "heldout" else sources.definition(name, resolve_functions=True)


def read_items(name: str, path: str | Path, limit: int | None = None) -> datasets.Dataset:
    """The first `limit` rows (null: all) of a task's Parquet file.

    Raises:
        UserError: missing or unreadable file, no rows, missing columns, or a limit that is not a positive number.
    """
    if limit is not None and limit < 1:
        raise UserError(f"{name}: limit {limit} is not a positive number of items (null scores all)")
    try:
        with pq.ParquetFile(path) as file:
            columns = ["text"] if name == "heldout" else list(sources.COLUMNS[name])
            if missing := sorted(set(columns) - set(file.schema_arrow.names)):
                raise UserError(f"{path}: items of {name} need the column {', '.join(missing)}")
            batches: list[pa.RecordBatch] = []
            for batch in file.iter_batches(batch_size=min(limit or 1024, 1024), columns=columns):
                batches.append(batch)
                if limit is not None and sum(b.num_rows for b in batches) >= limit:
                    break
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (items of {name})") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a readable Parquet file ({error})") from None
    if not sum(batch.num_rows for batch in batches):
        raise UserError(f"{path}: no rows (items of {name})")
    # Without its metadata: what another writer says of the columns may not fit those that are read here.
    return datasets.Dataset(pa.Table.from_batches(batches).slice(0, limit).replace_schema_metadata())


def build_task(name: str, parquet_path: str | Path, limit: int | None = None) -> ConfigurableTask:
    """A task over the first `limit` items (null: all) of `parquet_path`, zero-shot.

    Raises:
        UserError: unknown task, or a file that does not hold its items (see `read_items`).
    """
    config = definition(name)
    items = read_items(name, parquet_path, limit)
    for key in ("tag", "group", "task_list", "dataset_path", "dataset_name"):
        config.pop(key, None)
    scored = sources.scored_split(config)
    config |= {split: scored if config.get(split) == scored else None for split in SPLITS}
    # Zero-shot tasks need no examples; without this the harness walks through every item for them once more.
    config |= {"num_fewshot": 0, "fewshot_config": {"samples": []}}
    if process := config.pop("process_docs", None):
        items = process(items)  # once, here: the harness would process all items at each of its passes
    return LocalTask(config, items)
