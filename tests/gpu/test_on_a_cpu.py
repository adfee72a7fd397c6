"""What no machine of ours can run on a GPU runs on a CPU at least: one of each test of this folder, eager."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.project import ROOT


@pytest.mark.slow
def test_the_tests_of_a_gpu_run() -> None:
    names = ["-k", "(standard or none or flex) and not compiled", "-p", "no:cacheprovider"]
    environment = {**os.environ, "DECONATTN_TEST_DEVICE": "cpu"}
    command = [sys.executable, "-m", "pytest", "-q", *names, "tests/gpu/test_model.py", "tests/gpu/test_training.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "SKIPPED" not in done.stdout, done.stdout
