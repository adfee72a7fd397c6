"""How fast the runs of a table were trained, in one sentence."""

from __future__ import annotations

import pandas as pd

from deconattn.report.names import run_label
from deconattn.report.results import Results


def throughput_note(results: Results, model: str) -> str | None:
    """Tokens a second, MFU, time waiting for data and memory over the runs of a model; None where nothing was measured."""
    runs = results.runs[(results.runs["model"] == model) & results.runs["tokens_per_second"].notna()]
    if runs.empty:
        return None
    slow, fast = (runs.loc[runs["tokens_per_second"].agg(which)] for which in ("idxmin", "idxmax"))
    parts = [f"{slow['tokens_per_second']:,.0f} tokens/s ({run_label(slow['variant'], slow['layout'])})"]
    if slow["run"] != fast["run"]:
        parts[0] += f" to {fast['tokens_per_second']:,.0f} ({run_label(fast['variant'], fast['layout'])})"
    if runs["mfu"].notna().any():
        parts.append(f"MFU {_percents(runs['mfu'])} by each variant's own FLOPs")
    else:
        parts.append("MFU not known, as the device's peak is not")
    if runs["data_share"].notna().any():
        parts.append(f"{_percents(runs['data_share'])} of the time waiting for data")
    if runs["peak_memory_bytes"].notna().any():
        parts.append(f"at most {float(runs['peak_memory_bytes'].max()) / 1e9:.1f} GB of memory in a process")
    return f"Trained at {'; '.join(parts)}."


def _percents(shares: pd.Series[float]) -> str:
    low, high = f"{100 * shares.min():.1f}", f"{100 * shares.max():.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"
