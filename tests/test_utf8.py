"""Files are UTF-8 whatever the locale says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

CODE = """
import sys
from deconattn.cli import main
from deconattn.files import read_json, write_json
write_json(sys.argv[1], {'description': 'K\\u00f6nig'})
assert read_json(sys.argv[1])['description'][1] == '\\u00f6'
main(['check', 'config/test.yaml'])
print('\\u00f6')
"""


def test_no_text_file_is_opened_in_the_locales_encoding() -> None:
    found = []
    for path in [*(ROOT / "deconattn").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or "encoding" in [keyword.arg for keyword in call.keywords]:
                continue
            function, mode = ast.unparse(call.func), "".join(map(ast.unparse, call.args[1:2]))
            if function.endswith((".read_text", ".write_text")) or (function == "open" and "b" not in mode):
                found.append(f"{path}:{call.lineno}")
    assert found == []


def test_a_file_with_an_umlaut_is_written_read_and_printed_in_an_ascii_locale(tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", CODE, str(tmp_path / "x.json")]
    done = subprocess.run(command, env=environment, capture_output=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "K\u00f6nig".encode() in (tmp_path / "x.json").read_bytes()
    assert done.stdout.endswith(b"\\xf6\n")
