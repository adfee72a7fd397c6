"""plan, explain, the guard, adopt, prune and verify on a finished project and the real Snakemake."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import yaml

from deconattn.experiment.records import note_code
from deconattn.experiment.verify import Verifier
from deconattn.files import sha256_file
from tests.project import CONFIG, Project
from tests.workflow.changes import (
    ALL,
    ANALYSED,
    MLP,
    MLP_EDITED,
    RNDEMB,
    RUNS,
    STANDARD,
    both,
    code,
    config,
    of,
    planned,
    remove,
)

pytestmark = pytest.mark.xdist_group("workflow")

AGREE = {
    "nothing": lambda project: None,
    "nothing finished": remove("results", "resources", ".snakemake"),
    "learning rate": config("peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3"),
    "mixer": MLP_EDITED,
    "task dropped, notes lost": both(remove(".snakemake"), config("tasks: [copa, rte,", "tasks: [copa,")),
}


def asked(project: Project, *arguments: str) -> dict:
    """`deconattn plan --json`."""
    done = project.deconattn("plan", CONFIG, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", AGREE)
def test_the_plan_is_snakemakes_own_job_by_job(finished_copy: Project, name: str) -> None:
    AGREE[name](finished_copy)
    plan = asked(finished_copy)
    jobs = sorted((job["rule"], job["run"].rpartition("-")[0]) for job in plan["jobs"])
    assert jobs == sorted((rule.partition("#")[0], run) for rule, run in planned(finished_copy))
    assert all(job["reason"] for job in plan["jobs"])


def test_the_plan_counts_and_prices(finished_copy: Project) -> None:
    finished_copy.edit(CONFIG, "layouts: [even]", "layouts: [even, top]")
    MLP_EDITED(finished_copy)
    plan = asked(finished_copy)
    statuses = {run["run"].rpartition("-")[0]: run["status"] for run in plan["runs"]}
    assert statuses == {STANDARD: "finished", MLP: "stale", RNDEMB: "finished", "tiny-rndembqk-top-s0": "missing"}
    assert [run["why"] for run in plan["runs"] if run["status"] == "stale"] == [
        ["code: deconattn.mixers.mlp: MLP.parameter_count changed"]
    ]
    assert len(plan["orphans"]) == 1 and plan["orphans"][0].startswith(MLP)
    prices = {price["run"].rpartition("-")[0]: price for price in plan["trainings"]}
    old = json.loads((finished_copy.folder / f"results/runs/{plan['orphans'][0]}/done.json").read_text())
    mlp = prices[MLP]
    simple_layers = mlp["parameters"] - old["parameters"]  # what is edited says one more for each of them
    assert 1 <= simple_layers <= 4 and mlp["tokens"] == 12 * 4 * 32
    # as fast as the finished run of the same model, variant and layout
    assert mlp["hours"] * 3600 == pytest.approx(old["seconds"])
    top = prices["tiny-rndembqk-top-s0"]
    even = json.loads((finished_copy.runs(f"{RNDEMB}-*")[0] / "done.json").read_text())
    assert "speed of tiny-" in top["rate_from"] and 0.1 < top["hours"] * 3600 / even["seconds"] < 10
    assert plan["totals"]["gpu_hours"] == pytest.approx(sum(price["gpu_hours"] for price in plan["trainings"]))
    said = finished_copy.deconattn("plan", CONFIG)
    assert said.returncode == 0 and max(map(len, said.stdout.splitlines())) <= 80
    assert "finished 2 · stale 1 · begun 0 · missing 1 · orphaned 1" in said.stdout


def test_the_papers_plan_is_priced_by_device_and_mfu(tmp_path: Path) -> None:
    project = Project.copy(tmp_path)
    done = project.deconattn("plan", "config/paper.yaml", "--json", "--device", "a100", "--mfu", "0.5", "--gpus", "16")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["totals"]["trainings"] == 65
    one = next(price for price in plan["trainings"] if price["run"].startswith("500m-standard"))
    assert one["parameters"] == 481_109_888 and one["tokens"] == 28_610 * 256 * 2048
    # 6·N·D of the parameters outside the embedding, and attention on top
    lower = 6 * (one["parameters"] - 50_304 * 896) * one["tokens"]
    assert lower < one["flops"] < 1.2 * lower
    assert one["gpu_hours"] == pytest.approx(one["flops"] / (312e12 * 0.5) / 3600)
    hours = plan["wall_hours_at_gpus"]["16"]
    assert plan["totals"]["gpu_hours"] / 16 <= hours < 1.2 * plan["totals"]["gpu_hours"] / 16
    # the second time it needs no torch: the formulas are remembered
    blocked = tmp_path / "torch"
    blocked.mkdir()
    (blocked / "__init__.py").write_text("raise ImportError('torch is not needed here')\n")
    again = project.deconattn("plan", "config/paper.yaml")
    assert again.returncode == 0, again.stderr
    assert max(map(len, again.stdout.splitlines())) <= 80 and "500m-gqa" in again.stdout
    for wrong, told in ((("--device", "h10"), "h100"), (("--mfu", "40"), "at most 1"), (("--gpus", "0"), "1 or more")):
        refused = project.deconattn("plan", "config/paper.yaml", *wrong)
        assert refused.returncode == 2 and told in refused.stderr and "Traceback" not in refused.stderr


def test_explain_names_settings_functions_and_data(finished_copy: Project) -> None:
    finished_copy.edit(CONFIG, "peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3")
    finished_copy.edit("deconattn/training/schedule.py", "(step + 1)", "(step + 2)")
    finished_copy.edit(CONFIG, "heldout_fraction: 0.1", "heldout_fraction: 0.2")
    done = finished_copy.deconattn("explain", CONFIG, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 3
    for stages in found.values():
        reasons = stages["training"]
        assert "training.peak_learning_rate: 0.004 → 0.005" in reasons
        assert "code: deconattn.training.schedule: learning_rate changed" in reasons
        assert "tokens.heldout_fraction: 0.1 → 0.2" in reasons
    one = finished_copy.deconattn("explain", CONFIG, MLP)
    assert "finished as tiny-mlp" in one.stdout and RNDEMB not in one.stdout
    assert max(map(len, one.stdout.splitlines())) <= 130
    wrong = finished_copy.deconattn("explain", CONFIG, "tiny-mlp-unifrm-s0")
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1 and "tiny-mlp-uniform-s0" in wrong.stderr


def test_explain_shows_evaluation_and_package_versions(finished_copy: Project) -> None:
    info = finished_copy.folder / "torch-99.0.dist-info/METADATA"
    info.parent.mkdir()
    info.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 99.0\n")
    found = json.loads(finished_copy.deconattn("explain", CONFIG, "--json").stdout)
    assert len(found) == 3
    for stages in found.values():
        assert set(stages) == {"versions"}
        assert any(line.startswith("training: torch: ") and line.endswith("→ 99.0") for line in stages["versions"])
    finished_copy.edit("deconattn/evaluation/passes.py", "BOOTSTRAP_DRAWS = 100", "BOOTSTRAP_DRAWS = 200")
    finished_copy.edit(CONFIG, "tasks: [copa, rte,", "tasks: [copa,")
    found = json.loads(finished_copy.deconattn("explain", CONFIG, "--json").stdout)
    for stages in found.values():
        assert "code: deconattn.evaluation.passes: (module) changed" in stages["evaluation"]
        assert any(line.startswith("tasks: ") for line in stages["evaluation"])


def test_every_result_states_what_computed_it(finished: Project) -> None:
    for run in finished.runs():
        versions = {
            name: json.loads((run / name).read_text())["versions"]
            for name in ("done.json", "evaluation.json", "analysis.json")
            if (run / name).exists()
        }
        assert {"python", "torch", "numpy", "pyarrow", "safetensors"} <= versions["done.json"].keys()
        assert {"transformers", "tokenizers", "lm-eval", "datasets", "torch"} <= versions["evaluation.json"].keys()
        done = json.loads((run / "done.json").read_text())
        assert done["files"]["model/model.safetensors"] == sha256_file(run / "model/model.safetensors")
        assert done["code"] == json.loads((run / "spec.json").read_text())["code"]


# ---- the guard --------------------------------------------------------------------------------------------------------------
def test_a_launch_that_redoes_too_much_stops_and_says_what_to_type(finished_copy: Project) -> None:
    for done in finished_copy.folder.glob("results/runs/*/done.json"):
        done.write_text(json.dumps({**json.loads(done.read_text()), "seconds": 36_000.0, "processes": 8}))
    finished_copy.edit(CONFIG, "peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3")
    before = finished_copy.runs()
    stopped = finished_copy.snakemake("--quiet", "rules")
    said = stopped.stdout + stopped.stderr
    assert stopped.returncode != 0 and "Traceback" not in said and "Exception" not in said, said
    assert "3 runs" in said and "240 GPU-hours" in said and "redo_gpu_hours allows 8" in said
    assert "--config redo_gpu_hours=241" in said and f"deconattn explain {CONFIG}" in said
    assert finished_copy.runs() == before
    assert planned(finished_copy), "a dry run is not stopped"
    assert "240 GPU-hours of finished work" in finished_copy.deconattn("plan", CONFIG).stdout
    # typed, it runs; so does what trains nothing
    typed = finished_copy.snakemake("--quiet", "rules", "--config", "redo_gpu_hours=241", "--until", "spec")
    assert typed.returncode == 0, typed.stdout + typed.stderr
    figures = finished_copy.snakemake("--profile", "profiles/figures", "--quiet", "rules")
    assert figures.returncode == 0, figures.stdout + figures.stderr


def cost(project: Project, name: str, seconds: float) -> None:
    """Have all runs' records say that they took so long."""
    for path in project.folder.glob(f"results/runs/*/{name}"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": seconds}))


def test_a_curve_that_is_gone_is_told_counted_and_stopped_before_weights_are_touched(finished_copy: Project) -> None:
    run = finished_copy.runs(f"{MLP}-*")[0]
    cost(finished_copy, "done.json", 36_000.0)
    before = sha256_file(run / "model/model.safetensors")
    (run / "train.parquet").unlink()
    plan = asked(finished_copy)
    assert {each["run"]: each["status"] for each in plan["runs"]}[run.name] == "stale"
    assert plan["totals"]["trainings"] == 1 and 10 < plan["redo_gpu_hours"]["would"] < 11
    assert ("pretrain", MLP) in planned(finished_copy)
    assert "train.parquet is gone" in finished_copy.deconattn("explain", CONFIG).stdout
    stopped = finished_copy.snakemake("--quiet", "rules", "--until", "pretrain")
    said = stopped.stdout + stopped.stderr
    assert stopped.returncode != 0 and run.name in said and "train.parquet is gone" in said, said
    assert (run / "done.json").is_file() and sha256_file(run / "model/model.safetensors") == before
    # what stands on the run is drawn without its curve meanwhile
    drawn = finished_copy.snakemake("--profile", "profiles/figures", "--quiet", "rules")
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr
    # allowed, it goes on from its last checkpoint and trains nothing anew
    typed = finished_copy.snakemake("--quiet", "rules", "--until", "pretrain", "--config", "redo_gpu_hours=11")
    assert typed.returncode == 0, typed.stdout + typed.stderr
    assert (run / "train.parquet").is_file() and sha256_file(run / "model/model.safetensors") == before


FORCED = {
    "a figure": (("-R", "figure5"), frozenset({("figure5", ""), ("provenance", "")})),
    "a file": (("-f", "results/reports/test/figures/figure5.png"), frozenset({("figure5", "")})),
    "a stage": (("-R", "analyse"), of("analyse", ANALYSED) | of("aggregate_analysis figure1 figure2 provenance")),
    "a training": (("-R", "pretrain"), ALL - of("spec", RUNS)),
}


@pytest.mark.parametrize("name", FORCED)
def test_by_force_runs_what_is_named_and_what_is_made_from_it(finished_copy: Project, name: str) -> None:
    options, jobs = FORCED[name]
    remove(".snakemake")(finished_copy)
    assert planned(finished_copy, *options) == jobs


def test_no_force_goes_past_the_guard_and_measurements_count_as_well(finished_copy: Project) -> None:
    finished_copy.edit(CONFIG, "name: test\n", "name: test\nredo_gpu_hours: 1\n")
    cost(finished_copy, "evaluation.json", 1440.0)
    cost(finished_copy, "analysis.json", 1440.0)
    finished_copy.edit(CONFIG, "tasks: [copa, rte,", "tasks: [copa,")
    assert 1.2 <= asked(finished_copy)["redo_gpu_hours"]["would"] < 1.3
    for options in ((), ("-R", "baselines"), ("-f", "all"), ("-R", "analyse", "--until", "analyse"), ("-F",)):
        stopped = finished_copy.snakemake("--quiet", "rules", *options)
        said = stopped.stdout + stopped.stderr
        assert stopped.returncode != 0 and "3 runs evaluated" in said and "redo_gpu_hours allows 1" in said, said
        assert ("2 runs analysed" in said) == (options[-1:] in (("analyse",), ("-F",)))
        assert ("3 runs trained" in said) == (options == ("-F",))
        assert max(map(len, said[said.index("stopped: ") :].splitlines())) <= 80, said


def test_a_to_b_to_a_trains_once_for_b_and_nothing_for_the_return(finished_copy: Project) -> None:
    finished_copy.edit(CONFIG, "peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3")
    trained = finished_copy.snakemake("--quiet", "rules", "--until", "pretrain")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert not {"pretrain", "spec"} & set(finished_copy.planned()) and len(finished_copy.runs()) == 6
    finished_copy.edit(CONFIG, "peak_learning_rate: 5e-3", "peak_learning_rate: 4e-3")
    assert planned(finished_copy) == frozenset()


# ---- adopt ------------------------------------------------------------------------------------------------------------------
def test_adopted_code_finds_the_finished_runs_under_their_names(finished_copy: Project) -> None:
    folder = finished_copy.folder
    code("training/schedule.py", "def learning_rate", "def other() -> None: ...\n\n\ndef learning_rate")(finished_copy)
    code("data/tokens.py", "def _chunks", "def other() -> None: ...\n\n\ndef _chunks")(finished_copy)
    assert asked(finished_copy)["totals"]["trainings"] == 3
    listed = finished_copy.deconattn("adopt", CONFIG, "--reason", "a new function is not called", "--dry-run")
    assert (
        "training mlp" in listed.stdout and "data" in listed.stdout and not (folder / "config/adoptions.yaml").exists()
    )
    done = finished_copy.deconattn("adopt", CONFIG, "--reason", "a new function is not called")
    assert done.returncode == 0, done.stderr
    entries = yaml.safe_load((folder / "config/adoptions.yaml").read_text())
    assert {"from", "to", "what", "reason", "date"} == set(entries[0]) and len(entries) == 4
    assert planned(finished_copy) == frozenset()
    # a chain: changed once more, and adopted once more
    code("training/schedule.py", "def other() -> None: ...", "def other() -> int: ...")(finished_copy)
    assert asked(finished_copy)["totals"]["trainings"] == 3
    assert finished_copy.deconattn("adopt", CONFIG, "--reason", "still not called").returncode == 0
    assert planned(finished_copy) == frozenset()
    again = finished_copy.deconattn("adopt", CONFIG, "--reason", "nothing left")
    assert again.returncode == 2 and "nothing to adopt" in again.stderr
    # a setting is no code
    finished_copy.edit(CONFIG, "peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3")
    assert finished_copy.deconattn("adopt", CONFIG, "--reason", "no").returncode == 2


def test_only_the_newest_of_several_states_of_the_code_is_adopted(finished_copy: Project) -> None:
    folder, first = finished_copy.folder, finished_copy.runs(f"{MLP}-*")[0]
    finished_copy.edit(CONFIG, "variants: [standard, mlp]", "variants: [mlp]")
    finished_copy.edit(CONFIG, "  - {models: [tiny], variants: [rndembqk], layouts: [even]}\n", "")
    original = (folder / "deconattn/mixers/mlp.py").read_text()
    MLP_EDITED(finished_copy)
    trained = finished_copy.snakemake("--quiet", "rules", "--until", "pretrain")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    (second,) = set(finished_copy.runs(f"{MLP}-*")) - {first}
    old, doubled = (json.loads((run / "done.json").read_text())["code"] for run in (first, second))
    code("mixers/mlp.py", "from torch import Tensor", "unused = 1\nfrom torch import Tensor")(finished_copy)
    adopt = ("adopt", CONFIG, "--reason", "a constant is not used", "--stage", "training")
    listed = finished_copy.deconattn(*adopt, "--dry-run", "--from", old)
    assert listed.stdout.count(f": {old} → ") == 1 and doubled not in listed.stdout, listed.stdout + listed.stderr
    wrong = finished_copy.deconattn(*adopt, "--from", "0" * 16)
    assert wrong.returncode == 2 and doubled in wrong.stderr and old in wrong.stderr
    done = finished_copy.deconattn(*adopt)
    entries = yaml.safe_load((folder / "config/adoptions.yaml").read_text())
    assert [entry["from"] for entry in entries] == [doubled], "the code before is not declared to be the same"
    assert f"made {second.name}" in done.stdout and f"--from {old}" in done.stderr
    assert {job["rule"] for job in asked(finished_copy)["jobs"]} & {"spec", "pretrain"} == set()
    # the first code again is the first run again
    (folder / "deconattn/mixers/mlp.py").write_text(original)
    assert [each["run"] for each in asked(finished_copy)["runs"]] == [first.name]


def test_only_what_is_named_is_adopted_and_a_begun_run_goes_on(finished_copy: Project) -> None:
    run = finished_copy.runs(f"{MLP}-*")[0]
    for name in ("done.json", "train.parquet", "evaluation.json"):
        (run / name).unlink()
    shutil.rmtree(run / "model")
    code("training/schedule.py", "def learning_rate", "def other() -> None: ...\n\n\ndef learning_rate")(finished_copy)
    done = finished_copy.deconattn("adopt", CONFIG, "--reason", "not called", "--stage", "training", "--variant", "mlp")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2, done.stdout + done.stderr
    jobs = planned(finished_copy)
    assert {job for job in jobs if job[0] == "pretrain"} == {("pretrain", each) for each in (MLP, RNDEMB, STANDARD)}
    finished_copy.edit(CONFIG, "variants: [standard, mlp]", "variants: [mlp]")
    finished_copy.edit(CONFIG, "  - {models: [tiny], variants: [rndembqk], layouts: [even]}\n", "")
    trained = finished_copy.snakemake("--quiet", "rules", "--until", "pretrain")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "resumed after step 12" in (run / "log/pretrain.log").read_text()
    assert finished_copy.runs(f"{MLP}-*") == [run] and (run / "done.json").exists()


# ---- prune ------------------------------------------------------------------------------------------------------------------
def test_prune_lists_and_deletes_only_what_no_config_names(finished_copy: Project) -> None:
    folder = finished_copy.folder
    quiet = ("--launched-within", "0")  # no job of the launch that made them waits
    other = folder / "config/other.yaml"
    shutil.copy(folder / CONFIG, other)
    finished_copy.edit(CONFIG, "peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3")
    runs = finished_copy.runs()
    # the other config is not given, but lies in the folder
    kept = finished_copy.deconattn("prune", CONFIG, "--delete", "--older-than", "0", *quiet)
    assert kept.returncode == 0 and "config/other.yaml: not given, but names" in kept.stderr
    assert finished_copy.runs() == runs
    both_given = finished_copy.deconattn(
        "prune", CONFIG, str(other.relative_to(folder)), "--delete", "--older-than", "0", *quiet
    )
    assert "no orphans" in both_given.stderr or "deleted 0" in both_given.stderr
    other.unlink()
    listed = finished_copy.deconattn("prune", CONFIG)
    assert all(run.name in listed.stdout for run in runs) and "nothing is deleted without --delete" in listed.stderr
    assert finished_copy.runs() == runs
    launched = finished_copy.deconattn("prune", CONFIG, "--delete", "--older-than", "0")
    assert finished_copy.runs() == runs and launched.stderr.count("names it: its jobs may still wait") == 3
    young = finished_copy.deconattn("prune", CONFIG, "--delete", *quiet)
    assert finished_copy.runs() == runs and "(--older-than 1)" in young.stderr
    hour_ago = time.time() - 7200
    for path in runs[0].rglob("*"):
        os.utime(path, (hour_ago, hour_ago))
    assert finished_copy.deconattn("prune", CONFIG, "--delete", *quiet).returncode == 0
    assert finished_copy.runs() == runs[1:]
    finished_copy.deconattn("prune", CONFIG, "--delete", "--older-than", "0", *quiet)
    assert finished_copy.runs() == []
    assert list(folder.glob("results/tokens/*/manifest.json")), "the config still names the token table"
    broken = finished_copy.folder / CONFIG
    broken.write_text(broken.read_text().replace("steps: 12", "setps: 12"))
    refused = finished_copy.deconattn("prune", CONFIG, "--delete")
    assert refused.returncode == 2 and "setps" in refused.stderr


# ---- verify -----------------------------------------------------------------------------------------------------------------
def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_verify_finds_each_kind_of_damage(finished_copy: Project) -> None:
    whole = finished_copy.deconattn("verify")
    assert whole.returncode == 0 and "3 runs" in whole.stdout and "0 problems" in whole.stdout, whole.stdout
    folder, run = finished_copy.folder, finished_copy.runs(f"{MLP}-*")[0]
    spec = json.loads((run / "spec.json").read_text())
    spec["training"]["peak_learning_rate"] = 0.1
    (run / "spec.json").write_text(json.dumps(spec))
    damaged = [
        run / "model/model.safetensors",
        finished_copy.runs(f"{STANDARD}-*")[0] / "evaluation.parquet",
        finished_copy.runs(f"{RNDEMB}-*")[0] / "scores.parquet",
        next(folder.glob("results/tokens/*/part-0001.parquet")),
        next(folder.glob("resources/mirror/tasks-*/copa.parquet")),
        folder / "results/reports/test/figures/figure5.png",
        folder / "results/reports/test/tables/table1.csv",
    ]
    for path in damaged:
        damage(path)
    (run / "train.parquet").unlink()
    found = finished_copy.deconattn("verify", "--json")
    assert found.returncode == 1
    problems = json.loads(found.stdout)["problems"]
    for path in [*damaged, run / "train.parquet"]:
        name = str(path.relative_to(folder))
        assert sum(line.startswith(f"{name}: ") for line in problems) == 1, (name, problems)
    assert any("spec.json: its settings have hash" in line for line in problems)
    assert len(problems) == len(damaged) + 2, problems


def test_the_plan_does_without_what_cannot_be_priced_read_or_shown(finished_copy: Project) -> None:
    folder, run = finished_copy.folder, finished_copy.runs(f"{RNDEMB}-*")[0]
    shutil.copytree(run, other := run.with_name("tiny-mine-even-s0-12345678"))
    spec = json.loads((other / "spec.json").read_text())
    spec["model"]["variant"] = "mine"  # a file that was deleted
    (other / "spec.json").write_text(json.dumps(spec))
    shutil.copytree(run, broken := run.with_name("tiny-mlp-even-s0-12345678"))
    (broken / "spec.json").write_text('{"model": {"name": "tiny"}}')
    (broken / "done.json").write_text('{"status": "finished", "seconds": "x", "ended": "x"}')
    mlp = finished_copy.runs(f"{MLP}-*")[0] / "done.json"
    mlp.write_text(json.dumps({**json.loads(mlp.read_text()), "files": None, "ended": [], "seconds": None}))
    for memo in ("resources/mirror/sources.json", ".cache/deconattn/trees.json", ".cache/deconattn/costs.json"):
        (folder / memo).parent.mkdir(parents=True, exist_ok=True)
        (folder / memo).write_text("[]")
    (folder / "config/other.yaml").write_text((folder / CONFIG).read_text().replace("steps: 12", "steps: 13"))
    plan = asked(finished_copy)
    assert plan["orphans"] == [other.name, broken.name]
    assert sorted(job["rule"] for job in plan["jobs"] if job["run"]) == ["evaluate"], "its weights are not proven"
    others = json.loads(finished_copy.deconattn("plan", "config/other.yaml", "--json").stdout)
    assert others["orphans"] == [other.name, broken.name], "what another config names is none, as for prune"
    for memo in ("resources/mirror/sources.json", ".cache/deconattn/trees.json", ".cache/deconattn/costs.json"):
        (folder / memo).write_text('{"' + "a" * 64 + '": null}')
    long = "a-model-whose-name-is-longer-than-a-table-likes"
    finished_copy.edit_all("config/other.yaml", "tiny", long)
    said = finished_copy.deconattn("plan", "config/other.yaml", CONFIG, "config/other.yaml")
    assert said.returncode == 0, said.stderr
    assert max(map(len, said.stdout.splitlines())) <= 80 and "a-model" in said.stdout, said.stdout


UNKNOWN = ("results/code/", "results/launches/")
"""What nothing but itself speaks of: its removal goes unnoticed, and of the code damage that leaves it JSON."""


@pytest.mark.parametrize("change", ["damaged", "gone"])
def test_verify_looks_at_every_file(finished_copy: Project, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_copy.folder)
    side = Path("results/sidetexts/32-tales-01234567/side.parquet")
    side.parent.mkdir(parents=True)
    shutil.copy(next(Path("results").glob("runs/*/train.parquet")), side)
    note_code(side.parent, "deconattn.data.sidetext", files=[side.name])
    files = [path for top in ("results", "resources") for path in sorted(Path(top).rglob("*")) if path.is_file()]
    files = [path for path in files if path.parent.name not in ("lock", "log") and path.name != "sources.json"]
    whole = Verifier()
    whole.all()
    assert not whole.problems and not whole.unfinished and len(files) > 100
    for path in files:
        if str(path).startswith(UNKNOWN[0]) or change == "gone" and str(path).startswith(UNKNOWN):
            continue
        data = path.read_bytes()
        damage(path) if change == "damaged" else path.unlink()
        found = Verifier()
        found.all()
        seen = found.problems or str(path.parent) in found.unfinished
        assert seen and not any("cannot be checked further" in line for line in found.problems), (path, found.problems)
        # the others are checked all the same
        assert found.checked == whole.checked and found.files > len(files) * 0.9, path
        path.write_bytes(data)


def test_nothing_that_a_record_may_hold_ends_verify(finished_copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_copy.folder)
    weights = finished_copy.runs(f"{RNDEMB}-*")[0] / "model/model.safetensors"
    damage(weights)
    places = ["resources/mirror/*/manifest.json", "resources/mirror/*/copa.json", "results/tokenizers/*/manifest.json"]
    places += [
        "results/tokens/*/*.json",
        f"results/runs/{MLP}-*/*.json",
        f"results/runs/{MLP}-*/checkpoints/*/manifest.json",
    ]
    places += ["results/reports/test/provenance.json", "results/reports/test/tables/*.json"]
    for path in [path for place in places for path in Path().glob(place)]:
        text = path.read_text()
        value = json.loads(text)
        wrong = (None, 3, "x", [3], {"x": 3})
        some = [{**value, key: wrong[number % len(wrong)]} for number, key in enumerate(value)]
        for changed in [*some, *(dict.fromkeys(value, each) for each in wrong), {}, []]:
            path.write_text(json.dumps(changed))
            found = Verifier()
            found.all()
            assert any("model.safetensors: its SHA-256" in line for line in found.problems), (path, changed)
            assert not any("cannot be checked further" in line for line in found.problems), found.problems
        path.write_text(text)


def test_verify_before_sums_were_kept(finished_copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of an earlier version have fewer sums: what they say nothing of has to be there and be read."""
    monkeypatch.chdir(finished_copy.folder)
    report = Path("results/reports/test")
    written = [*report.glob("tables/aggregate*.json"), report / "provenance.json"]
    for path in [*written, *Path("results").glob("tokenizers/*/record.json")]:
        path.write_text(
            json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in ("files", "sum")})
        )
    for path in Path("results").glob("runs/*/done.json"):
        done = json.loads(path.read_text())
        del done["sum"]
        done["files"] = {name: sha256 for name, sha256 in done["files"].items() if "tokenizer" not in name}
        path.write_text(json.dumps(done))
    old = Verifier()
    old.all()
    assert not old.problems
    run = next(Path("results/runs").glob(f"{MLP}-*"))
    damaged = [report / "tables/runs.parquet", run / "model/tokenizer.json"]
    for path in damaged:
        damage(path)
    for path in (run / "model/tokenizer_config.json", report / "provenance.html", report / "tables/gaps.parquet"):
        path.unlink()
        damaged.append(path)
    found = Verifier()
    found.all()
    # a gathered table's own line is that of a figure which was drawn from it
    assert all(any(path.name in line for line in found.problems) for path in damaged), found.problems


def test_partial_is_true_or_false(tmp_path: Path) -> None:
    refused = Project.copy(tmp_path).snakemake("-n", "--quiet", "--config", "partial=maybe")
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0 and "Traceback" not in said
    assert "command line: partial: 'maybe' is not allowed; must be true or false" in said


# ---- figures only -----------------------------------------------------------------------------------------------------------
def test_figures_stand_on_stale_runs_and_say_so(finished_copy: Project) -> None:
    MLP_EDITED(finished_copy)
    finished_copy.edit("deconattn/evaluation/passes.py", "BOOTSTRAP_DRAWS = 100", "BOOTSTRAP_DRAWS = 200")
    plan = finished_copy.planned("--profile", "profiles/figures")
    assert "figure5" in plan and not {"pretrain", "evaluate", "analyse", "spec"} & set(plan)
    done = finished_copy.snakemake("--profile", "profiles/figures", "--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr
    report = finished_copy.folder / "results/reports/test"
    for exhibit in ("figures/figure4", "figures/figure5", "tables/table1"):
        record = json.loads((report / f"{exhibit}.json").read_text())
        assert any("stale" in gap and "stands in for" in gap and "other code" in gap for gap in record["gaps"]), exhibit
        assert any("evaluated with other settings or code" in gap for gap in record["gaps"]), exhibit
        assert len(record["runs"]) == 3
    drawn = (report / "figures/figure5.svg").read_text()
    assert "stale" in drawn, "the line is on the figure"
    page = (report / "provenance.html").read_text()
    assert page.count("<h2>") == 5 and "stands in for" in page and "torch" not in page.split("<h2>")[0]
    assert finished_copy.planned("--profile", "profiles/figures") == {}
    typed = ("--profile", "profiles/figures", "--config", "redo_gpu_hours=9")
    assert finished_copy.planned(*typed) == {}, "a typed --config takes the place of the profile's"
    refused = finished_copy.snakemake("-n", "--config", "partial=maybe")
    assert refused.returncode != 0 and "must be true or false" in refused.stdout + refused.stderr
    assert finished_copy.planned()["pretrain"] == 1, "the full plan still lists what is stale"


def test_every_table_and_figure_has_its_origin(finished: Project) -> None:
    report = finished.folder / "results/reports/test"
    records = [*report.glob("tables/table*.json"), *report.glob("figures/*.json")]
    assert len(records) == 5
    for path in records:
        record = json.loads(path.read_text())
        assert {"runs", "commit", "data", "versions", "gaps", "tables", "files", "options"} <= record.keys()
        assert record["runs"] and all(len(sha) == 64 for sha in record["data"].values())
    page = (report / "provenance.html").read_text()
    assert all(run.name in page for run in finished.runs())
