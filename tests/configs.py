"""A config that is right, and how the tests change it and read what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deconattn.experiment.load import ConfigError, load_settings

RIGHT = """\
name: small
corpus: {kind: folder, path: tests/data/mirror, names: [tales], parts: 2}
tasks:
  kind: folder
  path: tests/data/mirror
tokenizer: {kind: train, vocab_size: 384}
tokens:
  context_length: 32
models:
  tiny:
    hidden_size: 32
    intermediate_size: 64
    num_hidden_layers: 4
    num_attention_heads: 2
    max_position_embeddings: 32
training:
  steps: 12
  warmup_steps: 2
  weight_decay: 0.1
  peak_learning_rate: 4e-3
grid:
  - models: [tiny]
    variants: [standard, approximate]
    layouts: [uniform, even]
evaluation:
  tasks: [copa, rte, heldout]
exhibits:
  table1: {model: tiny}
"""


def write(tmp_path: Path, text: str, name: str = "x.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def problems(*paths: Path, overrides: dict | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(paths, overrides)
    assert str(caught.value).splitlines() == caught.value.problems
    return caught.value.problems


def with_change(old: str, new: str) -> str:
    assert RIGHT.count(old) == 1, old
    return RIGHT.replace(old, new)


RECALL = """\
name: tiny-recall
corpus: {kind: recall, pairs: [2, 3], keys: 5, values: 4, sequences: 3000, seed: 7}
tokens: {context_length: 14, heldout_fraction: 0.02}
models:
  tiny:
    hidden_size: 16
    intermediate_size: 16
    num_hidden_layers: 2
    num_attention_heads: 2
    max_position_embeddings: 16
training: {steps: 12, sequences_per_step: 8, warmup_steps: 2, precision: float32}
grid:
  - {models: [tiny], variants: [standard, fixedseqqk], layouts: [even]}
exhibits: {figure_recall: {model: tiny}}
resources: {default: {device: cpu}}
"""
"""The smallest grid of associative recall: 4 answers are scored in 14 tokens, behind 2 or 3 pairs."""


def recall_beside_text() -> str:
    """The models of RECALL, as `recall`, in a config whose other model is trained on text."""
    config, recall = yaml.safe_load(RIGHT), yaml.safe_load(RECALL)
    own = {name: recall[name] for name in ("corpus", "tokens", "training")}
    config["models"]["recall"] = recall["models"]["tiny"] | own
    config["grid"] = [{"models": ["tiny"], "variants": ["standard"]}, {**recall["grid"][0], "models": ["recall"]}]
    config["training"]["precision"] = "float32"
    config["evaluation"]["limit"] = 10
    config["exhibits"] = {"figure_recall": {"model": "recall"}, "table_findings": {"models": ["recall", "tiny"]}}
    return yaml.safe_dump(config | {"resources": recall["resources"]})
