"""What a training is given, looked at before anything long begins: a spec of the right shape, a tokenizer that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from deconattn import mixers
from deconattn.errors import UserError
from deconattn.experiment.messages import schema_problems
from deconattn.experiment.schema import Layout, ModelSettings, TrainingSettings
from deconattn.experiment.sources import Count, Section, Text
from deconattn.experiment.yaml_lines import Document
from deconattn.files import read_json
from deconattn.nearest import not_one_of

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


class SpecSection(Section):
    """A part of a spec; what else stands there is of a later or an earlier version, and no error."""

    model_config = ConfigDict(extra="ignore")


class SpecModel(ModelSettings):
    """A model's settings as a spec has them, with what the run makes of them."""

    model_config = ConfigDict(extra="ignore")

    name: Text = Field(description="Name of the model.")
    variant: Text = Field(description="Name of the variant.")
    layout: Layout = Field(description="Name of the layout.")


class SpecTraining(TrainingSettings):
    """A training's settings as a spec has them, its length resolved."""

    model_config = ConfigDict(extra="ignore")

    steps: Annotated[int, Field(gt=0)] = Field(description="Number of updates.")


class SpecTokens(SpecSection):
    """What a spec says of its tokens."""

    id: Text = Field(description="Name of the token table.")
    manifest_sha256: Text | None = Field(default=None, description="SHA-256 of the token table's manifest.")


class Spec(SpecSection):
    """A spec.json."""

    run: Text = Field(description="Name of the run.")
    hash: Text = Field(description="Hash of all that can change the run.")
    code: Text = Field(description="Digest of the code that trains the run.")
    seed: Count = Field(description="Seed of the weights and of the order of the data.")
    tokens: SpecTokens = Field(description="What it is trained on.")
    model: SpecModel = Field(description="The model.")
    training: SpecTraining = Field(description="The training.")


class Done(SpecSection):
    """A done.json, as far as a training reads it."""

    key: Text = Field(description="What the results are of: the spec's hash, and the tokens' manifest.")


def check_inputs(run_folder: Path, tokenizer: Path | None, side_text: Path | None) -> None:
    """Look at what a training will read at its start or at its very end.

    Raises:
        UserError: a file that is not there, or is not of the shape that it should have.
    """
    spec = _checked(Spec, run_folder / "spec.json")
    # What has a default in a config has none here: a spec states all.
    for name in TrainingSettings.model_fields:
        if name not in spec["training"] and name != "tokens":
            raise UserError(f"{run_folder / 'spec.json'}: training.{name}: missing")
    if spec["model"]["variant"] not in mixers.names():
        problem = not_one_of(spec["model"]["variant"], "variant", mixers.names())
        raise UserError(f"{run_folder / 'spec.json'}: model.variant: {problem}")
    if (run_folder / "done.json").exists():
        done = _checked(Done, run_folder / "done.json")
        if done["key"].startswith(f"{spec['hash']}-"):
            return  # finished: it reads nothing more
    for name in TOKENIZER_FILES if tokenizer else ():
        if not (Path(tokenizer or "") / name).is_file():
            raise UserError(
                f"{tokenizer}: --tokenizer must be a folder with {' and '.join(TOKENIZER_FILES)}; no {name}"
            )
    if side_text and not side_text.is_file():
        raise UserError(f"{side_text}: no such file (--side-text)")


def _checked(schema: type[Section], path: Path) -> dict[str, Any]:
    try:
        data = read_json(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: holds {str(data)[:40]!r}; must be an object with {', '.join(schema.model_fields)}")
    problems, _ = schema_problems(schema, Document(data))
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{path}: {problems[0].text}{more}")
    return data
