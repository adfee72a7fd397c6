"""What tests of evaluations share: a tiny model of every variant, and the real items beside the checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import PreTrainedTokenizerFast

from deconattn.huggingface import DeconAttnConfig, DeconAttnForCausalLM
from tests.conftest import skip_or_fail

VOCABULARY = 50_304


def tiny(variant: str = "standard", layout: str = "uniform", **fields: Any) -> DeconAttnForCausalLM:
    """An untrained model of four layers; weights wide enough that choices differ clearly."""
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": 256, "initializer_range": 0.2}
    config = DeconAttnConfig(**{**shape, **sizes, "variant": variant, "layout": layout, **fields})
    return DeconAttnForCausalLM(config).eval()


def hflm(model: torch.nn.Module, tokenizer: Path, context_length: int) -> Any:
    """The harness' own model class around a model."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        skip_or_fail(f"the harness' HFLM cannot be imported: {error}")
    fast = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer / "tokenizer.json"), eos_token="<|endoftext|>")
    return HFLM(pretrained=model, tokenizer=fast, max_length=context_length, batch_size=8)


def files(shared_data: Path, *tasks: str) -> dict[str, Path]:
    """Task → its real items."""
    return {task: shared_data / "tasks" / f"{task}.parquet" for task in tasks}


def heldout(texts: list[str], folder: Path) -> dict[str, Path]:
    """The task of held-out text, of a token table that holds these texts."""
    path = folder / "heldout.parquet"
    pq.write_table(pa.table({"text": texts, "tokens": pa.array([[1]] * len(texts), pa.list_(pa.uint16()))}), path)
    return {"heldout": path}
