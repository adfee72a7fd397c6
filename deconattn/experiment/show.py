"""Plans and reasons as text that fits 80 columns."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from deconattn.experiment.plan import STATUSES, TRAINING_RULES, Plan

WIDTH = 80


def plan_text(plan: Plan) -> str:
    """A plan for a person."""
    counts = Counter(plan.runs.values())
    lines = [
        *_wrapped("", f"{' '.join(plan.configs)}: {len(plan.runs)} runs, {_plural(len(plan.jobs), 'job')} to do"),
        "",
        "runs    " + " · ".join(f"{status} {counts.get(status, 0)}" for status in STATUSES)
        + f" · orphaned {len(plan.orphans)}",
    ]  # fmt: skip
    lines += _costs(plan)
    lines += _others(plan)
    lines += _stale(plan)
    lines += _totals(plan)
    return "\n".join(line for line in lines) + "\n"


def _costs(plan: Plan) -> list[str]:
    rows: list[tuple[str, ...]] = []
    by_model = defaultdict(list)
    for price in plan.prices:
        by_model[plan.model_of[price.run]].append(price)
    for model, prices in by_model.items():
        rows.append(
            ("pretrain", model, str(len(prices)), number(prices[0].parameters), number(sum(p.tokens for p in prices)),
             number(sum(p.flops for p in prices)), hours(sum(p.gpu_hours for p in prices)))
        )  # fmt: skip
    for (stage, model), (each, source) in plan.other_hours.items():
        count = plan.count(stage, model)
        bound = "≤ " if source.startswith("the job's limit") else ""
        rows.append((stage, model, str(count), "", "", "", bound + hours(each * count)))
    if not rows:
        return []
    head = ("stage", "model", "jobs", "parameters", "tokens", "FLOPs", "GPU-hours")
    shown = table([head, *rows], right=(2, 3, 4, 5, 6))
    if (over := max(map(len, shown)) - WIDTH) > 0:
        most = max(len(model) for _, model, *_ in rows) - over
        rows = [(stage, shortened(model, most), *rest) for stage, model, *rest in rows]
        shown = table([head, *rows], right=(2, 3, 4, 5, 6))
    return ["", shown[0], "-" * len(shown[0]), *shown[1:]]


def _others(plan: Plan) -> list[str]:
    rules = Counter(job.rule for job in plan.jobs if job.rule not in (*TRAINING_RULES, "evaluate", "analyse"))
    if not rules:
        return []
    return ["", *_wrapped("others  ", " · ".join(f"{rule} {count}" for rule, count in rules.items()))]


def _stale(plan: Plan) -> list[str]:
    if not plan.why_stale:
        return []
    reasons = Counter(reason for changes in plan.why_stale.values() for reason in changes)
    lines = ["", "stale because of"]
    for reason, count in reasons.most_common(5):
        lines += _wrapped("  ", f"{reason} ({_plural(count, 'run')})")
    if len(reasons) > 5:
        lines.append(f"  and {len(reasons) - 5} more: deconattn explain {' '.join(plan.configs)}")
    return lines


def _totals(plan: Plan) -> list[str]:
    lines = [""]
    if plan.prices:
        sources = Counter(price.rate_from for price in plan.prices)
        speeds = [f"{source} ({_plural(count, 'run')})" for source, count in sources.most_common(3)]
        lines += _wrapped("speed   ", "; ".join(speeds))
        done = [f"{count} GPUs {hours(wall, 'd')}" for count, wall in plan.wall.items() if wall is not None]
        small = [str(count) for count, wall in plan.wall.items() if wall is None]
        walls = "training takes " + ", ".join(done) if done else f"a run needs more than {small[0]} GPUs"
        lines += _wrapped("wall    ", walls)
        disk = plan.disk
        tokens = "unknown until mirrored" if disk["tokens"] is None else size(disk["tokens"])
        lines += _wrapped(
            "disk    ",
            f"runs {size(disk['runs'] or 0)} (at most {size(disk['runs_while_training'] or 0)} while all train), "
            f"token table {tokens}; {size(disk['free'] or 0)} free",
        )
        if plan.vocabulary[1].startswith("assumed"):
            lines += _wrapped("        ", f"vocabulary of {plan.vocabulary[0]:,} {plan.vocabulary[1]}")
    if plan.redo_gpu_hours:
        stops = plan.redo_gpu_hours > plan.allowed_gpu_hours
        lines += _wrapped(
            "guard   ",
            f"{hours(plan.redo_gpu_hours)} GPU-hours of finished work would be done again; redo_gpu_hours allows "
            f"{plan.allowed_gpu_hours:g}" + (": a launch will stop and say what to type" if stops else ""),
        )
    return lines if len(lines) > 1 else []


def explain_text(found: Mapping[str, Mapping[str, list[str]]], total: int) -> str:
    """Reasons for a person: runs that share them stand together."""
    groups: dict[tuple[tuple[str, tuple[str, ...]], ...], list[str]] = defaultdict(list)
    for run, stages in found.items():
        for stage, reasons in stages.items():
            shared = tuple(reason for reason in reasons if not reason.startswith("finished as "))
            groups[((stage, shared),)].append(run)
    fine = total - len([run for run, stages in found.items() if set(stages) - {"versions"}])
    lines = [f"{fine} of {total} runs are as the config says"]
    for ((stage, because),), runs in groups.items():
        lines += ["", *_wrapped("", _title(stage, runs))]
        if len(runs) <= 4:
            for run in runs:
                was = [r for r in found[run][stage] if r.startswith("finished as ")]
                lines.append(f"  {run}" + (f" ({was[0]})" if was else ""))
        else:
            lines += _wrapped("  ", f"{', '.join(runs[:3])} and {len(runs) - 3} more")
        for reason in because:
            lines += _wrapped("    ", reason)
    return "\n".join(lines) + "\n"


def _title(stage: str, runs: list[str]) -> str:
    if stage == "versions":
        return f"{_plural(len(runs), 'run')}: made with other packages than are installed (no reason to run again)"
    return f"{stage} of {_plural(len(runs), 'run')}"


def _wrapped(start: str, text: str) -> list[str]:
    indent = " " * max(len(start), 2)
    return textwrap.wrap(
        text, WIDTH, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def number(value: float) -> str:
    """Three digits and a letter: 76.7M, 195B, 1.2T; beyond, 1.2e18."""
    for limit, unit, name in ((1e3, 1.0, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (1e12, 1e9, "B"), (1e15, 1e12, "T")):
        if value < limit:
            return f"{value / unit:.3g}{name}" if value / unit < 999.5 else f"{value / unit:.0f}{name}"
    return f"{value:.2e}".replace("e+", "e")


def hours(value: float, unit: str = "") -> str:
    """Hours with what precision they have; with unit "d" as days or hours in words."""
    if unit == "d":
        return (
            f"{value / 24:.1f} days"
            if value >= 48
            else f"{value:.1f} hours"
            if value >= 1
            else f"{value * 60:.1f} minutes"
        )
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def size(count: float) -> str:
    """Bytes with a decimal unit."""
    return f"{number(count)}B".replace("BB", "GB")


def shortened(name: str, most: int) -> str:
    """A name of at most so many letters, eight at least; its middle is left out, as names tend to differ at their ends."""
    most = max(most, 8)
    return name if len(name) <= most else f"{name[: (most - 1) // 2]}…{name[-(most // 2) :]}"


def table(rows: Iterable[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    """Rows as columns of equal width."""
    kept = list(rows)
    widths = [max(len(row[column]) for row in kept) for column in range(len(kept[0]))] if kept else []

    def line(row: tuple[str, ...]) -> str:
        padded = (
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return [line(row) for row in kept]
