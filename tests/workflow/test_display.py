"""What the real Snakemake shows: on a terminal, in a pipe, after a failure; and from where it can be started."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import snakemake

from tests.project import Project

pytestmark = pytest.mark.xdist_group("workflow")
EARLY = ("--until", "mirror_source", "--cores", "2")
JOBS = 5  # two parts of the corpus, the whole of it, two evaluation sets


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.copy(tmp_path / "project")


def test_in_a_pipe_each_job_is_a_plain_line_and_the_rest_is_in_the_log_that_is_named(project: Project) -> None:
    done = project.snakemake(*EARLY)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert len(re.findall(r"^\[[1-5]/5\] started  mirror", said, re.M)) == JOBS, said
    assert len(re.findall(r"^\[[1-5]/5\] finished mirror\w* .* in \d:\d\d:\d\d$", said, re.M)) == JOBS, said
    assert "Execute" not in said and "Select jobs" not in said and "\x1b" not in said
    log = project.folder / re.search(r"^done: 5 of 5 jobs in \d:\d\d:\d\d; log: (.*)$", said, re.M).group(1)  # type: ignore[union-attr]
    assert "finished mirror_source corpus-tales" in log.read_text()


def test_on_a_terminal_there_is_one_line(project: Project) -> None:
    screen, theirs = pty.openpty()
    environment = {**project.environment(), "TERM": "xterm", "COLUMNS": "100"}
    environment.pop("CI", None)
    screens = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(project.command(*EARLY), cwd=project.folder, env=environment, **screens)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(screen, 65536):
            seen += part
    except OSError:  # how the end of a terminal shows on Linux
        pass
    os.close(screen)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()).replace("\r", "\n")
    assert process.wait() == 0, text
    assert re.search(r" [1-4]/5 \d:\d\d:\d\d, about \d:\d\d:\d\d left +mirror", text), text
    assert "started " not in text and "Building DAG" not in text
    assert re.search(r"^done: 5 of 5 jobs in \d:\d\d:\d\d; log: ", text, re.M), text


def test_a_job_that_fails_shows_its_last_lines_and_the_log(project: Project) -> None:
    table = project.folder / "tests/data/mirror/corpus/tales.parquet"
    table.write_bytes(table.read_bytes()[:100])
    done = project.snakemake(*EARLY)
    assert done.returncode == 1
    assert re.search(r"^failed: mirror_part \S+ 000[01]\n  .*tales\.parquet", done.stderr, re.M), done.stderr
    assert "RuleException" not in done.stderr
    assert re.search(r"^failed: 2 of 5 jobs in \d:\d\d:\d\d, [12] failed; log: \.snakemake/log/", done.stderr, re.M)


@pytest.mark.slow
def test_bf16_where_it_is_slow_is_said_in_one_line_and_runs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    slow = "training.precision: bf16 takes 10 to 100 times"

    def said() -> int:
        dry = project.snakemake("-n", "--quiet", "reason")
        assert dry.returncode == 0, dry.stderr
        return (dry.stdout + dry.stderr).count(slow)

    assert said() == 0, "float32 is what the config says"
    project.edit("config/test.yaml", "precision: float32", "precision: bf16")
    assert said() == 1
    assert slow in " ".join(project.deconattn("plan", "config/test.yaml").stdout.split())
    project.edit("config/test.yaml", "device: cpu", "device: cuda, gpus: 1")
    assert said() == 0


@pytest.mark.slow
def test_it_runs_from_another_folder_and_as_a_module_without_being_installed(project: Project, tmp_path: Path) -> None:
    # A Python that has what the package needs and not the package: path files of PYTHONPATH's folders are not read.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    packages = Path(snakemake.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(packages), "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    python = str(tmp_path / "bare/bin/python")
    absent = subprocess.run([python, "-c", "import deconattn"], env=environment, cwd=tmp_path, capture_output=True)
    assert absent.returncode != 0
    config = project.folder / "config/test.yaml"
    config.write_text(config.read_text().replace("tests/data/mirror", str(project.folder / "tests/data/mirror")))
    elsewhere, outer = tmp_path / "elsewhere", tmp_path / "outer"
    elsewhere.mkdir()
    outer.mkdir()
    snakefile = project.folder / "Snakefile"
    (outer / "Snakefile").write_text(
        f'configfile: "{config}"\n\nmodule deconattn:\n    snakefile: "{snakefile}"\n    config: config\n\n'
        "use rule * from deconattn as its_*\n"
    )

    def run(folder: Path, *options: str) -> str:
        command = [python, "-m", "snakemake", "--cores", "2", *options]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run(elsewhere, "-s", str(snakefile), "-n", "--quiet", "reason")  # the demo, which lies beside the Snakefile
    run(elsewhere, "-s", str(snakefile), "--configfile", str(config), "--until", "mirror_source")
    assert list(elsewhere.glob("resources/mirror/corpus-*/manifest.json"))
    run(outer, "its_mirror")
    assert list(outer.glob("resources/mirror/corpus-*/manifest.json"))
