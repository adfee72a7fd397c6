"""That the suite can fail: the package is broken on purpose, and the very test that should catch it does."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mixers.faults import Fault, decoding, mixers, models

FAULTS = {**mixers.FAULTS, **models.FAULTS, **decoding.FAULTS}
CASES = [
    pytest.param(test, fault, id=f"{fault.case.get('variant', '')}: {fault.what}")
    for test, faults in FAULTS.items()
    for fault in faults
]


@pytest.mark.parametrize(("test", "fault"), CASES)
@pytest.mark.slow
def test_the_fault_is_caught(
    test: Callable[..., None], fault: Fault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = {"tmp_path": tmp_path} if "tmp_path" in inspect.signature(test).parameters else {}
    test(**fault.case, **folder)
    fault.edit(monkeypatch)
    with pytest.raises(fault.error, match=fault.says):
        test(**fault.case, **folder)


def test_every_test_of_the_suite_has_a_fault_that_it_catches() -> None:
    modules = [sys.modules[f"{__package__}.{file.stem}"] for file in Path(__file__).parent.glob("test_*.py")]
    tests = {
        function
        for module in modules
        if module.__name__ != __name__
        for name, function in vars(module).items()
        if name.startswith("test_")
    }
    assert tests == set(FAULTS)
