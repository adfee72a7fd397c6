"""Wrong arguments of a command: one line that names them and what is allowed, exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deconattn import cli, stages
from deconattn.experiment.settings import ConfigError, flag
from tests.project import ROOT

RUN = {"name": "tiny", "variant": "mlp", "layout": "uniform"}
SPEC = json.dumps({"code": "x", "seed": 0, "model": RUN, "tokens": {}})
SIZES = dict.fromkeys(cli.SHAPE, 32)
MEASURED = json.dumps(
    {"model": {"name": "t", **SIZES}, "variants": ["mpl"], "batch_sizes": [1], "lengths": [8], "repeats": 1}
)
WRONG: dict[str, tuple[list[str], list[str]]] = {
    "exhibit": (["draw", "figur1", "{}", "a", "b"], ["'figur1'", "did you mean 'figure1'"]),
    "options": (["draw", "figure1", "notjson", "a", "b"], ["options", "'notjson'", "a JSON object"]),
    "runs": (["aggregate", "notjson", "r"], ["runs", "'notjson'", "a JSON object"]),
    "runs of the analysis": (["aggregate-analysis", "[]", "r"], ["runs", "'[]'", "a JSON object"]),
    "spec": (["spec", "{}", "nope", "nope"], ["spec", "code", "missing", "text"]),
    "model of a spec": (["spec", SPEC.replace("layout", "lay"), "nope", "nope"], ["model.layout", "missing", "text"]),
    "manifest of a spec": (["spec", SPEC, "nope", "out"], ["nope: No such file"]),
    "exhibits": (["provenance", "3", "r"], ["exhibits", "'3'", "a JSON list"]),
    "names of exhibits": (["provenance", "[3]", "r"], ["exhibits", "'[3]'", "a JSON list of text"]),
    "source": (["mirror-task", "{}", "rte", "out"], ["source", "kind", "missing", "text"]),
    "evaluate": (["evaluate", "run", "tokenizer", '{"code": "x"}'], ["spec", "files", "missing", "a JSON object"]),
    "memory": (["measure", MEASURED, "a", "--memory-mb", "-1"], ["--memory-mb", "'-1'", "at least 1"]),
    "analyse": (["analyse", "run", "{}"], ["spec", "code", "missing"]),
    "baselines": (["baselines", '{"code": "x", "files": 3}', "a", "b"], ["files", "'3'", "a JSON object"]),
    "tokenize": (["tokenize", "{}", "0", "a", "b", "c"], ["spec", "code", "missing"]),
    "finish-tokens": (["finish-tokens", '{"code": "x"}', "a", "b"], ["parts", "missing", "a whole number"]),
    "train-tokenizer": (["train-tokenizer", "{}", "a", "b"], ["vocab_size", "missing", "a whole number"]),
    "measure": (["measure", '{"model": {}}', "a"], ["model.name", "missing", "text"]),
    "variants that are measured": (
        [
            "measure",
            MEASURED,
            "a",
        ],
        ["variants: 'mpl'", "did you mean 'mlp'"],
    ),
    "costs": (["aggregate-costs", "nope", "--report", "r"], ["nope.parquet: no such file", "--partial"]),
    "variant": (
        ["adopt", str(ROOT / "config/test.yaml"), "--reason", "r", "--variant", "mpl"],
        ["--variant 'mpl'", "did you mean 'mlp'", "allowed: mlp, rndembqk, standard"],
    ),
    "command": (["prun"], ["'prun'", "'prune'"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    arguments, told = WRONG[name]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and all(each in said for each in told), said
    assert [path.name for path in tmp_path.iterdir()] == ["tests"]


def test_a_folder_whose_spec_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("{}", "[]", '{"model": {"name": "tiny", "variant": "mlp", "layout": "uniform"}}'):
        (tmp_path / "spec.json").write_text(content)
        spec = json.dumps({"code": "x", "context_length": 32, "heldout": "h"})
        assert cli.main(["analyse", str(tmp_path), spec]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"{tmp_path / 'spec.json'}: not the spec of a run: ") and len(said.splitlines()) == 1


def test_an_error_that_names_no_file_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> None:
        raise OSError("of this program")

    monkeypatch.setattr(stages, "check", broken)
    with pytest.raises(OSError, match="of this program"):
        cli.main(["check", "config/test.yaml"])
    monkeypatch.setattr(stages, "check", lambda options: open("/nope/file"))
    assert cli.main(["check", "config/test.yaml"]) == 2
    monkeypatch.setenv("DECONATTN_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        cli.main(["check", "config/test.yaml"])


def test_a_file_that_is_no_text_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spec.json").write_bytes(b"\xff")
    spec = json.dumps({"code": "x", "context_length": 32, "heldout": "h"})
    assert cli.main(["analyse", str(tmp_path), spec]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path / 'spec.json'}: not text in UTF-8") and len(said.splitlines()) == 1

    def broken(options: object) -> None:
        json.loads("{")  # of no file

    monkeypatch.setattr(stages, "check", broken)
    with pytest.raises(json.JSONDecodeError):
        cli.main(["check", "config/test.yaml"])


def test_a_flag_is_true_or_false() -> None:
    assert (
        flag("partial", True)
        and flag("partial", "true")
        and not flag("partial", False)
        and not flag("partial", "False")
    )
    for wrong in ("maybe", "", 1, None, [True]):
        with pytest.raises(ConfigError, match="command line: partial: .* must be true or false"):
            flag("partial", wrong)
