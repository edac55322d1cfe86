import re

import pytest

from segue.reporting.charts import SHAPES, Bar, Point, bar_chart, line_chart, scatter


def numbers(pattern, text):
    return [float(each) for each in re.findall(pattern, text)]


def test_bars_are_as_long_as_their_values():
    chart = bar_chart("t", [Bar("a", 1.0, "1"), Bar("b", 4.0, "4"), Bar("c", 0.0, "0")])
    one, four, none = numbers(r'class="bar"[^>]* width="([\d.]+)"', chart)
    assert four == pytest.approx(4 * one, abs=0.5)
    assert none == 0


def test_an_interval_reaches_around_its_value():
    chart = bar_chart("t", [Bar("a", 2.0, "2", (1.0, 4.0))])
    (width,) = numbers(r'class="bar"[^>]* width="([\d.]+)"', chart)
    (start,) = numbers(r'class="bar" x="([\d.]+)"', chart)
    (low,) = numbers(r'class="whisker" d="M([\d.]+)', chart)
    (high,) = numbers(r'class="whisker" d="M[\d.]+ [\d.]+H([\d.]+)', chart)
    assert low - start == pytest.approx(width / 2, abs=0.2)
    assert high - start == pytest.approx(2 * width, abs=0.2)


def test_all_zeros_are_drawn_too():
    assert 'width="0.0"' in bar_chart("t", [Bar("a", 0.0, "0")])


def test_a_line_rises_where_its_values_do_and_differs_from_others_by_its_dash():
    chart = line_chart("t", {"up": [(1, 0.0), (2, 1.0)], "down": [(1, 1.0), (2, 0.0)]}, "epoch")
    ys = [
        (float(first), float(second))
        for first, second in re.findall(r'd="M[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)"', chart)
    ]
    assert ys[0][0] > ys[0][1]
    assert ys[1][0] < ys[1][1]
    dashes = re.findall(r'stroke-dasharray="([^"]*)"', chart)
    assert len(set(dashes)) == 2
    assert "up from 0 to 1; down from 1 to 0, over epoch 1 to 2." in chart


def test_a_single_epoch_is_drawn():
    assert "<svg" in line_chart("t", {"loss": [(1, 0.5)]}, "epoch", (1, "best: 1"))


def test_labels_of_a_map_differ_by_shape_as_well_as_by_colour():
    labels = list("abcdef")
    points = [Point(place, -place, f"p{place}", label) for place, label in enumerate(labels)]
    chart = scatter("t", "d", points, labels)
    for number, shape in enumerate(SHAPES):
        (found,) = re.findall(rf'class="dot c{number}"[^>]*><title>.*?</title>(.*?)</g>', chart)
        assert found == shape
        assert f"<title>p{number} ({labels[number]})</title>" in chart


def test_what_a_value_is_compared_with_stands_at_its_own_place():
    chart = bar_chart("t", [Bar("a", 1.0, "1", compared=2.0), Bar("b", 0.5, "0.5")])
    (start,) = set(numbers(r'class="bar" x="([\d.]+)"', chart))
    (width, _) = numbers(r'class="bar"[^>]* width="([\d.]+)"', chart)
    (place,) = numbers(r'class="mark" d="M([\d.]+)', chart)
    assert place - start == pytest.approx(2 * width, abs=0.2)
