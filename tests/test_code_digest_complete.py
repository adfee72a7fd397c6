"""Nothing runs in a stage that its digest does not hold: each stage is run, small, under a tracing hook.

What counts is what runs beneath its entry functions. It is evidence and no proof: constants and branches that are not taken
run nothing.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deconattn.experiment.code import Code, Definition, roots_of
from tests.project import CONFIG, Project

GRID = (
    "  - {models: [tiny], variants: [standard, mlp], layouts: [uniform]}\n"
    "  - {models: [tiny], variants: [rndembqk], layouts: [even]}\n"
)
VARIANTS = (
    "  - models: [tiny]\n    layouts: [uniform]\n"
    "    variants: [standard, mlp, approximate, nonapproximate, staticembqk, softplus]\n"
    "  - {models: [tiny], variants: [rndembqk, fixedseqqk], layouts: [even]}\n"
)
HANDED_IN = {
    # a job's hooks: when to stop, what to say, how fast it is; none of it touches the numbers
    "pretrain": ("training.job", "training.stops", "training.lock", "training.progress"),
    # what a stopped job goes on from, and its lock, which another thread keeps alive
    **dict.fromkeys(
        ("evaluate", "measure"), ("pieces", "files.read_json", "files.write_json", "training.stops", "training.lock")
    ),
    # the registry fills in defaults; the spec holds all options anyway
    **dict.fromkeys(("figure", "table"), ("exhibit", "exhibits")),
}
"""Stage → modules, or single functions, of what comes into its entry functions from outside."""

RUN = """
import importlib, json, sys, threading
from pathlib import Path
from deconattn import cli
from deconattn.experiment import code, record
from deconattn.experiment.identity import Identity
from deconattn.experiment.load import load_settings
from deconattn.experiment.plan import jobs

root = str(Path(code.PACKAGE))
ENTRIES = {f"deconattn.{entry}" for entries in code.ENTRIES.values() for entry in entries}
found, depth, aside, seen = [], 0, 0, set()

def name_of(each):
    path = Path(each.co_filename).relative_to(root).with_suffix("")
    return ".".join(["deconattn", *path.parts]).removesuffix(".__init__")

def hook(frame, event, argument):
    "Called as each function begins; where it returns something, that is told of the function's end too."
    global depth, aside
    each = frame.f_code
    if not (each.co_filename.startswith(root) and each.co_filename.endswith(".py")):
        return None
    module = name_of(each)
    # the bodies of classes that are defined (what a module does beside that is in the digest); the record
    is_aside = each.co_name == "<module>" or each.co_qualname == "pretrain.<locals>.finish"
    is_entry = f"{module}.{each.co_qualname}" in ENTRIES
    depth += is_entry
    aside += is_aside
    if depth and not aside:
        seen.add((module, each.co_qualname, each.co_firstlineno))
    if not (is_entry or is_aside):
        return None
    frame.f_trace_lines = False

    def end(frame, event, argument):
        global depth, aside
        if event == "return":
            depth -= is_entry
            aside -= is_aside
        return end

    return end

ident = Identity(load_settings([sys.argv[1]]))
for job in jobs(ident):
    one = ident.artefacts[job.folder]
    record.write_spec(one.folder, one.spec)
    names = {"figure": "exhibit", "table": "exhibit", "mirror": "mirror"}
    command = names.get(one.stage, job.rule.removesuffix("_part").replace("_", "-"))
    arguments = [command, job.folder, *(["--part", job.part] if job.part else []), *(["--device", "cpu"] if job.model else [])]
    seen.clear()
    depth = aside = 0
    threading.settrace(hook)
    sys.settrace(hook)
    status = cli.main(arguments)
    sys.settrace(None)
    threading.settrace(None)
    assert status == 0, arguments
    found.append([one.spec, sorted(seen)])
    json.dump(found, open(sys.argv[2], "w"))
"""


def outside(package: Code, spec: dict[str, Any], ran: list[tuple[str, str, int]]) -> set[str]:
    """What ran beneath the entry functions and is not in the digest."""
    reached, _ = package.reached(roots_of(spec))
    handed_in = {f"deconattn.{name}" for name in HANDED_IN.get(spec["stage"], ())}
    found = set()
    for module, name, line in ran:
        tops = package.module(module).statements
        around = {
            top for top, nodes in tops.items() for node in nodes if first_line(node) <= line <= (node.end_lineno or 0)
        }
        if not {module, f"{module}.{name}"} & handed_in and not any(
            Definition(module, top) in reached for top in around
        ):
            found.add(f"{module}.{name}")
    return found


def first_line(node: ast.stmt) -> int:
    return min(each.lineno for each in (node, *getattr(node, "decorator_list", ())))


@pytest.mark.xdist_group("workflow")
@pytest.mark.slow
def test_what_runs_in_a_stage_is_in_its_digest(tmp_path: Path) -> None:
    project = Project.copy(tmp_path / "project")
    project.edit(CONFIG, GRID, VARIANTS)
    project.edit(
        CONFIG,
        "exhibits:\n",
        "costs: {lengths: [8], batch_sizes: [1], repeats: 1}\n\nexhibits:\n  figure_costs: {model: tiny}\n"
        "  figure_lengths: {model: tiny, task: heldout}\n  figure_pareto: {models: [tiny]}\n",
    )
    project.edit(
        CONFIG,
        "modes: [full,",
        "limit: {default: 2}\n  context_lengths: {heldout: [32, 64]}\n  modes: [reweighted, full,",
    )
    project.edit(CONFIG, "steps: 12", "steps: 3")
    run = subprocess.run(
        [sys.executable, "-c", RUN, CONFIG, str(tmp_path / "ran.json")],
        cwd=project.folder, env=project.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    package = Code(project.folder / "deconattn")
    by_stage: dict[str, set[str]] = {}
    for spec, ran in json.loads((tmp_path / "ran.json").read_text()):
        by_stage.setdefault(spec["stage"], set()).update(outside(package, spec, ran))
        # what only puts records together runs nothing of its own
        assert len(ran) > 2 or spec["stage"] in ("mirror", "tokenize"), f"{spec['stage']}: nothing of it was seen"
    assert by_stage.keys() == {
        "mirror", "tokenizer", "tokenize", "side_text", "pretrain", "evaluate", "baselines", "analyse", "measure", "aggregate",
        "table", "figure", "page",
    }  # fmt: skip
    assert {stage: found for stage, found in by_stage.items() if found} == {}
