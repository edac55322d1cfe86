"""The page in a browser, by mouse and by keyboard."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

SERIOUS = {"serious", "critical"}


@pytest.fixture
def page(browser: Browser, client) -> Iterator[Page]:
    """The page; whatever it complains of in the console fails the test."""
    context = browser.new_context(base_url=str(client.base_url))
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda each: complaints.append(each.text) if each.type == "error" else 0)
    opened.on("pageerror", lambda each: complaints.append(str(each)))
    opened.goto("/")
    expect(results(opened)).to_have_count(10)
    yield opened
    context.close()
    assert complaints == []


def results(page: Page):
    return page.locator("#results > li")


def titles(page: Page) -> list[str]:
    return page.locator("#results .title").evaluate_all(
        "all => all.map(each => each.firstChild.textContent)"
    )


def history(page: Page) -> list[str]:
    return page.locator("#history .title").all_text_contents()


def add(page: Page, query: str, title: str) -> None:
    page.get_by_label("Search titles").fill(query)
    page.locator("#found").get_by_role("button", name=title).click()


def test_a_recommendation_is_explained_by_the_items_that_speak_for_it(page, client):
    for number in (3, 7):
        with page.expect_response("**/v1/recommendations"):
            add(page, f"cafe {number}", f"Café Number {number} ({1970 + number})")
    first = results(page).first
    with page.expect_response("**/v1/explanations") as answered:
        first.get_by_role("button", name="Why").click()
    why = answered.value.json()
    speaking = [each for each in why["influences"] if each["change"] < 0]
    strongest = min(speaking, key=lambda each: each["change"], default=None)
    expected = f"Because of {strongest['title']}" if strongest else "No single item"
    expect(first.get_by_role("status")).to_contain_text(expected)
    buttons = [each.bounding_box() for each in first.get_by_role("button").all()]
    assert len({box["y"] for box in buttons}) == 1  # side by side
    found = Axe().run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in SERIOUS] == []


def test_three_films_are_added_and_ten_recommendations_follow_each(page, client):
    shown = [titles(page)]
    for number in (3, 7, 11):
        title = f"Café Number {number} ({1970 + number})"
        with page.expect_response("**/v1/recommendations"):
            add(page, f"cafe {number}", title)
        expect(page.locator("#results")).not_to_contain_text(title)
        expect(results(page)).to_have_count(10)
        shown.append(titles(page))
    assert len({tuple(each) for each in shown}) == 4
    answer = client.post("/v1/recommendations", json={"history": [3, 7, 11]}).json()
    assert shown[-1] == [
        f"Café Number {item['item_id']} ({1970 + item['item_id']})" for item in answer["items"]
    ]


def test_the_history_is_reordered_and_shortened_by_keyboard(page):
    for number in (3, 7):
        page.get_by_label("Search titles").fill(f"cafe {number}")
        expect(page.locator("#found button").first).to_contain_text(f"Number {number} ")
        page.get_by_label("Search titles").press("Enter")
    assert [each.split()[2] for each in history(page)] == ["3", "7"]
    page.get_by_role("button", name="move Café Number 7 (1977) up").press("Enter")
    assert [each.split()[2] for each in history(page)] == ["7", "3"]
    page.get_by_role("button", name="remove Café Number 7 (1977)").press("Enter")
    assert [each.split()[2] for each in history(page)] == ["3"]
    assert page.evaluate("document.activeElement.textContent").endswith(
        "remove Café Number 3 (1973)"
    )
    page.get_by_role("button", name="Clear the history").press("Enter")
    assert history(page) == []
    expect(page.get_by_label("Search titles")).to_be_focused()


def test_filters_hold_and_a_link_brings_it_all_back(page, browser, client):
    add(page, "cafe 3", "Café Number 3 (1973)")
    page.get_by_label("Genre").select_option("Drama")
    page.get_by_label("from").fill("1990")
    expect(page.locator("#results .about").first).to_contain_text("Drama")
    expect(results(page)).to_have_count(6)  # of 1990 to 2000, those by 4 with a rest of 0 or 2
    found = titles(page)
    assert all(int(each[-5:-1]) >= 1990 for each in found)
    link = page.get_by_label("Link to this history").input_value()
    other = browser.new_page()
    other.goto(link)
    expect(results(other)).to_have_count(6)
    assert (titles(other), history(other)) == (found, history(page))
    other.close()


def test_the_command_line_gives_the_same_answer(page):
    add(page, "cafe 3", "Café Number 3 (1973)")
    page.get_by_label("Genre").select_option("Children's")
    expect(results(page)).to_have_count(6)
    command = shlex.split(page.get_by_label("The same answer on the command line").input_value())
    assert command[0] == "curl"
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert [item["metadata"]["title"] for item in answer["items"]] == titles(page)


def test_similar_items_are_shown_and_one_comes_back(page, client):
    before = titles(page)
    results(page).first.get_by_role("button", name="Similar").click()
    expect(page.get_by_role("heading", name="Similar to")).to_be_focused()
    first = int(before[0].split()[2])
    answer = client.get(f"/v1/items/{first}/similar", params={"return": "metadata"}).json()
    expect(page.locator("#results .title").first).to_contain_text(
        answer["items"][0]["metadata"]["title"]
    )
    page.get_by_role("button", name="Back to the recommendations").click()
    expect(page.locator("#results .title").first).to_contain_text(before[0])


@pytest.mark.parametrize("path", ["/#h=3&h=7&genre=Comedy", "/docs"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_serious_and_nothing_overflows(browser, client, path, scheme, width):
    context = browser.new_context(
        base_url=str(client.base_url),
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
        bypass_csp=True,  # axe is injected, which the page's own policy forbids
    )
    opened = context.new_page()
    opened.goto(path, wait_until="networkidle")
    found = Axe().run(opened).response["violations"]
    assert [each["id"] for each in found if each["impact"] in SERIOUS] == []
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if shots := os.environ.get("SEGUE_SCREENSHOTS"):
        name = f"{path.strip('/').split('#')[0] or 'page'}-{scheme}-{width}.png"
        opened.screenshot(path=Path(shots) / name, full_page=path != "/docs")
    context.close()
