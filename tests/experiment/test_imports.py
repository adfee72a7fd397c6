"""Imports run one way: between the rooms of the package, within them without a circle, and no room loads what it must not."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tests.project import ROOT

ORDER = """
    errors
    files nearest exhibit
    layouts exhibits device bf16 peaks result_tables pieces
    config
    layers
    mixers
    side_stream costs
    decoder
    load huggingface
    data
    experiment
    training analysis
    evaluation
    report
    job status doctor
    live_page
    stages commands
    cli
    __main__
"""
"""A room (a folder, or a file beside them) imports from the rooms above it, whether at once, within functions or for types."""
RANK = {room: rank for rank, rooms in enumerate(ORDER.split("\n")) for room in rooms.split()}
NEVER = {"report": {"config", "layers", "mixers", "side_stream", "decoder", "load", "huggingface", "device"}}
"""Room → what it must not import although it comes later: a report reads Parquet and never a model."""
LOADS = {
    "experiment": "torch pandas transformers datasets snakemake",
    "training analysis": "transformers datasets lm_eval",
    "report": "torch transformers",
}
"""Rooms → libraries that importing them must not load."""

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "deconattn").rglob("*.py")
}


def imported(name: str) -> set[str]:
    """Files of the package that a file imports from, annotations included."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {each.name: f"{node.module}.{each.name}" for each in node.names}
            found |= {name if name in FILES else str(node.module) for name in full.values()}
    return {each for each in found if each in FILES and each != name}


def room(name: str) -> str:
    return name.split(".")[1]


def test_rooms_import_from_those_above_them() -> None:
    assert RANK.keys() == {room(name) for name in FILES.keys() - {"deconattn"}}, "ORDER names each room"
    wrong = []
    for name in FILES.keys() - {"deconattn"}:
        for other in imported(name) - {"deconattn"}:
            mine, theirs = room(name), room(other)
            if mine != theirs and (RANK[theirs] >= RANK[mine] or theirs in NEVER.get(mine, ())):
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_no_circle() -> None:
    assert list(TopologicalSorter({name: imported(name) for name in FILES}).static_order())


@pytest.mark.parametrize("rooms", LOADS)
def test_what_a_room_does_not_load(rooms: str) -> None:
    files = sorted(each for each in FILES if each.count(".") == 2 and room(each) in rooms.split())
    script = f"import sys, importlib\nfor name in {files}: importlib.import_module(name)\n"
    script += f"print(sorted(set({LOADS[rooms].split()}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
