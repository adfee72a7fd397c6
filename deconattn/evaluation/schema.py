"""Columns of evaluation.parquet, samples.parquet and baselines.parquet. Imports no torch: the report reads them too."""

from __future__ import annotations

import pyarrow as pa

from deconattn.result_tables import RUN_COLUMNS

EVALUATION = pa.schema(
    [
        *RUN_COLUMNS,
        ("mode", pa.string()),  # "full"; "skip" or "skip_mixer" of a hybrid; "reweighted" of softplus
        ("task", pa.string()),
        ("metric", pa.string()),  # each that the task's definition names; "acc" and other accuracies are fractions of 1
        ("context_length", pa.int64()),  # tokens
        ("value", pa.float64()),  # null where the model's numbers are not finite; inf where a perplexity overflows
        ("stderr", pa.float64()),  # over items
        ("items", pa.int64()),  # that could be scored
        ("limit", pa.int64()),  # null: all items
    ]
)
# What is scored of an item ("the scored text") is a whole text (wikitext, heldout, other tasks of documents), or what stands
# behind a context: the right choice, or the one continuation, with the space before it.
SAMPLES = pa.schema(
    [
        ("run", pa.string()),
        ("mode", pa.string()),
        ("task", pa.string()),
        ("context_length", pa.int64()),  # tokens
        ("item", pa.int64()),  # number of the item among those that are scored, from 0
        ("target", pa.string()),  # the right choice, or the one continuation; null for whole texts
        ("prediction", pa.string()),  # the most likely choice; null without choices
        ("correct", pa.bool_()),  # whether the most likely choice is right (acc); null for whole texts
        ("loglikelihoods", pa.list_(pa.float64())),  # nats, one for each choice
        ("metric", pa.string()),
        ("value", pa.float64()),  # acc of this item, or the word perplexity of this text
        (
            "document",
            pa.string(),
        ),  # 16 digits of a hash over all fields of the item: the same item in another run has the same
        ("nll", pa.float64()),  # nats, negative log-likelihood of the scored text; null where it is not a number
        (
            "words",
            pa.int64(),
        ),  # of the scored text, between runs of white space; of whole texts as the harness counts them
        ("bytes", pa.int64()),  # of the scored text in UTF-8
        (
            "window_nlls",
            pa.list_(pa.float64()),
        ),  # nats, of each window of a whole text; its place is the window's number, from 0
        (
            "correct_norm",
            pa.bool_(),
        ),  # whether the choice of the highest log-likelihood a character is right (acc_norm)
    ]
)
BASELINES = pa.schema(
    [
        ("baseline", pa.string()),  # "random_guess" or "majority"
        ("task", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("items", pa.int64()),
    ]
)
