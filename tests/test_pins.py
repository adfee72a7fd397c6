"""Commits of a hub's sources: which a config does not name, what the hub says of them, and how they are written in."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from deconattn import cli
from deconattn.errors import UserError
from deconattn.experiment.identity import Identity
from deconattn.experiment.load import load_settings
from deconattn.experiment.pins import remotes, unpinned, write_commits
from tests.configs import RIGHT
from tests.conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGITS = "1" * 20 + "e" + "1" * 19
"""A commit that YAML takes for a number unless it is in quotes."""


def config(
    folder: Path, corpus: str, tasks: str = "{kind: hub}", tokenizer: str = "{kind: hub, dataset: a/tok}"
) -> Path:
    text = RIGHT.replace(
        "corpus: {kind: folder, path: tests/data/mirror, names: [tales], parts: 2}", f"corpus: {corpus}"
    )
    text = text.replace("tasks:\n  kind: folder\n  path: tests/data/mirror\n", f"tasks: {tasks}\n")
    text = text.replace("tokenizer: {kind: train, vocab_size: 384}", f"tokenizer: {tokenizer}")
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


HUB = "\n  kind: hub\n  dataset: a/b"
FORMS = {
    "flow": ("{kind: hub, dataset: a/b}  # the text", '{kind: hub, dataset: a/b, revision: "C"}  # the text'),
    "block": ("\n  # first\n  dataset: a/b  # the text\n  kind: hub\n  parts: 2",
              '\n  # first\n  dataset: a/b  # the text\n  kind: hub\n  parts: 2\n  revision: "C"'),
    "deeper": ("\n      kind: hub\n      dataset: 'a/b'", '\n      kind: hub\n      dataset: \'a/b\'\n      revision: "C"'),
    "branch": ("{kind: hub, revision: main, dataset: a/b}", '{kind: hub, revision: "C", dataset: a/b}'),
    "null": (f"{HUB}\n  revision: null # none yet", f'{HUB}\n  revision: "C" # none yet'),
    "empty": (f"{HUB}\n  revision:\n  parts: 2", f'{HUB}\n  revision: "C"\n  parts: 2'),
    "spread": ("{kind: hub,  # a hub\n  dataset: a/b   # the text\n  }",
               '{kind: hub,  # a hub\n  dataset: a/b, revision: "C"   # the text\n  }'),
}  # fmt: skip


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("form", FORMS)
def test_a_commit_is_written_in_and_all_else_stays(tmp_path: Path, form: str, ends: str) -> None:
    before, after = FORMS[form]
    path = config(tmp_path, before)
    text = path.read_text().replace("\n", ends)
    path.write_bytes(text.encode())
    settings = load_settings([path])
    for commit in (DIGITS, COMMIT):
        write_commits([path], {("corpus", "revision"): commit})
        assert path.read_bytes().decode() == text.replace(
            before.replace("\n", ends), after.replace("C", commit).replace("\n", ends)
        )
        found = load_settings([path])
        assert found.corpus.revision == commit
    assert found.model_copy(update={"corpus": settings.corpus}) == settings


@pytest.mark.parametrize(
    "tasks", ["{kind: hub}  # nine", "\n  kind: hub  # nine\n  # end", "{kind: hub, revisions: {rte: v1}}"]
)
def test_commits_of_evaluation_sets(tmp_path: Path, tasks: str) -> None:
    path = config(tmp_path, "{kind: hub, dataset: a/b}", tasks)
    write_commits(
        [path], {("tasks", "revisions", task): commit for task, commit in (("copa", DIGITS), ("rte", COMMIT))}
    )
    assert load_settings([path]).tasks.model_dump()["revisions"] == {"copa": DIGITS, "rte": COMMIT}
    assert ("# nine" in path.read_text()) == ("# nine" in tasks)


def test_what_is_written_elsewhere_is_left_alone(tmp_path: Path) -> None:
    path = config(tmp_path, "&source {kind: hub, dataset: a/b}\nside_text: *source")
    before = path.read_text()
    with pytest.raises(UserError, match=rf'x.yaml:2: side_text.revision: write "{COMMIT}" there by hand: .*alias'):
        write_commits([path], {("tokenizer", "revision"): COMMIT, ("side_text", "revision"): COMMIT})
    assert path.read_text() == before
    base = config(tmp_path, "{kind: hub, dataset: a/b}")
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("corpus: {max_bytes: 1e6}\ntokenizer: {kind: hub, dataset: a/other}\n")
    write_commits([base, overlay], {("corpus", "revision"): COMMIT, ("tokenizer", "revision"): DIGITS})
    assert f'dataset: a/b, revision: "{COMMIT}"' in base.read_text() and DIGITS not in base.read_text()
    assert f'dataset: a/other, revision: "{DIGITS}"' in overlay.read_text()


def test_what_names_no_commit_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = config(tmp_path, "{kind: hub, dataset: a/b, revision: main}")
    said = unpinned(load_settings([path]), [path])
    assert said is not None and len(said.splitlines()) == 1
    assert "corpus (a/b), tokenizer (a/tok), tasks (2 of them)" in said and f"deconattn pin {path} " in said
    pinned = f"{{kind: hub, dataset: a/tok, revision: {COMMIT}}}"
    path = config(
        tmp_path, f"{{kind: hub, dataset: {tmp_path / 'data'}}}", "{kind: folder, path: tests/data/mirror}", pinned
    )
    assert unpinned(load_settings([path]), [path]) is None, "a folder here has no commits"
    assert [remote.repository for remote in remotes(load_settings([path]))] == ["a/tok"]


# ---- the hub's client as it is, before a server that answers as the hub does
class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind, name = self.path.removeprefix("/api/").split("?")[0].split("/", 1)
        name, _, revision = name.partition("/revision/")
        code = {"a/gone": "RepoNotFound", "a/gated": "GatedRepo"}.get(name)
        if revision == "nope":
            code = "RevisionNotFound"
        self.send_response(200 if not code else 403 if code == "GatedRepo" else 404)
        body = json.dumps({"id": name, "sha": COMMIT if kind == "datasets" else DIGITS, "siblings": []}).encode()
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture
def pin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`deconattn pin` before a hub at `endpoint`: exit status, output, errors."""

    def run(path: Path, endpoint: str, offline: bool = False) -> tuple[int, str, str]:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        capsys.readouterr()
        return cli.main(["pin", str(path)]), *capsys.readouterr()

    return run


NOBODY = "http://127.0.0.1:1"


def test_pin_asks_the_hub_and_writes_what_it_says(tmp_path: Path, hub: str, pin) -> None:
    path = config(tmp_path, "{kind: hub, dataset: a/b}")
    status, out, err = pin(path, hub)
    assert status == 0, err
    settings = load_settings([path])
    assert (settings.corpus.revision, settings.tokenizer.revision) == (COMMIT, DIGITS)
    assert settings.tasks.revisions == {"copa": COMMIT, "rte": COMMIT} and unpinned(settings, [path]) is None
    assert f"{path}: corpus.revision: {COMMIT}" in out.splitlines()
    before = path.read_text()
    assert pin(path, NOBODY)[0] == 0, "there is nothing to ask"
    assert path.read_text() == before


def test_pin_says_what_is_gone_gated_or_has_no_such_revision(tmp_path: Path, hub: str, pin) -> None:
    tokenizer = "{kind: hub, dataset: a/tok, revision: nope}\nside_text: {kind: hub, dataset: a/gone}"
    path = config(tmp_path, "{kind: hub, dataset: a/gated}", tokenizer=tokenizer)
    status, _, err = pin(path, hub)
    assert status == 2
    assert err.splitlines() == [
        "hub dataset a/gated: gated: accept its terms on https://huggingface.co/datasets/a/gated and set HF_TOKEN",
        "hub dataset a/gone: gone, renamed or private; name another in the config, or set HF_TOKEN",
        "hub model a/tok: has no revision 'nope'; https://huggingface.co/a/tok/commits/main lists them",
    ]
    assert load_settings([path]).tasks.revisions["copa"] == COMMIT, "what the hub did say is written"


@pytest.mark.parametrize(("offline", "reason"), [(True, "HF_HUB_OFFLINE"), (False, "no answer")])
def test_pin_without_a_network_is_one_line(tmp_path: Path, pin, offline: bool, reason: str) -> None:
    path = config(tmp_path, "{kind: hub, dataset: a/b}")
    before = path.read_text()
    status, _, err = pin(path, NOBODY, offline)
    assert status == 2 and len(err.splitlines()) == 1, err
    assert err.startswith("hub dataset a/b: ") and reason in err
    assert path.read_text() == before


def test_check_says_it_and_asks_no_network(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(["check", str(config(tmp_path, "{kind: hub, dataset: a/b}"))]) == 0
    said = capsys.readouterr()
    assert "deconattn pin" in said.err and len(said.err.splitlines()) == 1
    assert "no errors" in said.out


def test_doctor_asks_for_what_is_not_mirrored(
    tmp_path: Path, hub: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pinned = f"{{kind: hub, dataset: a/tok, revision: {COMMIT}}}\nside_text: {{kind: hub, dataset: a/gone, revision: {COMMIT}}}"
    path = config(tmp_path, "{kind: hub, dataset: a/b}", tokenizer=pinned)

    def doctor(endpoint: str) -> list[str]:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        with pytest.raises(SystemExit, match="1"):
            cli.main(["doctor", str(path), "--without", "python", "disk", "locks"])
        return capsys.readouterr().out.splitlines()

    lines = doctor(hub)
    assert lines[:3] == [
        f"FAIL  sources: a/b: no commit is named; deconattn pin {path} writes {COMMIT}",
        "FAIL  sources: hub dataset a/gone: gone, renamed or private; name another in the config, or set HF_TOKEN",
        f"ok    sources: a/tok: the hub has {DIGITS}",
    ]
    ident = Identity(load_settings([path]))
    for one in (ident.corpus, ident.tokenizer, *ident.tasks.values()):
        one.folder.mkdir(parents=True)
        (one.folder / "done").touch()
    lines = doctor(NOBODY)
    assert [line.startswith("ok") and line.endswith("mirrored") for line in lines] == [True, False, True, True, True]
    assert "no answer" in lines[1] and "copy resources/mirror here" in lines[1]
