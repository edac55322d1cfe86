"""The report in a browser: on the screen, and as it is printed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from segue.reporting.document import describe
from segue.reporting.page import SECTIONS, page

A4_WIDTH_PX = 794 - 2 * 38  # at 96 px an inch, without the margins of 1 cm

# The right ends of what stands out over the page or over the box that cuts it off.
CUT_OFF = """() => [...document.querySelectorAll('main *')]
  .filter(each => each.checkVisibility() && getComputedStyle(each).overflowX !== 'visible')
  .concat(document.documentElement)
  .filter(each => each.scrollWidth > each.clientWidth + 1)
  .map(each => each.tagName + ' in ' + (each.closest('section')?.id ?? 'the page'))"""


@pytest.fixture(scope="module")
def file(by_user: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(describe(by_user)), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Page]:
    """The report; whatever it asks the network for, or complains of, fails the test."""
    context = browser.new_context(viewport={"width": A4_WIDTH_PX, "height": 1000})
    shown = context.new_page()
    asked: list[str] = []
    shown.on("request", lambda each: asked.append(each.url))
    shown.on("console", lambda each: asked.append(each.text))
    shown.on("pageerror", lambda each: asked.append(str(each)))
    shown.goto(file.as_uri())
    yield shown
    context.close()
    assert asked == [file.as_uri()]


def test_in_print_every_section_is_there_and_nothing_is_cut_off(opened: Page) -> None:
    opened.emulate_media(media="print")
    assert [each.get_attribute("id") for each in opened.locator("section").all()] == list(SECTIONS)
    for section in opened.locator("section").all():
        assert section.locator("h2").is_visible()
    assert opened.evaluate(CUT_OFF) == []
    assert not opened.locator("nav").is_visible()
    assert not any(each.is_visible() for each in opened.locator("details").all())


def test_print_is_dark_on_white_whatever_the_screen_is(opened: Page) -> None:
    def colours() -> list[str]:
        style = "getComputedStyle(document.body)"
        return [opened.evaluate(f"{style}.{name}") for name in ("backgroundColor", "color")]

    opened.emulate_media(media="screen", color_scheme="dark")
    assert colours() == ["rgb(20, 23, 26)", "rgb(230, 233, 236)"]
    opened.emulate_media(media="print", color_scheme="dark")
    assert colours() == ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]


def test_the_pdf_has_a_few_pages_and_no_chart_over_two_of_them(opened: Page) -> None:
    pdf = opened.pdf(format="A4", margin=dict.fromkeys(("top", "right", "bottom", "left"), "1cm"))
    assert pdf.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 20
    opened.emulate_media(media="print")
    for name in ("figure", "tr"):
        for each in opened.locator(name).all():
            assert each.evaluate("each => getComputedStyle(each).breakInside") == "avoid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_used_by_everybody(opened: Page, scheme: str) -> None:
    opened.emulate_media(media="screen", color_scheme=scheme)
    found = Axe().run(opened, options={"runOnly": ["wcag2a", "wcag2aa"]})
    violations = found.response["violations"]
    assert violations == [], found.generate_report()


def test_on_a_small_screen_the_page_itself_does_not_scroll_sideways(opened: Page) -> None:
    opened.set_viewport_size({"width": 360, "height": 700})
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert opened.evaluate(overflow) <= 0
