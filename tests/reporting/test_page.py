import re
from html.parser import HTMLParser

import pytest

from segue.reporting.document import describe
from segue.reporting.page import SECTIONS, _table, page

VOID = {"meta", "path", "rect", "circle"}


class Tags(HTMLParser):
    """All start tags with their attributes, the text, and whether each tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def document(by_user):
    return describe(by_user)


@pytest.fixture(scope="module")
def text(document):
    return page(document)


@pytest.fixture(scope="module")
def tags(text):
    return Tags(text)


def test_every_tag_is_closed(tags):
    assert tags.open == []


def test_nothing_is_fetched_and_nothing_runs(text, tags):
    names = {name for name, _ in tags.tags}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "embed"})
    attributes = {name for _, attrs in tags.tags for name in attrs}
    assert attributes.isdisjoint({"src", "srcset", "onload", "onclick", "style"})
    assert all(attrs["href"].startswith("#") for _, attrs in tags.tags if "href" in attrs)
    assert not re.search(r"https?:|url\(|@import", text)


def test_titles_are_escaped(text, tags):
    assert "<b>" not in text
    assert "&lt;b&gt;Café &amp; 3&lt;/b&gt;" in text
    assert any("<b>Café & 3</b>" in part for part in tags.text)


def test_each_chart_has_a_title_and_a_description(tags):
    ids = [attrs["id"] for _, attrs in tags.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    charts = [attrs for name, attrs in tags.tags if name == "svg"]
    assert len(charts) >= 9
    for chart in charts:
        assert chart["role"] == "img"
        assert all(name in ids for name in chart["aria-labelledby"].split())


def test_every_section_is_there_and_linked(text):
    for name, (head, _) in SECTIONS.items():
        assert f'<section id="{name}"><h2>{head}</h2>' in text
        assert f'<a href="#{name}">' in text


def test_the_figures_of_the_headline_are_told(text, document):
    system = document["headline"]["systems"]["by-user"]
    low, high = system["intervals"]["ndcg@10"]
    assert f"{system['metrics']['ndcg@10']:.4f} ({low:.4f} to {high:.4f})" in text
    for difference in document["headline"]["differences"]:
        assert difference["verdict"] in text


def test_a_section_without_data_says_so(text, document):
    assert f'<p class="missing">{document["age"]["missing"]}</p>' in text
    nothing = {name: {"missing": f"no {name} & more"} for name in SECTIONS}
    bare = page({"run": "<x>", "segue": "1", **nothing})
    assert Tags(bare).open == []
    assert all(f"no {name} &amp; more" in bare for name in SECTIONS)
    assert "<x>" not in bare


def test_the_page_of_a_run_in_time_shows_the_age(in_time):
    found = page(describe(in_time))
    assert Tags(found).open == []
    assert "NDCG@10 by age of the model" in found


def test_dark_and_print_have_rules_of_their_own(text):
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.19572, "0.1957"), (96.0, "96"), (96.5, "96.5"), (1_637.23, "1,637.2"), (6_040, "6,040")],
)
def test_numbers_have_the_digits_that_say_something(value, shown):
    assert f'<td class="number">{shown}</td>' in _table(["value"], [[value]])
