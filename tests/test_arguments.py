"""Wrong arguments of a command: one line that names them and what is allowed, exit code 2."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deconattn import cli
from deconattn.experiment.load import ConfigError, flag
from tests.project import ROOT

CONFIG = str(ROOT / "config/test.yaml")
WRONG: dict[str, tuple[list[str], list[str]]] = {
    "exhibit": (["draw", "figur1", "{}", "a", "b"], ["'figur1'", "did you mean 'figure1'"]),
    "options": (["draw", "figure1", "notjson", "a", "b"], ["options", "'notjson'", "a JSON object"]),
    "misspelt": (["draw", "figure5", '{"modles": ["a"]}', "a", "b"], ["figure5.modles", "did you mean 'models'"]),
    "option": (["draw", "figure5", "{}", "a", "b"], ["figure5.models: missing: Names from `models`"]),
    "choice": (
        ["draw", "figure1", '{"model": "a", "form": "radr"}', "a", "b"],
        ["figure1.form: 'radr'", "mean 'radar'"],
    ),
    "no spec": (["evaluate", "tests/nope"], ["tests/nope/spec.json: no such file; snakemake writes it when it starts"]),
    "adopt": (["adopt", "results/runs/a", "results/runs/b"], ["results/runs/a: no result that could be adopted"]),
    "setting": (["plan", CONFIG, "--config", "training"], ["training"]),
    "device": (["plan", CONFIG, "--device", "h10"], ["--device", "'h10'", "h100"]),
    "mfu": (["plan", CONFIG, "--mfu", "40"], ["--mfu 40", "at most 1"]),
    "hours": (["prune", "a", "--delete", "--older-than", "nan"], ["--older-than", "'nan'", "at least 0"]),
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
    for content, told in (
        (b"\xff", "not text in UTF-8"), (b"{}", "of stage None; this command does analyse"), (b"[]", "not a spec (JSON object)"),
        (b'{"stage": "analyse"}', "not that of the folder's name: edited or moved"),
    ):  # fmt: skip
        (tmp_path / "spec.json").write_bytes(content)
        assert cli.main(["analyse", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"{tmp_path / 'spec.json'}: ") and told in said and len(said.splitlines()) == 1


def test_an_error_that_names_no_file_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(does: Callable[[], object]) -> int:
        def broken(options: object) -> None:
            does()

        monkeypatch.setattr(cli, "COMMANDS", [(broken, [])])
        return cli.main(["broken"])

    with pytest.raises(OSError, match="Bad file descriptor"):
        run(lambda: os.close(-1))
    assert run(lambda: open("/nope/file")) == 2
    monkeypatch.setenv("DECONATTN_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        run(lambda: open("/nope/file"))


def test_a_flag_is_true_or_false() -> None:
    assert all(flag("partial", value) for value in (True, "true", 1))
    assert not any(flag("partial", value) for value in (False, "False", "0"))
    for wrong in ("maybe", "", 2, None, [True]):
        with pytest.raises(ConfigError, match="command line: partial: .* must be true or false"):
            flag("partial", wrong)
