"""The same workflow on real data: Standard Ebooks, the NeoX tokenizer, all nine evaluation sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.project import Project

pytestmark = pytest.mark.xdist_group("real-data")

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
grid: [{{models: [small], variants: [standard, fixedseqqk], layouts: [even]}}]
evaluation:
  tasks: [arc_easy, boolq, copa, piqa, sciq, rte, hellaswag, wikitext, lambada_openai, heldout]
  limit: {{default: 10, copa: null, rte: null, wikitext: {wikitext}, heldout: 1}}
  context_lengths: {{wikitext: [64, 128]}}
  modes: [full]
exhibits: {{table1: {{model: small}}, table4: {{model: small}}}}
resources: {{default: {{device: cpu, evaluation_batch_size: 8}}}}
"""


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The workflow run to its end on the real data."""
    project = Project.copy(tmp_path_factory.mktemp("real"))
    (project.folder / "config/real.yaml").write_text(CONFIG.format(data=shared_data, wikitext=2))
    done = project.snakemake("--quiet", "rules", config="config/real.yaml", timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def test_every_task_gives_a_number(real: Project, shared_data: Path) -> None:
    for run in real.runs():
        rows = pd.read_parquet(run / "evaluation.parquet")
        wanted = {
            **dict.fromkeys(("arc_easy", "boolq", "copa", "piqa", "sciq", "rte", "hellaswag"), {"acc"}),
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


def test_the_samples_are_the_items(real: Project) -> None:
    samples = pd.read_parquet(real.runs()[0] / "samples.parquet")
    rte = samples[samples["task"] == "rte"]
    assert len(rte) == 277 and rte["correct"].notna().all()
    rows = pd.read_parquet(real.runs()[0] / "evaluation.parquet")
    stated = rows[(rows["task"] == "rte")]["value"].item()
    assert rte["correct"].mean() == pytest.approx(stated)


def test_the_vocabulary_is_padded_and_the_fixed_text_is_the_side_texts(real: Project) -> None:
    from safetensors.torch import load_file

    fixed = next(run for run in real.runs("*fixedseqqk*"))
    weights = load_file(fixed / "model/model.safetensors")
    assert weights["lm_head.weight"].shape == (50_304, 16)
    assert len(set(weights["model.side_input_ids"].tolist())) > 30
