"""The page in a real browser: offline, without an error, by keyboard, on a phone and a desk, by day and night."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

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


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_the_page_sorts_filters_and_draws_by_keyboard(
    finished: Project, browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, wrong, asked = context.new_page(), [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto((finished.folder / "results/reports/test/page.html").as_uri())
    page.wait_for_selector("#delta svg")
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
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
    page.screenshot(path=tmp_path / f"page-{width}-{scheme}.png")
    assert wrong == []
