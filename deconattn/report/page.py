"""The page: one HTML file that works offline, with the findings, every exhibit and its files, all runs, and their curves.

Its charts are drawn by Vega-Lite, which Snakemake brings for its own reports; its table of runs is some hundred lines of
JavaScript beside the template, since a library of tables would be ten times the page.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from deconattn.exhibits import EXHIBITS
from deconattn.files import read_json
from deconattn.report.deltas import differences
from deconattn.report.html import TEMPLATES, fill, write_text
from deconattn.report.names import accuracy_column, colour, in_order, marker
from deconattn.report.results import Results
from deconattn.report.scored import Scored

LIBRARIES = ("vega/vega.js", "vega-lite/vega-lite.js", "vega-embed/vega-embed.js")
POINTS = 300
"""Points of a curve that the page holds."""
SMOOTHING = 0.02
"""Width of the running mean of a curve, as a share of it."""
_TYPES = {
    "png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf", "csv": "text/csv", "tex": "text/x-tex",
    "parquet": "application/vnd.apache.parquet", "json": "application/json",
}  # fmt: skip
_SHAPES = {
    "s": "square", "X": "M-1,-1L1,1M-1,1L1,-1", "o": "circle", "D": "diamond", "^": "triangle-up", "v": "triangle-down",
    "P": "cross", "h": "stroke", "p": "triangle-left", "*": "triangle-right", "<": "arrow", ">": "wedge",
}  # fmt: skip


@dataclass(frozen=True)
class Download:
    """A file within the page."""

    name: str
    kind: str
    address: str


@dataclass(frozen=True)
class Shown:
    """An exhibit as the page shows it: a table's own markup, or a figure's address and what it shows in words."""

    name: str
    title: str
    category: str
    caption: str
    table: Markup | None
    picture: str | None
    downloads: list[Download]
    record: dict[str, Any]


def write_page(
    config: str,
    exhibits: Mapping[str, Path],
    runs: list[dict[str, Any]],
    curves: list[dict[str, Any]],
    out: Path,
    note: str = "",
) -> Path:
    """Write the page.

    Args:
        config: the name of the configuration.
        exhibits: name → the folder in which its files stand.
        runs: a row a run, as `page_runs` has them.
        curves: one of each run that has one, as `page_curves` has them.
        note: a sentence beneath the title.

    Raises `UserError` for a record that is broken.
    """
    from snakemake.assets import Assets

    shown = [_shown(name, exhibits[name]) for name in EXHIBITS if name in exhibits]
    variants = in_order(run["variant"] for run in runs)
    data = {
        "runs": [{name: _plain(value) for name, value in run.items()} for run in runs],
        "curves": curves,
        "variants": variants,
        "colours": [colour(name) for name in variants],
        "shapes": [_SHAPES.get(marker(name), "circle") for name in variants],
    }
    text = fill(
        "page.html", config=config, note=note, exhibits=shown, data=Markup(_script(json.dumps(data))),
        libraries=[Markup(_script(Assets.get_content(name))) for name in LIBRARIES],
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
    )  # fmt: skip
    return write_text(out, text)


def _script(text: str) -> str:
    """Text that may stand within <script>, which only its own end tag ends."""
    return re.sub("</(?=script)", r"<\\/", text, flags=re.IGNORECASE)


def _shown(name: str, folder: Path) -> Shown:
    about = EXHIBITS[name]
    files = [path for file in about.files if (path := folder / file).is_file()]
    table = picture = None
    if about.is_table:
        body = (folder / f"{name}.html").read_text(encoding="utf-8").partition("<body>")[2].rpartition("<footer>")[0]
        # Its heading is the page's own, its further ones stand beneath that.
        table = Markup(body.partition("</h1>")[2].replace("<h2>", "<h4>").replace("</h2>", "</h4>"))
    else:
        picture = _address(folder / f"{name}.svg")
    downloads = [Download(path.name, path.suffix[1:], _address(path)) for path in files if path.suffix != ".html"]
    record = read_json(folder / f"{name}.json")
    return Shown(name, about.title, about.category, about.caption.replace("**", ""), table, picture, downloads, record)


def _address(path: Path) -> str:
    """The bytes of a file as a data: address."""
    return f"data:{_TYPES[path.suffix[1:]]};base64,{base64.b64encode(path.read_bytes()).decode()}"


# ---- what it shows of runs -------------------------------------------------------------------------------------------
def write_page_of(config: str, exhibits: Mapping[str, Path], tables: Path | None, out: Path) -> Path:
    """Write the page from collected tables (None where nothing is to be trained); other arguments as of `write_page`."""
    runs: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    if tables:
        results = Results(tables)
        runs, curves = page_runs(results), page_curves(results.training)
    return write_page(config, exhibits, runs, curves, out)


def page_runs(results: Results) -> list[dict[str, Any]]:
    """A row for each run of the grid: who it is, how it ended, what it is worth, and its difference to standard attention.

    `quality` is that of the text that its model was evaluated on, named by `measure`; `delta` is log-perplexity minus that of
    the standard model of the same seed, in nats a word (of recall: accuracy), with bounds over documents (sequences) that hold
    together over the runs of a model and seed. Null is what is not known.
    """
    rows: dict[str, dict[str, Any]] = {}
    for run in results.all_runs.to_dict("records"):
        row = {name: run[name] for name in ("run", "model", "variant", "layout", "seed", "settings", "status")}
        row |= {name: run[name] for name in ("tokens_per_second", "mfu", "gpu_hours")}
        rows[run["run"]] = row | {"loss": run["final_heldout_loss"], "train_loss": run["final_train_loss"]}
    for (model, _), own in results.runs.groupby(["model", "seed"]):
        scored = Scored(results.only(own["run"]), str(model))
        metric = "recall" if scored.recall else "log_perplexity"
        places = zip(own["variant"].astype(str), own["layout"].astype(str), strict=True)
        names = dict(zip(places, own["run"].astype(str), strict=True))
        for place, found in differences(scored, metric, names).items():
            rows[names[place]] |= {"delta": found.value, "low": found.low, "high": found.high}
        for place, name in names.items():
            rows[name] |= _quality(scored, *place)
    order = in_order(row["variant"] for row in rows.values())
    return sorted(rows.values(), key=lambda row: order.index(row["variant"]))  # of each, as collected


def _quality(scored: Scored, variant: str, layout: str) -> dict[str, Any]:
    """The value of one run and the name of its measure."""
    if scored.recall:
        cells = [scored.results.cell(scored.model, variant, layout, "full", accuracy_column(t)) for t in scored.recall]
        values = [cell.value for cell in cells if cell.value is not None]
        return {"quality": float(np.mean(values)), "measure": "accuracy of recall"} if values else {}
    if scored.text is None:
        return {}
    cell = scored.results.cell(scored.model, variant, layout, "full", scored.text)
    return {"quality": cell.value, "measure": f"{scored.text.label}, {scored.text.quantity}"}


def page_curves(training: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each run: `tokens`, `loss`, and `delta`, the loss minus that of the standard model on the same batches.

    Lists of at most `POINTS` numbers, each a running mean; `delta` is absent where that model or its batches are not there.
    """
    found = []
    for _, of_seed in training.groupby(["model", "seed"], sort=False):
        by_run = {str(run): own.set_index("tokens") for run, own in of_seed.groupby("run", sort=False)}
        standard = next((by_run[run] for run in of_seed.loc[of_seed["variant"] == "standard", "run"].unique()), None)
        for run, own in by_run.items():
            thinned = _thinned(own["loss"])
            curve = {"run": run, "tokens": [int(count) for count in thinned.index], "loss": _numbers(thinned)}
            if standard is not None and own is not standard:
                beside = standard.reindex(own.index)
                # Another number of sequences makes other batches; of a training that runs, others are logged.
                if (own["step"] == beside["step"]).all():
                    curve["delta"] = _numbers(_thinned(own["loss"] - beside["loss"]))
            found.append(curve)
    return found


def _thinned(losses: pd.Series) -> pd.Series:
    if losses.empty:
        return losses
    finite = losses.astype(float).replace([np.inf, -np.inf], np.nan)
    smooth = finite.rolling(max(1, round(len(finite) * SMOOTHING)), min_periods=1, center=True).mean()
    return smooth.iloc[np.unique(np.geomspace(1, len(smooth), POINTS).round().astype(int)) - 1]


def _numbers(values: pd.Series) -> list[float | None]:
    return [None if not np.isfinite(value) else float(f"{value:.5g}") for value in values]


def _plain(value: Any) -> Any:
    """A value as JSON has it: no NaN, no infinity, no type of NumPy's."""
    if value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value
