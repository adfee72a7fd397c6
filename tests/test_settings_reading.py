"""How configs are read: YAML's values and places, files over files, the command line over all, files that are none."""

from __future__ import annotations

import pytest

from deconattn.experiment.load import load_settings
from deconattn.experiment.schema import Settings
from deconattn.experiment.yaml_lines import read
from tests.configs import RIGHT, problems, with_change, write
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """Paths of a config are seen from the working directory."""
    monkeypatch.chdir(ROOT)


def test_what_the_command_line_says_is_named_so(tmp_path):
    path = write(tmp_path, with_change("weight_decay: 0.1", "weight_decay: -1"))
    found = problems(path, overrides={"training": {"steps": -3}, "nmae": "x"})
    assert found == [
        f"{path}:19: training.weight_decay: -1 is not allowed; must be at least 0",
        "command line: training.steps: -3 is not allowed; must be greater than 0",
        f"command line: nmae: {allowed_at_the_top('nmae', 'name')}",
    ]


def allowed_at_the_top(value: str, meant: str) -> str:
    return f"{value!r} is not a key here; did you mean {meant!r}? (allowed: {', '.join(Settings.model_fields)})"


def test_the_command_line_wins_and_files_are_merged(tmp_path):
    first = write(tmp_path, RIGHT)
    second = write(tmp_path, "training: {steps: 20, eps: 1e-7}\ncorpus: {kind: hub, dataset: a/b}\n", "second.yaml")
    settings = load_settings([first, second], {"training": {"steps": 30}})
    assert (settings.training.steps, settings.training.eps, settings.training.warmup_steps) == (30, 1e-7, 2)
    assert settings.corpus.model_dump(exclude_none=True) == {
        "kind": "hub", "dataset": "a/b", "split": "train", "text_column": "text", "parts": 1
    }  # fmt: skip
    write(tmp_path, "\n\ntraining: {steps: -1}\n", "second.yaml")
    assert problems(first, second) == [f"{second}:3: training.steps: -1 is not allowed; must be greater than 0"]


def typed(tmp_path, *entries: str) -> Settings:
    return load_settings([write(tmp_path, RIGHT)], entries)


def test_what_is_typed_is_read_as_in_a_file_and_merged_key_by_key(tmp_path):
    settings = typed(
        tmp_path, "training={steps: 6, betas: [0.9, 0.95], on_divergence: record}", "training={eps: 1e-7}",
        "tokens={budget: null, heldout_fraction: 1e-1}", "side_text=None", "redo_gpu_hours=1_0",
        "resources={default: {compile: true, memory_mb: 8e3}}", "evaluation={tasks: [copa], limit: {default: Null}}",
        "description=no", 'name="2026"', "exhibits={'table1': {'model': 'tiny'}}",
    )  # fmt: skip
    assert (settings.training.steps, settings.training.eps, settings.training.warmup_steps) == (6, 1e-7, 2)
    assert settings.training.betas == [0.9, 0.95]
    assert (settings.tokens.budget, settings.tokens.context_length, settings.side_text) == (None, 32, None)
    assert (settings.redo_gpu_hours, settings.resources["default"].compile) == (10, True)
    assert settings.resources["default"].memory_mb == 8000
    assert (settings.evaluation.tasks, settings.description, settings.name) == (["copa"], "no", "2026")


def test_what_is_typed_wrong_is_said(tmp_path):
    def said(*entries: str) -> list[str]:
        return problems(write(tmp_path, RIGHT), overrides=entries)

    assert said("training={steps: 6, steps: 7}") == ["command line: training.steps: given twice (first on line 1)"]
    assert said("training={steps: '6'}") == ["command line: training.steps: '6' is not a whole number"]
    assert said("training={steps: 6") == ["command line: training: '{steps: 6' is not a mapping (key: value)"]
    assert said("name=2026") == ['command line: name: 2026 is not text; put it in quotes: "2026"']
    assert said("training={stesp: 6}")[0].startswith("command line: training.stesp: 'stesp' is not a key here")
    assert said("corpus={kind: folder}")[0].startswith("command line: corpus.path: missing")


def test_numbers_as_people_write_them(tmp_path):
    text = RIGHT.replace("  steps: 12\n", "  tokens: 15e9\n").replace("warmup_steps: 2", "warmup_steps: 1_000")
    settings = load_settings([write(tmp_path, text.replace("weight_decay: 0.1", "weight_decay: 1"))])
    assert settings.training.tokens == 15_000_000_000
    assert isinstance(settings.training.tokens, int)
    assert settings.training.warmup_steps == 1000
    assert isinstance(settings.training.weight_decay, float)
    assert settings.training.peak_learning_rate == 0.004


def test_values_of_yaml(tmp_path):
    path = write(
        tmp_path,
        """\
a: [4e-4, 1E5, -1.5e+3, .5, 7., 1_000, -3, 0.1, 1.7b, 70m, 12:30, 2025-01-01, no, on, true, False, null, ~, "4e-4", '1']
b: &base {c: 1, d: 2}
e:
  <<: *base
  d: 3
70: x
""",
    )
    document = read([path])
    assert document.problems == []
    assert document.data["a"] == [
        4e-4, 1e5, -1500.0, 0.5, 7.0, 1000, -3, 0.1, "1.7b", "70m", "12:30", "2025-01-01", "no", "on", True, False,
        None, None, "4e-4", "1",
    ]  # fmt: skip
    assert document.data["e"] == {"c": 1, "d": 3}
    assert document.data["70"] == "x"
    assert [document.place(keys).line for keys in [("b", "c"), ("e", "d"), ("70",), ("a", 3)]] == [2, 5, 6, 1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: {b: 1\nc: 2\n", ":2: not valid YAML: "),
        (b"- a\n- b\n", ":1: not valid YAML: settings are `key: value` lines"),
        (b"a: \xff\xfe\n", ": not a text file in UTF-8"),
        (b"a: \x00\n", ": not valid YAML: a character that is not text"),
        (b"a: &x [*x]\n", ": nested too deeply"),
        (b"a: !!python/name:os.system x\n", ":1: not valid YAML: the tag "),
        (b"a: !secret x\n", ":1: not valid YAML: the tag '!secret' is not understood here"),
        pytest.param(b"[" * 1500, ": nested too deeply", id="nested too deeply"),
        (b"a: 1\n---\nb: 2\n", ":2: not valid YAML: but found another document"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, content, said):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    found = [line for line in problems(path) if line.startswith(f"{path}{said}")]
    assert len(found) == 1


def test_a_file_that_is_not_there(tmp_path):
    assert problems(tmp_path / "none.yaml") == [f"{tmp_path}/none.yaml: no such file (looked in {ROOT})"]
    assert problems(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_an_empty_file_misses_what_is_required(tmp_path):
    path = write(tmp_path, "")
    required = [name for name, field in Settings.model_fields.items() if field.is_required()]
    assert [line.split(": ")[1] for line in problems(path) if ": missing: " in line] == required
