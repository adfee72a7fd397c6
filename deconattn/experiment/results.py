"""The results that there are: folders by kind, and finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deconattn.experiment.data_identity import RESULTS
from deconattn.experiment.record import amount, read_record

PLACES = {
    "exhibits": "exhibits/*",
    "tables": "tables/*",
    "evaluations": "runs/*/evaluation-*",
    "analyses": "runs/*/analysis-*",
    "costs": "costs/*",
    "baselines": "baselines/*",
    "runs": "runs/*",
    "sidetexts": "sidetexts/*",
    "tokens": "tokens/*",
    "tokenizers": "tokenizers/*",
}
"""Kind of result → where it lies below `results`; what is made from others stands before them."""


def folders() -> dict[Path, str]:
    """Every folder of results → its kind, in the order of `PLACES`."""
    found = {path: kind for kind, place in PLACES.items() for path in sorted(RESULTS.glob(place))}
    return {path: kind for path, kind in found.items() if path.is_dir() and not path.name.startswith(".")}


def stem(name: str) -> str:
    """A folder's name without its hash."""
    return name.rpartition("-")[0]


def begun(folder: Path) -> bool:
    """Whether a training has saved a checkpoint there."""
    return any(folder.glob("checkpoints/step-*"))


@dataclass(frozen=True)
class Finished:
    """A finished run."""

    folder: Path
    record: dict[str, Any]

    @property
    def gpu_hours(self) -> float:
        """Hours of training × processes; a process on a CPU counts as one."""
        return amount(self.record.get("seconds")) * (int(amount(self.record.get("processes"))) or 1) / 3600

    @property
    def ended(self) -> float:
        """Seconds since 1970."""
        return amount(self.record.get("ended"))


def finished_runs() -> list[Finished]:
    """All finished runs, the latest first."""
    records = [(folder, read_record(folder)) for folder in RESULTS.glob("runs/*")]
    return sorted((Finished(folder, record) for folder, record in records if record), key=lambda run: -run.ended)
