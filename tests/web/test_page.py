"""The page and the report in a real browser: offline, without an error, by keyboard, on a phone and a desk, by day and night."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import skip_or_fail
from tests.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


def tab_to(page: Page, name: str) -> None:
    """Press Tab until what has this id or label is in focus."""
    for _ in range(150):
        page.keyboard.press("Tab")
        focused = "(a => [a.id, a.getAttribute('aria-label'), a.textContent.trim()])(document.activeElement)"
        if name in page.evaluate(focused):
            return
    pytest.fail(f"no Tab leads to {name!r}")


def lines(page: Page, chart: str) -> int:
    return page.locator(f"#{chart} .mark-line path").count()


def column(page: Page) -> list[str]:
    """The variants in the table of runs, from the top."""
    return page.locator("#runs tbody tr").evaluate_all("rows => rows.map(row => row.cells[2].textContent)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a screen."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        skip_or_fail("no Chromium to open the report in")
    quiet = ("background-networking", "component-update", "sync", "gpu")
    flags = ["--no-sandbox", *(f"--disable-{name}" for name in quiet)]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=flags)
        yield chromium
        chromium.close()


def opened(browser: Browser, file: Path, *kinds: str, **context: Any) -> tuple[Page, list[str], list[str]]:
    """A file without a network: the page, errors to come and these kinds of messages, and what it will have asked for."""
    page = browser.new_context(offline=True, **context).new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type in kinds else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    return page, wrong, asked


def assert_alone(wrong: list[str], asked: list[str]) -> None:
    assert wrong == [] and not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_the_page_sorts_filters_and_draws_by_keyboard(
    finished: Project, browser: Browser, width: int, scheme: str
) -> None:
    file = finished.folder / "results/reports/test/page.html"
    page, wrong, asked = opened(
        browser, file, "error", "warning", viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page.wait_for_selector("#delta svg")
    assert "Without token mixing in any layer" in page.inner_text("main"), "the findings"
    assert (lines(page, "loss"), lines(page, "delta")) == (3, 2)

    assert column(page) == ["standard", "mlp", "rndembqk"]
    tab_to(page, "variant")
    page.keyboard.press("Enter")
    assert column(page) == ["mlp", "rndembqk", "standard"]
    page.keyboard.press("Enter")
    assert column(page) == ["standard", "rndembqk", "mlp"]
    assert page.locator("#runs th[aria-sort=descending]").inner_text().startswith("variant")

    page.locator("body").press("Home")
    tab_to(page, "draw none")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('loss').textContent.includes('nothing to draw')")
    (name,) = [run.name for run in finished.runs("tiny-mlp-*")]
    tab_to(page, f"draw {name}")
    page.keyboard.press("Space")
    page.wait_for_selector("#delta svg")
    assert (lines(page, "loss"), lines(page, "delta")) == (1, 1)
    page.evaluate("document.getElementById('words').focus()")
    page.keyboard.type("rndem even")
    assert column(page) == ["rndembqk"] and page.inner_text("#shown") == "1 of 3 runs are shown."

    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    ink, back = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    shades = [sum(map(int, shade[4:-1].split(","))) for shade in (ink, back)]
    assert (shades[0] > shades[1]) == (scheme == "dark") and abs(shades[0] - shades[1]) > 400
    assert_alone(wrong, asked)


def test_the_report_works_offline_and_shows_every_exhibit(finished_copy: Project, browser: Browser) -> None:
    file = finished_copy.folder / "report.html"
    done = finished_copy.snakemake("--cores", "1", "--report", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    page, wrong, asked = opened(browser, file, "error")  # Snakemake's own page warns of its style sheet
    page.wait_for_selector("text=What the models can do")
    text = page.inner_text("body")
    assert "How they train" in text
    assert "Without token mixing in any layer" in text, "the findings are on the first page"
    page.click("text=What the models can do")
    page.wait_for_selector("text=Table 1")
    assert "Figure 4" in page.inner_text("body")
    assert_alone(wrong, asked)
