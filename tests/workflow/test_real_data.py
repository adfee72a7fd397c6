"""The same workflow on real data: Standard Ebooks, the NeoX tokenizer, all nine evaluation sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from tests.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real-data")]

CONFIG = """
name: real
corpus: {{kind: folder, path: {data}, names: [standardebooks], parts: 2}}
tasks: {{kind: folder, path: {data}}}
tokenizer: {{kind: folder, path: {data}}}
side_text: {{kind: folder, path: {data}, names: [peps]}}
tokens: {{context_length: 128, budget: 100_000, heldout_fraction: 0.01}}
models:
  small: {{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2, max_position_embeddings: 128}}
training: {{steps: 8, sequences_per_step: 4, warmup_steps: 2, heldout_every: 8, heldout_documents: 1}}
grid: [{{models: [small], variants: [fixedseqqk], layouts: [even]}}]
evaluation:
  tasks: [arc_easy, boolq, copa, piqa, sciq, rte, hellaswag, wikitext, lambada_openai, heldout]
  limit: {{default: 10, copa: null, rte: null, wikitext: 2, heldout: 1}}
  context_lengths: {{wikitext: [64, 128]}}
  modes: [full]
exhibits: {{table1: {{model: small}}, table4: {{model: small}}}}
resources: {{default: {{device: cpu, evaluation_batch_size: 8}}}}
"""


def test_every_task_gives_a_number(shared_data: Path, tmp_path: Path) -> None:
    real = Project.copy(tmp_path)
    (real.folder / "config/real.yaml").write_text(CONFIG.format(data=shared_data))
    done = real.snakemake("--quiet", "rules", config="config/real.yaml", timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = real.runs()
    rows = pd.read_parquet(next(run.glob("evaluation-*/evaluation.parquet")))
    wanted = {
        **dict.fromkeys(("boolq", "copa", "rte"), {"acc"}),
        **dict.fromkeys(("arc_easy", "piqa", "sciq", "hellaswag"), {"acc", "acc_norm"}),
        "lambada_openai": {"acc", "perplexity"},
        "wikitext": {"word_perplexity", "byte_perplexity", "bits_per_byte"},
        "heldout": {"word_perplexity", "byte_perplexity", "bits_per_byte"},
    }
    assert {task: set(group["metric"]) for task, group in rows.groupby("task")} == wanted
    assert np.isfinite(rows["value"]).all()
    scored = rows.groupby("task")["items"].first()
    assert scored["copa"] == len(pd.read_parquet(shared_data / "tasks/copa.parquet")) == 100
    assert scored["rte"] == len(pd.read_parquet(shared_data / "tasks/rte.parquet")) == 277
    assert scored["arc_easy"] == 10
    assert sorted(set(rows[rows["task"] == "wikitext"]["context_length"])) == [64, 128]
    fixed = load_file(run / "model/model.safetensors")
    assert fixed["lm_head.weight"].shape == (50_304, 16), "padded"
    assert len(set(fixed["model.side_input_ids"].tolist())) > 30, "the side text's"
