"""plan, explain, verify and report on a finished project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deconattn.experiment.record import sealed
from deconattn.experiment.verify import verify
from deconattn.peaks import published_mfu
from tests.project import CONFIG, Project
from tests.workflow.changes import MLP, RNDEMB, STANDARD
from tests.workflow.edits import MLP_EDITED

pytestmark = pytest.mark.xdist_group("workflow")


def asked(project: Project, *arguments: str, config: str = CONFIG, command: str = "plan") -> dict:
    """`deconattn plan --json`, or explain."""
    done = project.deconattn(command, config, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def printed(project: Project, config: str) -> str:
    """`deconattn plan`, which fits 80 columns."""
    done = project.deconattn("plan", config)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout
    return done.stdout


def record_of(run: Path) -> dict:
    return json.loads((run / "record.json").read_text())


# ---- plan
def test_the_plan_counts_and_prices(finished_copy: Project) -> None:
    finished_copy.edit(CONFIG, "layouts: [even]", "layouts: [even, top]")
    MLP_EDITED(finished_copy)
    plan = asked(finished_copy)
    statuses = {run.rpartition("-")[0]: status for run, status in plan["runs"].items()}
    assert statuses == {STANDARD: "finished", MLP: "missing", RNDEMB: "finished", "tiny-rndembqk-top-s0": "missing"}
    prices = {price["run"].rpartition("-")[0]: price for price in plan["trainings"]}
    (mlp,), (even,) = finished_copy.runs(f"{MLP}-*"), finished_copy.runs(f"{RNDEMB}-*")
    old, price = record_of(mlp), prices[MLP]
    # what is edited is one wider in each of the four layers, all of which are relaxed
    assert price["parameters"] - old["parameters"] == 4 * 3 * 32 and price["tokens"] == 12 * 4 * 32
    assert price["gpu_hours"] * 3600 == pytest.approx(old["seconds"]), "as fast as the finished run of its kind"
    top = prices["tiny-rndembqk-top-s0"]
    assert "speed of tiny-" in top["rate_from"] and 0.1 < top["gpu_hours"] * 3600 / record_of(even)["seconds"] < 10
    (again,) = plan["retrained"].values()
    assert again["finished_as"] == mlp.name
    assert plan["totals"]["gpu_hours"] > sum(price["gpu_hours"] for price in plan["trainings"])
    text = printed(finished_copy, CONFIG)
    assert "2 finished · 0 begun · 2 missing" in text
    rows = [line.split() for line in text.splitlines() if line.strip()]
    priced = sum(int(row[2]) for row in rows if row[0] in ("pretrain", "evaluate", "analyse"))
    assert [row[1] for row in rows if row[0] == "total"] == [str(priced)]
    overridden = asked(finished_copy, "--config", "training={steps: 6}", "name=other")
    assert {price["tokens"] for price in overridden["trainings"]} == {6 * 4 * 32}


def test_the_papers_plan_is_priced_by_device_and_mfu(tmp_path: Path) -> None:
    project, paper = Project.copy(tmp_path), "config/paper.yaml"
    plan = asked(project, "--device", "a100", "--mfu", "0.5", "--gpus", "16", config=paper)
    assert len(plan["trainings"]) == 65
    one = next(price for price in plan["trainings"] if price["run"].startswith("500m-standard"))
    assert one["parameters"] == 481_109_888 and one["tokens"] == 28_610 * 256 * 2048
    # 6·N·D of the parameters outside the embedding, and attention on top
    lower = 6 * (one["parameters"] - 50_304 * 896) * one["tokens"]
    assert lower < one["flops"] < 1.2 * lower
    assert one["gpu_hours"] == pytest.approx(one["flops"] / (312e12 * 0.5) / 3600)
    hours, trained = plan["wall_hours_at_gpus"]["16"], sum(price["gpu_hours"] for price in plan["trainings"])
    assert trained / 16 <= hours < 1.2 * trained / 16
    disk = plan["disk_bytes"]
    assert disk["mirror"] == 220e9 and disk["tokens"] == 2 * 45.1e9
    weights = 4 * sum(price["parameters"] for price in plan["trainings"])
    assert disk["runs"] == weights and 110e9 < weights < 120e9 and disk["runs_while_training"] == 10 * weights
    assert disk["missing"] == max(0, disk["mirror"] + disk["tokens"] + disk["runs_while_training"] - disk["free"])
    kept = asked(project, "--config", "resources={default: {keep_checkpoints: true}}", config=paper)
    assert kept["disk_bytes"]["runs"] == 4 * weights
    large = next(one for one in kept["trainings"] if one["model"] == "1.7b")
    share = published_mfu("h100", large["parameters"])
    assert large["gpu_hours"] == pytest.approx(large["flops"] / (989.4e12 * share) / 3600)
    assert large["rate_from"] == f"h100 at {share:.0%} MFU"
    # the second time it needs no torch: the formulas are remembered
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise ImportError('torch is not needed here')\n")
    text = printed(project, paper)
    assert "500m-gqa" in text and ("the disk is too small" in text) == (disk["missing"] > 0)


@pytest.mark.slow
def test_published_utilisations_and_runs_of_other_sizes_price_what_has_no_run(finished_copy: Project) -> None:
    assert [published_mfu("h100", size) for size in (10**7, 125 * 10**6, 10**10)] == [0.275, 0.275, 0.437]
    assert 0.317 < published_mfu("b200", 5 * 10**8) < 0.349 < 0.5 < published_mfu("a100", 3 * 10**8)
    big = "  big: {hidden_size: 64, intermediate_size: 64, num_hidden_layers: 4, num_attention_heads: 2}\n"
    finished_copy.edit(CONFIG, "\ntraining:\n", f"{big}\ntraining:\n")
    finished_copy.edit(CONFIG, "{models: [tiny], variants: [standard", "{models: [tiny, big], variants: [standard")
    finished_copy.edit(CONFIG, "device: cpu", "gpus: 1")
    cpu = [one["rate_from"] for one in asked(finished_copy)["trainings"]]
    assert cpu == ["h100 at 28% MFU"] * 2, "a run on a CPU says nothing about a GPU"
    for run in finished_copy.runs():
        record = sealed({**record_of(run), "device": "NVIDIA H100 80GB HBM3"})
        (run / "record.json").write_text(json.dumps(record))
    for one in asked(finished_copy)["trainings"]:
        speed_of, scaled = one["rate_from"].split(",")
        assert speed_of.startswith("speed of tiny-") and scaled == " scaled to the size"
        like = finished_copy.folder / "results/runs" / speed_of.removeprefix("speed of ")
        assert one["gpu_hours"] > record_of(like)["seconds"] / 3600, "larger, at the same speed"
    assert {one["rate_from"] for one in asked(finished_copy, "--mfu", "0.3")["trainings"]} == {"h100 at 30% MFU"}


# ---- explain
def test_explain_names_settings_definitions_and_data(finished_copy: Project) -> None:
    info = finished_copy.folder / "torch-99.0.dist-info/METADATA"
    info.parent.mkdir()
    info.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 99.0\n")
    said = finished_copy.deconattn("explain", CONFIG).stdout
    assert "other packages than are installed" in said and "→ 99.0" in said
    finished_copy.edit(CONFIG, "peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3")
    finished_copy.edit("deconattn/training/optimizer.py", "(step + 1)", "(step + 2)")
    finished_copy.edit("deconattn/evaluation/passes.py", "BOOTSTRAP_DRAWS = 100", "BOOTSTRAP_DRAWS = 200")
    finished_copy.edit(CONFIG, "tasks: [copa, rte,", "tasks: [copa,")
    finished_copy.edit(CONFIG, "heldout_fraction: 0.1", "heldout_fraction: 0.2")
    found = asked(finished_copy, command="explain")
    runs = {folder: why for folder, why in found.items() if Path(folder).parent.name == "runs"}
    assert len(runs) == 3
    for reasons in runs.values():
        assert reasons[0].startswith("made before as results/runs/tiny-")
        assert "training.peak_learning_rate: 0.004 → 0.005" in reasons
        assert any("learning_rate changed" in line and line.startswith("code: ") for line in reasons), reasons
        assert "made from what is to be made: tokenize" in reasons
    evaluations = [why for folder, why in found.items() if "/evaluation-" in folder]
    assert len(evaluations) == 3
    for reasons in evaluations:
        assert any(line.startswith("code: deconattn.evaluation.passes") for line in reasons), reasons
        assert any(line.startswith("tasks: ") for line in reasons)
    (tokens,) = [why for folder, why in found.items() if folder.startswith("results/tokens/")]
    assert "heldout_fraction: 0.1 → 0.2" in tokens
    one = finished_copy.deconattn("explain", CONFIG, MLP)
    assert "made before as results/runs/tiny-mlp" in one.stdout and RNDEMB not in one.stdout
    wrong = finished_copy.deconattn("explain", CONFIG, "tiny-mlp-unifrm-s0")
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1 and "tiny-mlp-uniform-s0" in wrong.stderr
    for run in finished_copy.runs(f"{MLP}-*"):
        shutil.rmtree(run)
    (mlp,) = [folder for folder in runs if MLP in folder]
    (finished_copy.folder / mlp).mkdir(exist_ok=True)
    (finished_copy.folder / mlp / "error.txt").write_text("loss is not finite at step 3\n")
    assert asked(finished_copy, command="explain")[mlp][0] == "never finished: loss is not finite at step 3"


# ---- records and verify
def test_every_result_states_what_computed_it(finished: Project) -> None:
    model = {
        f"model/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    }
    for run in finished.runs():
        record = record_of(run)
        assert {"python", "torch", "numpy", "pyarrow", "safetensors"} <= record["versions"].keys()
        assert record["spec"]["code"] == record["made_by"] and record["status"] == "finished"
        assert set(record["files"]) == model | {"train.parquet"}
        (evaluation,) = run.glob("evaluation-*")
        made = record_of(evaluation)
        assert {"transformers", "tokenizers", "lm-eval", "datasets", "torch"} <= made["versions"].keys()
        assert made["weights"] == record["files"]["model/model.safetensors"]["sha256"]
        assert made["sources"][f"results/runs/{run.name}"] == record["sum"]


def damage(path: Path) -> None:
    """Flip one bit; of a spec in what is hashed, as its resources may change."""
    data = bytearray(path.read_bytes())
    data[data.index(b'"stage"') + 2 if path.name == "spec.json" else len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.slow
@pytest.mark.parametrize("change", ["damaged", "gone"])
def test_verify_looks_at_every_file(finished_copy: Project, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_copy.folder)
    files = [path for top in ("results", "resources") for path in sorted(Path(top).rglob("*")) if path.is_file()]
    files = [path for path in files if path.stat().st_size and path.parent.name not in ("lock", "log")]
    files = [path for path in files if path.name not in ("sources.json", "curve.csv") and "reports" not in path.parts]
    whole = verify()
    assert not whole.problems and not whole.unfinished and len(files) > 100
    for path in files:
        if change == "gone" and path.name == "spec.json":
            continue  # the record has it
        data = path.read_bytes()
        damage(path) if change == "damaged" else path.unlink()
        found = verify()
        seen = found.problems or str(path.parent) in found.unfinished or path.name.startswith("record-")
        assert seen and not any("cannot be checked further" in line for line in found.problems), (path, found.problems)
        assert found.files >= whole.files - 40, "the others are checked all the same"
        path.write_bytes(data)


def test_verify_says_what_is_wrong_and_ends_with_one(finished_copy: Project) -> None:
    whole = finished_copy.deconattn("verify")
    assert whole.returncode == 0 and "3 runs" in whole.stdout and "0 problems" in whole.stdout, whole.stdout
    run = finished_copy.runs(f"{MLP}-*")[0]
    damage(run / "model/model.safetensors")
    (run / "train.parquet").unlink()
    (run / "spec.json").write_text(json.dumps({**json.loads((run / "spec.json").read_text()), "seed": 9}))
    moved = finished_copy.runs(f"{RNDEMB}-*")[0]
    moved.rename(moved.with_name(f"{RNDEMB}-01234567"))
    found = finished_copy.deconattn("verify", "--json")
    assert found.returncode == 1
    problems = json.loads(found.stdout)["problems"]
    damages = {"model/model.safetensors": "changed or damaged", "train.parquet": "missing", "spec.json": "not the spec"}
    for name, said in damages.items():
        lines = [line for line in problems if line.startswith(f"results/runs/{run.name}/{name}: ") and said in line]
        assert len(lines) == 1, problems
    assert any("01234567/record.json: its spec has the hash" in line for line in problems)
    one = finished_copy.deconattn("verify", CONFIG)
    assert one.returncode == 1 and "01234567" not in one.stdout, "only what the config names"


# ---- report
def test_the_report_shows_what_the_config_names(finished_copy: Project) -> None:
    shown = finished_copy.folder / "results/reports/test"
    before = {path: path.read_bytes() for path in shown.rglob("*.*")}
    (shown / "figures/figure3.png").write_text("of an earlier config")
    (shown / "mine.md").write_text("notes")
    (shown / "figures/figure5.png").unlink()
    said = finished_copy.deconattn("report", CONFIG)
    assert said.returncode == 0 and "6 of 6 exhibits" in said.stdout
    assert {path: path.read_bytes() for path in shown.rglob("*.*") if path.name != "mine.md"} == before
    assert (shown / "mine.md").is_file(), "what is not ours is left alone"
    page = (shown / "page.html").read_text()
    for name in ("table_findings", "table1", "figure1", "figure2", "figure4", "figure5"):
        assert f'id="{name}"' in page
    finished_copy.edit(CONFIG, "  figure5: {models: [tiny]}\n", "")
    assert finished_copy.snakemake("-n").returncode == 0
    assert (shown / "figures/figure5.png").exists(), "no dry run touches it"
    finished_copy.deconattn("report", CONFIG)
    assert not (shown / "figures/figure5.png").exists()
