"""Scoring of tasks beside lm-eval's own HFLM: `python -m benchmarks.evaluation MIRROR [--items 24] [--tasks arc_easy …]`.

MIRROR holds tasks/<task>.parquet and tokenizer/. Both score the same requests of the first items with the same untrained model
of the 70m shape, which HFLM calls as `lm_eval --model hf` does; tokenizing counts, building requests does not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerFast

from benchmarks.timing import keep_memory, machine, ratio, table, take_turns
from deconattn.evaluation.lm_eval_setup import set_up
from deconattn.evaluation.scoring import HarnessModel
from deconattn.evaluation.tasks import build_task
from deconattn.huggingface import DeconAttnConfig, DeconAttnForCausalLM

BATCH, LENGTH, ROUNDS = 16, 2048, 2
SHAPE = {
    "vocab_size": 50_304,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
}


def compare(task: str, mirror: Path, items: int, variant: str, layout: str) -> list[str]:
    """One row of the table."""
    torch.manual_seed(0)
    config = DeconAttnConfig(**SHAPE, max_position_embeddings=LENGTH, variant=variant, layout=layout)
    model = DeconAttnForCausalLM(config).eval()
    ours = HarnessModel(model, mirror / "tokenizer", LENGTH, BATCH)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(mirror / "tokenizer/tokenizer.json"), eos_token="<|endoftext|>"
    )
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, max_length=LENGTH, batch_size=BATCH)
    built = build_task(task, mirror / f"tasks/{task}.parquet", items)
    built.build_all_requests()
    found: dict[str, list[tuple[float, bool]]] = {}

    def score_ours() -> None:
        ours._encode.cache_clear()  # what one round has tokenized the next would not
        found["ours"] = ours.loglikelihood(built.instances)

    def score_theirs() -> None:
        found["theirs"] = theirs.loglikelihood(built.instances, disable_tqdm=True)

    shortest, median = ratio(take_turns({"theirs": score_theirs, "ours": score_ours}, ROUNDS), "theirs", "ours")
    apart = max(abs(a - b) for (a, _), (b, _) in zip(found["ours"], found["theirs"], strict=True))
    alike = sum(a == b for (_, a), (_, b) in zip(found["ours"], found["theirs"], strict=True))
    return [
        f"{task}, {items} items, {variant} {layout}", f"{shortest:.2f}", f"{median:.2f}", f"{apart:.1e}",
        f"{alike} of {len(built.instances)}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mirror", type=Path)
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--tasks", nargs="+", default=["arc_easy", "sciq", "hellaswag"])
    parser.add_argument("--variant", default="standard")
    parser.add_argument("--layout", default="uniform")
    options = parser.parse_args()
    set_up()
    keep_memory()
    torch.set_num_threads(1)
    print(f"Measured on: {machine()}.\n")
    rows = [compare(task, options.mirror, options.items, options.variant, options.layout) for task in options.tasks]
    head = [
        "scored",
        "HFLM's time over ours, shortest",
        "median of rounds",
        "log-likelihoods apart, nats",
        "same greedy",
    ]
    print(table(head, rows))


if __name__ == "__main__":
    main()
