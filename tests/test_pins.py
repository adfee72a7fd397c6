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


CORPUS, TOKENIZER = "{kind: hub, dataset: a/b}", "{kind: hub, dataset: a/tok}"


def config(folder: Path, corpus: str = CORPUS, tasks: str = "{kind: hub}", tokenizer: str = TOKENIZER) -> Path:
    text = RIGHT.replace("{kind: folder, path: tests/data/mirror, names: [tales], parts: 2}", corpus)
    text = text.replace("tasks:\n  kind: folder\n  path: tests/data/mirror\n", f"tasks: {tasks}\n")
    text = text.replace("{kind: train, vocab_size: 384}", tokenizer)
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


FORMS = [
    ("{kind: hub, dataset: a/b}  # the text", '{kind: hub, dataset: a/b, revision: "C"}  # the text'),
    ("\n      # first\n      dataset: 'a/b'  # the text\n      kind: hub\n      parts: 2",
     "\n      # first\n      dataset: 'a/b'  # the text\n      kind: hub\n      parts: 2\n      revision: \"C\""),
    ("{kind: hub, revision: main, dataset: a/b}", '{kind: hub, revision: "C", dataset: a/b}'),
    ("\n  kind: hub\n  dataset: a/b\n  revision: null # none yet", '\n  kind: hub\n  dataset: a/b\n  revision: "C" # none yet'),
    ("\n  kind: hub\n  revision:\n  dataset: a/b", '\n  kind: hub\n  revision: "C"\n  dataset: a/b'),
    ("{kind: hub,  # a hub\n  dataset: a/b   # the text\n  }",
     '{kind: hub,  # a hub\n  dataset: a/b, revision: "C"   # the text\n  }'),
]  # fmt: skip
"""The section before and after, with the commit as C."""


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize(("before", "after"), FORMS)
def test_a_commit_is_written_in_and_all_else_stays(tmp_path: Path, before: str, after: str, ends: str) -> None:
    path = config(tmp_path, before)
    text = path.read_text()
    path.write_bytes(text.replace("\n", ends).encode())
    settings = load_settings([path])
    for commit in (DIGITS, COMMIT):
        write_commits([path], {("corpus", "revision"): commit})
        expected = text.replace(before, after.replace("C", commit)).replace("\n", ends)
        assert path.read_bytes().decode() == expected
        found = load_settings([path])
        assert found.corpus.revision == commit
    assert found.model_copy(update={"corpus": settings.corpus}) == settings


@pytest.mark.parametrize(
    "tasks", ["{kind: hub}  # nine", "\n  kind: hub  # nine\n  # end", "{kind: hub, revisions: {rte: v1}}"]
)
def test_commits_of_evaluation_sets(tmp_path: Path, tasks: str) -> None:
    path = config(tmp_path, tasks=tasks)
    commits = {"copa": DIGITS, "rte": COMMIT}
    write_commits([path], {("tasks", "revisions", task): commit for task, commit in commits.items()})
    assert load_settings([path]).tasks.model_dump()["revisions"] == commits
    assert ("# nine" in path.read_text()) == ("# nine" in tasks)


def test_what_is_written_elsewhere_is_left_alone(tmp_path: Path) -> None:
    path = config(tmp_path, "&source {kind: hub, dataset: a/b}\nside_text: *source")
    before = path.read_text()
    with pytest.raises(UserError, match=rf'x.yaml:2: side_text.revision: write "{COMMIT}" there by hand: .*alias'):
        write_commits([path], {("tokenizer", "revision"): COMMIT, ("side_text", "revision"): COMMIT})
    assert path.read_text() == before
    base = config(tmp_path)
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
    local = f"{{kind: hub, dataset: {tmp_path / 'data'}}}"
    path = config(tmp_path, local, "{kind: folder, path: tests/data/mirror}", pinned)
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
        self.send_response({None: 200, "GatedRepo": 403}.get(code, 404))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        sha = COMMIT if kind == "datasets" else DIGITS
        self.wfile.write(json.dumps({"id": name, "sha": sha, "siblings": []}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def pin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, list[str]]]:
    """`deconattn pin` before a hub at `endpoint`: exit status, output, lines of errors."""

    def run(path: Path, endpoint: str) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        status = cli.main(["pin", str(path)])
        said = capsys.readouterr()
        return status, said.out, said.err.splitlines()

    return run


def test_pin_asks_the_hub_and_writes_what_it_says(tmp_path: Path, hub: str, pin) -> None:
    path = config(tmp_path)
    status, out, err = pin(path, hub)
    assert status == 0, err
    settings = load_settings([path])
    assert (settings.corpus.revision, settings.tokenizer.revision) == (COMMIT, DIGITS)
    assert settings.tasks.revisions == {"copa": COMMIT, "rte": COMMIT} and unpinned(settings, [path]) is None
    assert f"{path}: corpus.revision: {COMMIT}" in out.splitlines()
    assert pin(path, NOBODY)[0] == 0, "there is nothing to ask"


def test_pin_says_what_is_gone_gated_or_has_no_such_revision(tmp_path: Path, hub: str, pin) -> None:
    tokenizer = "{kind: hub, dataset: a/tok, revision: nope}\nside_text: {kind: hub, dataset: a/gone}"
    path = config(tmp_path, "{kind: hub, dataset: a/gated}", tokenizer=tokenizer)
    status, _, (gated, gone, nope) = pin(path, hub)
    assert status == 2
    assert gated.startswith(
        "hub dataset a/gated: gated: accept its terms on https://huggingface.co/datasets/a/gated and"
    )
    assert gone.startswith("hub dataset a/gone: gone, renamed or private")
    assert nope.startswith(
        "hub model a/tok: has no revision 'nope'; https://huggingface.co/a/tok/commits/main lists them"
    )
    assert load_settings([path]).tasks.revisions["copa"] == COMMIT, "what the hub did say is written"


@pytest.mark.parametrize(("offline", "reason"), [(True, "HF_HUB_OFFLINE"), (False, "no answer")])
def test_pin_without_a_network_is_one_line(tmp_path: Path, pin, monkeypatch, offline: bool, reason: str) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    path = config(tmp_path)
    before = path.read_text()
    status, _, [said] = pin(path, NOBODY)
    assert status == 2 and said.startswith("hub dataset a/b: ") and reason in said
    assert path.read_text() == before


def test_check_says_it_and_asks_no_network(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(["check", str(config(tmp_path))]) == 0
    said = capsys.readouterr()
    assert "deconattn pin" in said.err and len(said.err.splitlines()) == 1 and "no errors" in said.out


def test_doctor_asks_for_what_is_not_mirrored(tmp_path: Path, hub: str, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    pinned = f"{{kind: hub, dataset: a/tok, revision: {COMMIT}}}\nside_text: {{kind: hub, dataset: a/gone, revision: {COMMIT}}}"
    path = config(tmp_path, tokenizer=pinned)

    def doctor(endpoint: str) -> list[str]:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        with pytest.raises(SystemExit, match="1"):
            cli.main(["doctor", str(path), "--without", "python", "disk", "locks"])
        return capsys.readouterr().out.splitlines()

    unnamed, gone, found = doctor(hub)[:3]
    assert unnamed == f"FAIL  sources: a/b: no commit is named; deconattn pin {path} writes {COMMIT}"
    assert gone.startswith("FAIL  sources: hub dataset a/gone: gone, renamed or private")
    assert found == f"ok    sources: a/tok: the hub has {DIGITS}"
    ident = Identity(load_settings([path]))
    for one in (ident.corpus, ident.tokenizer, *ident.tasks.values()):
        one.folder.mkdir(parents=True)
        (one.folder / "done").touch()
    lines = doctor(NOBODY)
    assert [line.startswith("ok") and line.endswith("mirrored") for line in lines] == [True, False, True, True, True]
    assert "no answer" in lines[1] and "copy resources/mirror here" in lines[1]
