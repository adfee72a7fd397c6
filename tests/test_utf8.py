"""Files are UTF-8 whatever the locale says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_no_text_file_is_opened_in_the_locales_encoding() -> None:
    found = []
    for path in sorted([*(ROOT / "deconattn").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _needs_encoding(node):
                if not any(keyword.arg == "encoding" for keyword in node.keywords):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def _needs_encoding(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if isinstance(call.func, ast.Attribute) and name in ("read_text", "write_text"):
        return True
    modes = [each.value for each in call.args[:2] if isinstance(each, ast.Constant)]
    return isinstance(call.func, ast.Name) and name == "open" and not any("b" in str(mode) for mode in modes[-1:])


def test_a_file_with_an_umlaut_is_written_read_and_printed_in_an_ascii_locale(tmp_path: Path) -> None:
    code = (
        "import sys; from deconattn.cli import main; from deconattn.files import read_json, write_json\n"
        "write_json(sys.argv[1], {'description': 'K\\u00f6nig'}); assert read_json(sys.argv[1])['description'][1] == '\\u00f6'\n"
        "main(['check', 'config/test.yaml']); print('\\u00f6')"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "x.json")]
    done = subprocess.run(command, env=environment, capture_output=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "K\u00f6nig".encode() in (tmp_path / "x.json").read_bytes()
    assert done.stdout.endswith(b"\\xf6\n")
