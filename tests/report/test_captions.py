"""Captions: they render, and say nothing of what a run found."""

from __future__ import annotations

from types import SimpleNamespace

import jinja2
import pytest
import yaml

from deconattn.exhibits import EXHIBITS, PAGE_CAPTION
from tests.conftest import ROOT

CAPTIONS = {name: exhibit.caption for name, exhibit in EXHIBITS.items()} | {"origin": PAGE_CAPTION}


@pytest.mark.parametrize("config", ["demo", "paper"])
def test_captions_render_and_say_what_a_small_run_can_show(config: str) -> None:
    from docutils.core import publish_parts

    settings = yaml.safe_load((ROOT / "config" / f"{config}.yaml").read_text())
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.Undefined)
    for name in ("workflow", *CAPTIONS):
        trained = name in EXHIBITS and not EXHIBITS[name].costed
        template = ROOT / "workflow" / "report" / ("workflow.rst" if name == "workflow" else "caption.rst")
        text = environment.from_string(template.read_text()).render(
            snakemake=SimpleNamespace(config=settings, params={"caption": CAPTIONS.get(name), "trained": trained})
        )
        # Level 2 is a warning: a table or a link that is not well formed would be shown as an error in the report.
        html = publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]
        marks = html.lower().count("demonstration size") - (name == "workflow")
        assert (marks > 0) == (config == "demo" and (trained or name == "workflow")), name
        assert name == "workflow" or "<strong>" in html


FIXED_FINDINGS = (
    "worst", "near chance", "at chance", "noise between seeds", "other size", "another size", "other data", "inset",
    "enlarged",
)  # fmt: skip


def test_no_fixed_text_states_a_result_of_this_run() -> None:
    """What a run found is worked out from its numbers; a caption holds for every run that it stands under."""
    pages = [*(ROOT / "workflow" / "report").glob("*.rst"), *(ROOT / "config").glob("*.yaml")]
    texts = {path.stem: path.read_text() for path in pages}
    for name, text in {**texts, **CAPTIONS}.items():
        assert not [words for words in FIXED_FINDINGS if words in " ".join(text.split())], name
