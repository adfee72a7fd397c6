"""That the suite can fail: the package is broken on purpose, and the very test that should catch it does."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from tests.mixers.faults import FAULTS, Fault

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{fault.case.get('variant', '')}: {fault.what}" for fault in FAULTS])
def test_the_fault_is_caught(fault: Fault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = fault.case
    if "tmp_path" in inspect.signature(fault.test).parameters:
        case = {**case, "tmp_path": tmp_path}
    fault.test(**case)
    fault.patch(monkeypatch)
    with pytest.raises(fault.error, match=fault.says):
        fault.test(**case)


def test_every_test_of_the_suite_has_a_fault_that_it_catches() -> None:
    modules = {sys.modules[fault.test.__module__] for fault in FAULTS}
    assert {Path(module.__file__) for module in modules} == set(Path(__file__).parent.glob("test_*.py")) - {
        Path(__file__)
    }
    tests = {function for module in modules for name, function in vars(module).items() if name.startswith("test_")}
    assert tests == {fault.test for fault in FAULTS}
