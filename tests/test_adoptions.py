"""Adopted code, the time that runs take together, and the sums of sources: what planning reckons with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deconattn.errors import UserError
from deconattn.experiment.adoptions import Adoptions
from deconattn.experiment.content import Content
from deconattn.experiment.placement import Placement
from deconattn.experiment.prices import Price, wall_hours
from deconattn.files import sha256_file

A, B, C, D, E = (letter * 16 for letter in "abcde")


def entry(old: str, new: str) -> dict[str, str]:
    return {"from": old, "to": new, "what": "training mlp", "reason": "renamed a variable", "date": "2026-01-01"}


def test_adoptions_follow_one_another_and_join() -> None:
    chain = Adoptions.of([entry(A, B), entry(B, C), entry(D, E)])
    assert chain.same(C) == chain.same(A) == [A, B, C] and chain.first(C) == A
    assert chain.same(E) == [D, E] and Adoptions().same(A) == [A]
    joined = Adoptions.of([entry(A, C), entry(B, C)])
    assert joined.same(B) == [A, C, B] and joined.first(B) == A
    back = Adoptions.of([entry(A, B), entry(B, A)])
    assert back.first(A) == back.first(B) == A


def test_adoptions_are_written_and_read_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "config" / "adoptions.yaml"
    digits = "1234567890123456"
    Adoptions().add([entry(digits, "12345678901234e5")], file)
    Adoptions.load(file).add([entry(A, B)], file)
    assert Adoptions.load(file).same("12345678901234e5") == [digits, "12345678901234e5"]
    assert file.read_text().startswith("#")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "not valid YAML"),
        ("from: x", "must be a list"),
        (f"- {{from: {A}, to: {B}, what: x, date: today}}", "entry 1: reason missing"),
        (f"- {{from: {A[:5]}, to: {B}, what: x, reason: y, date: today}}", "is not a digest"),
    ],
)
def test_a_wrong_file_of_adoptions_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "adoptions.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        Adoptions.load(file)
    assert told in str(caught.value) and str(file) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_digests_own_folder_comes_before_those_of_equal_code(tmp_path: Path) -> None:
    def place(digest: str) -> Placement:
        return Placement(digest, lambda each: tmp_path / f"run-{each}", ("done.json", "spec.json"), "mlp", [A, B, C])

    def write(digest: str, mark: str, ended: float = 0.0) -> None:
        (tmp_path / f"run-{digest}").mkdir(exist_ok=True)
        (tmp_path / f"run-{digest}" / mark).write_text(json.dumps({"code": digest, "ended": ended}))

    assert place(C).code == A, "what is new is named by the first"
    write(A, "done.json", 2.0)
    assert place(C).code == A
    write(B, "spec.json")
    assert place(B).code == A, "what is finished comes before what has begun"
    write(B, "done.json", 1.0)
    assert [place(each).code for each in (A, B, C)] == [A, B, A]
    write(D, "spec.json")
    write(E, "spec.json")
    write(A, "spec.json")
    here = Placement(E, lambda each: tmp_path / f"run-{each}", ("done.json", "spec.json"), "mlp", [E])
    assert [here.code_of(path) for path in sorted(here.siblings(), key=here.age_of)] == [D, B, A]


def price(hours: float, gpus: int) -> Price:
    return Price("run", 1, 1, 1, hours, gpus, "test")


@given(
    st.lists(st.tuples(st.floats(0.1, 100), st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=12), st.integers(8, 40)
)
def test_wall_time_is_no_less_than_the_work_and_no_more_than_one_after_the_other(
    runs: list[tuple[float, int]], devices: int
) -> None:
    prices = [price(hours, gpus) for hours, gpus in runs]
    wall = wall_hours(prices, devices)
    assert wall is not None
    work = sum(one.gpu_hours for one in prices)
    assert wall >= max(max(one.hours for one in prices), work / devices) - 1e-9
    assert wall <= sum(one.hours for one in prices) + 1e-9


def test_a_run_that_needs_more_gpus_than_there_are_has_no_time() -> None:
    assert wall_hours([price(1.0, 8)], 4) is None
    assert wall_hours([price(3.0, 1), price(2.0, 1), price(1.0, 1)], 2) == pytest.approx(3.0)


def test_a_touched_source_keeps_its_sum_and_a_changed_one_does_not(tmp_path: Path) -> None:
    file, memo = tmp_path / "x.parquet", tmp_path / "memo" / "sources.json"
    file.write_bytes(b"one")
    first = Content(memo).sums([file, tmp_path / "none.parquet"])
    assert first == {"x.parquet": sha256_file(file), "none.parquet": None}
    os.utime(file, (1, 1))
    assert Content(memo).sums([file])["x.parquet"] == first["x.parquet"]
    # other bytes of the same length under the same times of writing, as `rsync -t` and `cp -p` leave them
    Content(memo).sums([file])
    before = file.stat()
    file.write_bytes(b"eno")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Content(memo).sums([file])["x.parquet"] == sha256_file(file) != first["x.parquet"]
    file.write_bytes(b"one")
    assert Content(memo).sums([file])["x.parquet"] == first["x.parquet"]
    told = Content(memo).known
    for damaged in ("[]", "null", "{", f'{{"{file}": 3}}', f'{{"{file}": []}}', f'{{"{file}": [3, 1, "x"]}}'):
        memo.write_text(damaged)
        assert Content(memo).sums([file]) == {"x.parquet": sha256_file(file)}
    file.write_bytes(b"two!")
    assert Content(memo).sums([file])["x.parquet"] != first["x.parquet"]
    assert Content(None, told).sums([file])["x.parquet"] == first["x.parquet"], "a job believes its launch"
