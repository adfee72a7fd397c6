"""Tasks as lm-evaluation-harness defines them, read from local Parquet, and `heldout` (method.md, Evaluation).

Prompts, choices, targets, scoring and aggregation are the harness' own; only the source of the items is ours, and no
examples stand before an item. The YAML definitions are loaded by their paths: the harness' index of all its tasks takes
seconds to build.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.dataset
from lm_eval import utils as harness_utils
from lm_eval.api.task import ConfigurableTask

from deconattn.data.definitions import HELDOUT, definition, scored_split
from deconattn.data.tasks import columns_of, conform
from deconattn.errors import UserError

SPLITS = ("training_split", "validation_split", "test_split")
OF_SOURCES_AND_EXAMPLES = (
    "tag", "group", "task_list", "dataset_path", "dataset_name", "dataset_kwargs", "fewshot_split",
)  # fmt: skip
"""What of a definition says where items come from, or which others stand before them."""

# The harness compiles a template anew for each field of each item, which is most of the time of building a task.
harness_utils.env.from_string = functools.lru_cache(harness_utils.env.from_string)


class LocalTask(ConfigurableTask):
    """A harness task whose items are given, with no loading script, network or cache folder.

    Raises:
        UserError: items that the definition does not fit, here or when requests are built of them.
    """

    def __init__(self, config: dict[str, Any], items: datasets.Dataset, where: str) -> None:
        self._items, self._where = items, where
        with_one_line(where, super().__init__)(config=config)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Take the given items as the split that is scored."""
        self.dataset = {self.config.test_split or self.config.validation_split: self._items}

    def build_all_requests(self, **kwargs: Any) -> None:
        """The harness' own."""
        with_one_line(self._where, super().build_all_requests)(**kwargs)

    def aggregation(self) -> dict[str, Callable]:
        """The harness' aggregations; a perplexity beyond the largest float64 is inf where the harness would raise."""
        return {
            name: overflow_is_infinite(fn) if "perplexity" in name else fn for name, fn in super().aggregation().items()
        }


def with_one_line(where: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, with any error of a definition's templates and functions as one line that names the items."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except Exception as error:  # templates and functions may raise anything
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{where}: the definition does not fit the items: {type(error).__name__}: {reason}"
            ) from error

    return guarded


def overflow_is_infinite(fn: Callable[..., float]) -> Callable[..., float]:
    """`fn`, with inf for an exponential that overflows."""

    @functools.wraps(fn)
    def safe(*args: Any) -> float:
        try:
            return fn(*args)
        except OverflowError:
            return math.inf

    return safe


def build_task(
    name: str, path: str | Path, limit: int | None = None, own: str | Path | None = None
) -> ConfigurableTask:
    """A zero-shot task over the first `limit` items (None: all) of a Parquet file.

    `own` is the path of a definition that is not lm-eval's.

    Raises:
        UserError: a file that does not hold the task's items; see `read_items`.
    """
    where = f"{path}: task {name}"
    if name == HELDOUT:
        return LocalTask(_heldout(), read_items(name, path, limit), where)
    config = with_one_line(where, definition)(name, own, resolve_functions=True)
    for key in OF_SOURCES_AND_EXAMPLES:
        config.pop(key, None)
    scored = scored_split(config)
    config |= {split: scored if config.get(split) == scored else None for split in SPLITS}
    # Zero-shot tasks need no examples; without this the harness walks through every item for them once more.
    config |= {"task": name, "num_fewshot": 0, "fewshot_config": {"samples": []}}
    process = config.pop("process_docs", None)
    # What processes the items of another task than the nine may leave some out: it sees all, and is limited afterwards.
    items = read_items(name, path, limit if process is None or columns_of(name) else None)
    if process:
        items = with_one_line(where, process)(items)
        items = items.select(range(min(limit or len(items), len(items))))
    return LocalTask(config, items, where)


def _heldout() -> dict[str, Any]:
    return {
        "task": HELDOUT,
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": metric} for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
        "metadata": {"version": 1.0},
        "num_fewshot": 0,
        "fewshot_config": {"samples": []},
    }


def read_items(name: str, path: str | Path, limit: int | None = None) -> datasets.Dataset:
    """The first `limit` rows (None: all) of a task's Parquet file.

    Raises:
        UserError: a missing or unreadable file, or one whose items `deconattn.data.tasks.conform` refuses.
    """
    try:
        file = pyarrow.dataset.dataset(path, format="parquet")
        columns = columns_of(name) or file.schema.names
        present = [column for column in columns if column in file.schema.names]
        table = file.head(file.count_rows() if limit is None else limit, columns=present)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (items of {name})") from None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file ({' '.join(str(error).split())[:200]})") from None
    # Without its metadata: what another writer says of the columns may not fit those that are read here.
    return datasets.Dataset(conform(table, name, str(path)).replace_schema_metadata())
