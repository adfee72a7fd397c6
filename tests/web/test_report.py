"""The report in a real browser: one file, no network, every exhibit under its heading."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


@pytest.fixture
def report(finished_copy: Project) -> Path:
    """The small grid's report."""
    file = finished_copy.folder / "report.html"
    done = finished_copy.snakemake("--cores", "1", "--report", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    return file


def test_the_report_works_offline_and_shows_every_exhibit(report: Path, browser: Browser) -> None:
    page = browser.new_context(offline=True).new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_selector("text=What the models can do")
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    text = page.inner_text("body")
    assert "How they train" in text
    assert "Without token mixing in any layer" in text, "the findings are on the first page"
    page.click("text=What the models can do")
    page.wait_for_selector("text=Table 1")
    assert "Figure 4" in page.inner_text("body")
    assert errors == []


def test_table_1_is_readable(finished: Project, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((finished.folder / "results/reports/test/tables/table1.html").as_uri())
    text = page.inner_text("body")
    for word in ("random", "majority", "standard", "mlp", "rndembqk", "skip"):
        assert word in text.lower(), word
    assert page.locator("table").count() >= 1
    overflow = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth + 1")
    assert not overflow, "the page scrolls sideways"
