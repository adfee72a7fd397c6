"""Training and evaluation read the same text as the same ids, whatever a tokenizer would do with special tokens."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from lm_eval.api.instance import Instance
from tokenizers import Tokenizer

from deconattn.data.tokenizer import END_OF_TEXT, load_tokenizer, save_tokenizer, train_tokenizer
from deconattn.data.tokens import tokenize_part
from deconattn.errors import UserError
from deconattn.evaluation.baselines import UniformModel
from deconattn.evaluation.scoring import HarnessModel, TokenizedLM
from tests.data import save_byte_tokenizer, save_part

SPELLED_OUT = f"The king came home.{END_OF_TEXT}Then he slept."
TEXTS = [SPELLED_OUT, END_OF_TEXT, "  two spaces\n\nnaïve — 海 ", f"{END_OF_TEXT}{END_OF_TEXT} a", "[BEGIN]once"]
TEXTS += "abcdefgh"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    train_tokenizer([save_part(["the king came home and then he slept. " * 20], folder / "corpus")], 300, folder)
    return folder


@pytest.fixture(scope="module")
def templated(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Path:
    """The same tokenizer with a special token, of an id beyond a gap, that a template puts at both ends of a text."""
    folder = tmp_path_factory.mktemp("templated")
    content = json.loads((plain / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"].append({**content["added_tokens"][0], "content": "[BEGIN]", "id": 900, "special": True})
    content["model"]["vocab"]["[BEGIN]"] = 900
    piece, text = {"SpecialToken": {"id": "[BEGIN]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [piece, text, piece],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[BEGIN]": {"id": "[BEGIN]", "ids": [900], "tokens": ["[BEGIN]"]}},
    }
    save_tokenizer(json.dumps(content), folder, {})
    return folder


def table(texts: list[str], tokenizer: Path, folder: Path) -> dict[str, list[int]]:
    """Text → ids, end-of-text included, by way of the token table."""
    tokenize_part(save_part(texts, folder / "corpus"), tokenizer, 4, folder / "tokens", heldout_fraction=0.999999)
    return {row["text"]: row["tokens"] for row in pq.read_table(folder / "tokens" / "heldout-0000.parquet").to_pylist()}


@pytest.mark.parametrize("name", ["plain", "templated"])
def test_a_text_has_the_ids_of_the_token_table_in_evaluation(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(name)
    lm: TokenizedLM = UniformModel(folder)
    found = table(TEXTS, folder, tmp_path)
    assert set(found) == set(TEXTS)
    for text, ids in found.items():
        assert [*lm.tok_encode(text), lm.eot_token_id] == ids, text
        assert ids.count(0) == 1 and max(ids) < 300  # no end-of-text but the packing's, nothing of a template
    # The library's own reading, which this is not: it cuts at the special token, and adds the template's.
    own = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(SPELLED_OUT).ids
    assert 0 in own and (max(own) >= 900) == (name == "templated")
    assert lm._encode_pair("  ", "king") == ([0], lm.tok_encode("  king")), "white space alone is no context"


def test_a_vocabulary_with_holes_has_a_row_for_each_id(templated: Path, tmp_path: Path) -> None:
    corpus = save_part(["the king came home. " * 30], tmp_path / "corpus")
    manifest = tokenize_part(corpus, templated, 8, tmp_path / "t", heldout_fraction=0.0)
    tokenizer, _ = load_tokenizer(templated)
    assert tokenizer.get_vocab_size() < 400 and manifest["settings"]["vocab_size"] == 901


def test_ids_that_lie_beyond_64k_are_kept(tmp_path: Path) -> None:
    folder = save_byte_tokenizer(tmp_path / "bytes")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["z"] = 65_536
    save_tokenizer(json.dumps(content), folder, {})
    assert table(["az"], folder, tmp_path)["az"][1] == 65_536


def test_a_choice_that_merges_with_its_context_is_one_line(tmp_path: Path) -> None:
    content = json.loads((save_byte_tokenizer(tmp_path) / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["ab"] = 257
    content["model"]["merges"] = [["a", "b"]]
    save_tokenizer(json.dumps(content), tmp_path, {})
    pairs = [("xa", "c"), ("x", "b"), ("x", "ab"), ("xa", "b")]
    asked = [Instance("loglikelihood", {}, pair, at, metadata=("copa", 7, 1)) for at, pair in enumerate(pairs)]
    assert UniformModel(tmp_path).loglikelihood(asked[:3])
    with pytest.raises(UserError, match=r"item 7 \(from 0\), choice 3: the tokenizer joins 'b' to the end of 'xa'"):
        UniformModel(tmp_path).loglikelihood(asked)


def test_a_tokenizer_that_the_model_was_not_trained_with_is_one_line(templated: Path) -> None:
    model: Any = SimpleNamespace(lm_head=torch.nn.Linear(4, 384))
    model.parameters = model.lm_head.parameters
    with pytest.raises(UserError, match=r"tokenizer\.json: its ids go up to 900, beyond the model's vocabulary of 384"):
        HarnessModel(model, templated, 8, 1)
