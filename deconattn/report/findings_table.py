"""`table_findings`: the paper's claims and what this grid says of each, as pages and as numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from deconattn.exhibits import EXHIBITS, THREE
from deconattn.report import schema
from deconattn.report.claims import FAILS, FAMILIES, HOLDS, UNTOLD, Claim, load_claims
from deconattn.report.findings import ERROR, FAR, Compared, Finding, findings
from deconattn.report.html import fill, write_text
from deconattn.report.names import WIKITEXT
from deconattn.report.notes import limits_note, run_gaps
from deconattn.report.print_table import latex_escape
from deconattn.report.results import Results
from deconattn.report.scored import ENOUGH, Scored
from deconattn.report.statistics import Difference

HEADS = ("of the variant", "of these checkpoints", "claim", "in this grid: left − right", "paper", "what would tell")
ROWS_IN_A_FLOAT = 10
MOST_LINES = 3


@dataclass(frozen=True)
class Entry:
    """One claim on one model as it is printed; `here` and `paper` have a line for each comparison."""

    model: str
    of_variant: str
    of_checkpoints: str
    sentence: str
    test: str
    here: list[str]
    paper: list[str]
    needed: list[str]


@dataclass(frozen=True)
class FindingsTable:
    """The exhibit: what was found, sentences above and beneath it, the runs it is about, and what is missing."""

    found: list[Finding]
    lead: list[str]
    notes: list[str]
    runs: list[str]
    gaps: list[str]

    @property
    def heading(self) -> str:
        return EXHIBITS["table_findings"].description.rstrip(".")

    @property
    def explanation(self) -> str:
        return EXHIBITS["table_findings"].caption.split("**")[2].strip()

    @property
    def entries(self) -> list[Entry]:
        return [_entry(finding) for finding in self.found]

    def write(self, out: Path, record: dict[str, Any]) -> list[Path]:
        """Write `table_findings.{parquet,csv,tex,html}`; returns the paths."""
        stem, entries = out / "table_findings", self.entries
        cells = [_cells(entry) for entry in entries]
        lines = pd.DataFrame(
            [["; ".join(cell).replace(".; ", ". ") for cell in row] for row in cells], columns=list(HEADS)
        )
        lines.insert(0, "model", [entry.model for entry in entries])
        html = fill("findings.html", table=self, entries=entries, heads=HEADS, record=record, untold=UNTOLD)
        return [
            schema.write_table(self.tidy(), schema.FINDINGS, stem.with_suffix(".parquet")),
            write_text(stem.with_suffix(".csv"), lines.to_csv(index=False, lineterminator="\n")),
            write_text(stem.with_suffix(".tex"), self.to_latex()),
            write_text(stem.with_suffix(".html"), html),
        ]

    def tidy(self) -> pd.DataFrame:
        """A row a comparison, columns as `schema.FINDINGS`; accuracies are fractions."""
        return pd.DataFrame([_row(finding, each) for finding in self.found for each in finding.compared])

    def to_latex(self) -> str:
        """`table*` floats of some claims each; notes are comments."""
        comments = [self.explanation, *(f"Gap: {gap}" for gap in self.gaps)]
        head = "% needs \\usepackage[T1]{fontenc}, \\usepackage{array} and \\usepackage{booktabs}"
        parts = [self.entries[at : at + ROWS_IN_A_FLOAT] for at in range(0, len(self.found), ROWS_IN_A_FLOAT)]
        last = len(parts) - 1
        notes = [[*(self.lead if not at else []), *(self.notes if at == last else [])] for at in range(len(parts))]
        floats = [_float(part, self.heading, at, notes[at]) for at, part in enumerate(parts)]
        return "\n".join([head, *(f"% {latex_escape(words)}" for words in comments), *floats])


def table_findings(results: Results, options: dict[str, Any]) -> FindingsTable:
    """Every claim on each of `options["models"]`, those that can be told first."""
    models = options["models"]
    found = [finding for model in models for finding in findings(results, model, load_claims())]
    found.sort(key=lambda finding: finding.rank)
    shown = {(c.variant, c.layout) for f in found for each in f.compared for c in each.pair}
    runs = results.runs[results.runs["run"].isin(results.shown(models, THREE))]
    runs = runs[[pair in shown for pair in zip(runs["variant"], runs["layout"], strict=True)]]
    variants = list(dict.fromkeys(variant for variant, _ in shown))
    return FindingsTable(
        found,
        [_lead(results, model, [finding for finding in found if finding.model == model]) for model in models],
        _notes(results, models, found),
        runs["run"].tolist(),
        run_gaps(results, models, variants, THREE),
    )


# ---- sentences --------------------------------------------------------------------------------------------------------------
def _lead(results: Results, model: str, found: list[Finding]) -> str:
    """How many claims are told, of what, and how they came out."""
    told = []
    for about, counts in (
        ("of the variants", Counter(finding.of_variant for finding in found)),
        ("of these checkpoints", Counter(finding.of_checkpoints for finding in found)),
    ):
        told.append(f"{counts[HOLDS] + counts[FAILS]} can be told {about} ({counts[HOLDS]} hold, {counts[FAILS]} fail)")
    neither = sum(finding.of_variant == finding.of_checkpoints == UNTOLD for finding in found)
    return (
        f"{results.heading(model)}, {results.seeds_label(model)} each. Of {len(found)} claims {' and '.join(told)}; "
        f"{neither} cannot be told here."
    )


def _notes(results: Results, models: list[str], found: list[Finding]) -> list[str]:
    """What is compared, by what bounds, and what was trained otherwise."""
    sizes = {FAMILIES[each.claim.family]: each.comparisons for each in found if each.comparisons}
    texts = dict.fromkeys(f"{each.text.label}" for each in found if each.text)
    recall = [each.claim.metric == "recall" for each in found]
    notes = [
        "Recall is the share of right answers, the mean over numbers of pairs, in points (negative: the left side is right "
        "less often); items are held-out sequences." if any(recall) else "",
        "" if all(recall)
        else f"Perplexities are compared as log-perplexity of {' or '.join(texts) or 'no text'}, in nats a word (positive: "
        "the left side predicts worse); accuracies as the mean over the NLU tasks, in points.",
        *(["WikiText was not evaluated here: claims on it are evaluated on the held-out text."]
          if any(each.text not in (None, WIKITEXT) for each in found) else []),
        "Of these checkpoints: bounds over documents or items say how the same trained models would compare on others of "
        "their kind. Of the variant: bounds over training seeds, paired by seed, say how models trained again would "
        "compare on this text and these items.",
        f"Bounds hold together: over all of a family a false verdict has a probability of {ERROR:.0%} at most (each of m "
        f"comparisons {ERROR:.0%} / m, one-sided). m is {', '.join(f'{m} ({name})' for name, m in sizes.items())}.",
        _one_seed(results, models),
        "" if all(recall) else "The paper's values are points: none of its perplexities has an error.",
        *(limits_note(results, model) for model in models),
        *dict.fromkeys(f"{each.model}: {note}." for each in found for one in each.compared for note in one.settings),
    ]  # fmt: skip
    return [note for note in notes if note]


def _one_seed(results: Results, models: list[str]) -> str:
    """The rule for one seed, where anything was trained but once."""
    own = results.runs[results.runs["model"].isin(models)]
    if own.groupby(["model", "variant", "layout"])["seed"].nunique().min() > 1:
        return ""
    known = []
    for model in models:
        scored = Scored(results, model)
        metric, scale, unit = ("recall", 100, "points") if scored.recall else ("log_perplexity", 1, "nats")
        value = scored.deviation(metric, {"full"})
        known.append(f"{model}: {'none' if value is None else f'{scale * value:.3f} {unit}'}")
    return (
        f"With one seed nothing is told of a variant, unless the difference is beyond {FAR} times the largest deviation "
        f"between seeds of any model here with {ENOUGH} or more ({'; '.join(known)})."
    )


def _entry(finding: Finding) -> Entry:
    claim = finding.claim
    here, paper = [], []
    for each in _shown(finding):
        here.append(f"{' − '.join(side.label for side in each.pair)}: {_here(claim, each)}")
        printed = claim.printed(each.pair)
        paper.append("–" if printed is None else _number(claim, printed))
    if len(here) < len(finding.compared):
        here.append(f"(that of {len(finding.compared)} comparisons that is nearest to turning)")
    needed = list(dict.fromkeys(words for each in finding.compared for words in each.needed))
    return Entry(
        finding.model, finding.of_variant, finding.of_checkpoints, claim.sentence, _test(claim), here, paper, needed
    )


def _shown(finding: Finding) -> list[Compared]:
    """The comparisons of a claim; of more than `MOST_LINES` the one of its verdict that is nearest to another."""
    if len(finding.compared) <= MOST_LINES:
        return list(finding.compared)
    decisive = [each for each in finding.compared if each.of_checkpoints == finding.of_checkpoints]
    known = [(finding.claim.distance(each.scored.value), k) for k, each in enumerate(decisive) if each.scored]
    return [decisive[min(known)[1] if known else 0]]


def _cells(entry: Entry) -> list[list[str]]:
    """The cells of an entry under `HEADS`, each a list of lines."""
    claim = [entry.sentence, f"({entry.test})"]
    return [[entry.of_variant], [entry.of_checkpoints], claim, entry.here, entry.paper, entry.needed]


def _test(claim: Claim) -> str:
    """Where the paper says it, and what is asked of left − right."""
    if claim.type == "equivalence":
        asked = f"within ±{_number(claim, claim.margin).lstrip('+')}"
    else:  # the higher accuracy is the better one
        sign, bound = (">", claim.margin) if claim.metric == "log_perplexity" else ("<", -claim.margin)
        asked = f"{sign} {_number(claim, bound) if bound else 0}"
    return f"{claim.where}; {claim.type}: {asked}"


def _here(claim: Claim, each: Compared) -> str:
    if each.scored is None or each.seeds is None:
        return each.absent
    if not isfinite(each.scored.value):
        return f"{each.pair[0 if each.scored.value > 0 else 1].label} diverged"
    count = int(each.seeds.number)
    seeds = "1 seed" if count == 1 else f"{_interval(claim, each.seeds)} over {count} seeds"
    return f"{_interval(claim, each.scored)} over {each.scored.number:,.0f} {each.scored.over}, {seeds}"


def _interval(claim: Claim, found: Difference) -> str:
    if found.low is None or found.high is None:
        return f"{_number(claim, found.value)} (no bounds)"
    return f"{_number(claim, found.value)} [{_number(claim, found.low)}, {_number(claim, found.high)}]"


def _number(claim: Claim, value: float) -> str:
    text = f"{value:+.3f}" if claim.metric == "log_perplexity" else f"{100 * value:+.1f}"
    return text.replace("-", "−")


def _row(finding: Finding, each: Compared) -> dict[str, Any]:
    """A row of `schema.FINDINGS`."""
    claim, items, seeds = finding.claim, each.scored, each.seeds
    row = {name: getattr(claim, name) for name in ("claim", "family", "type", "metric", "margin")}
    row |= {"model": finding.model, "left": each.pair[0].label, "right": each.pair[1].label, "level": finding.level}
    row |= {"text": finding.text.task if finding.text else None, "published": claim.printed(each.pair)}
    row |= {"of_checkpoints": each.of_checkpoints, "of_variant": each.of_variant, "comparisons": finding.comparisons}
    row |= {"needed": "; ".join(each.needed), "settings": "; ".join(each.settings)}
    if items is not None and seeds is not None:
        row |= {name: getattr(items, name) for name in ("value", "over", "number", "low", "high", "p")}
        row |= {"seeds": seeds.number, "seeds_value": seeds.value, "seeds_low": seeds.low, "seeds_high": seeds.high}
    return row


def _float(entries: list[Entry], heading: str, number: int, notes: list[str]) -> str:
    rows = [" & ".join(r" \newline ".join(map(latex_escape, cell)) for cell in _cells(entry)) for entry in entries]
    ragged = [
        f">{{\\raggedright\\arraybackslash}}p{{{width}\\textwidth}}" for width in (0.09, 0.11, 0.25, 0.27, 0.07, 0.1)
    ]
    return "\n".join(
        [
            "\\begin{table*}[tp]",
            "\\centering",
            f"\\caption{{{latex_escape(f'{heading}, continued.' if number else f'{heading}.')}}}",
            "\\footnotesize\\setlength{\\tabcolsep}{3pt}",
            f"\\begin{{tabular}}{{@{{}}{''.join(ragged)}@{{}}}}",
            "\\toprule",
            f"{' & '.join(map(latex_escape, HEADS))} \\\\",
            "\\midrule",
            *(f"{row} \\\\\\addlinespace" for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
            *([f"\\par\\smallskip\\raggedright {latex_escape(' '.join(notes))}"] if notes else []),
            "\\end{table*}\n",
        ]
    )
