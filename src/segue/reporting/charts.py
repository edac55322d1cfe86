"""Charts as inline SVG, drawn by hand: no script, no network, colours by CSS classes.

What a colour says is also said by a dash, a shape or a word, so that a chart reads in print and for
the colour-blind; the palette is that of Okabe and Ito, "Color universal design", 2008. Each chart
has a title and a description for screen readers; the page sets the same numbers as a table below.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, MARGIN = 720, 44
LINE_HEIGHT = 240
ROW, LABEL_WIDTH, VALUE_WIDTH = 24, 230, 190
MAP_SIZE, MAP_LEGEND = 520, 180
DASHES = ("", "7 4", "2 3")
SHAPES = (
    '<circle r="3.2"/>',
    '<rect x="-3" y="-3" width="6" height="6"/>',
    '<path d="M0-4 3.8 3H-3.8Z"/>',
    '<path d="M0-4.4 4.4 0 0 4.4-4.4 0Z"/>',
    '<path d="M-3.4-3.4 3.4 3.4M3.4-3.4-3.4 3.4" class="stroked"/>',
    '<path d="M0-4V4M-4 0H4" class="stroked"/>',
)


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart; the interval, and a value to compare with, where there are any."""

    label: str
    value: float
    shown: str
    interval: tuple[float, float] | None = None
    compared: float | None = None


@dataclass(frozen=True)
class Point:
    """One item of a map."""

    x: float
    y: float
    title: str
    label: str


def line_chart(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_name: str,
    marked: tuple[float, str] | None = None,
) -> str:
    """Lines over the same axis, each with a dash and a name of its own.

    Args:
        title: What is drawn.
        series: Points by name, in the order of x; at least one point in all.
        x_name: What x counts.
        marked: A place on the axis, and what it is.
    """
    points = [point for line in series.values() for point in line]
    left, right = MARGIN + 10, WIDTH - 130
    x_of = _scale(min(x for x, _ in points), max(x for x, _ in points), left, right)
    low, high = min(y for _, y in points), max(y for _, y in points)
    y_of = _scale(low, high, LINE_HEIGHT - MARGIN, 16)
    parts = [
        f'<text x="{left - 6}" y="{y_of(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        f'<path class="grid" d="M{left} {y_of(value):.1f}H{right}"/>'
        for value in dict.fromkeys((low, (low + high) / 2, high))
    ]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    for value in dict.fromkeys((first, last)):
        parts.append(
            f'<text x="{x_of(value):.1f}" y="{LINE_HEIGHT - 22}" text-anchor="middle">{value:g}'
            f"</text>"
        )
    parts.append(
        f'<text x="{(left + right) / 2}" y="{LINE_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_name)}</text>"
    )
    if marked:
        place, what = marked
        parts.append(
            f'<path class="mark" d="M{x_of(place):.1f} 16V{LINE_HEIGHT - MARGIN}"/>'
            f'<text x="{x_of(place) - 4:.1f}" y="10" text-anchor="end">{escape(what)}</text>'
        )
    for number, (name, line) in enumerate(series.items()):
        if line:
            path = "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y in line)
            x, y = line[-1]
            parts.append(
                f'<path class="line c{number}" stroke-dasharray="{DASHES[number % len(DASHES)]}" '
                f'd="M{path}"/><text x="{x_of(x) + 6:.1f}" y="{y_of(y) + 4:.1f}">{escape(name)}'
                f"</text>"
            )
    summary = "; ".join(
        f"{name} from {line[0][1]:.4g} to {line[-1][1]:.4g}"
        for name, line in series.items()
        if line
    )
    return _svg(title, f"{summary}, over {x_name} {first:g} to {last:g}.", LINE_HEIGHT, parts)


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars from 0, the value next to each, its interval as a whisker.

    What a value is compared with is a dashed line across its bar.

    Args:
        title: What is drawn.
        bars: At least one, none below 0.
    """
    greatest = max(
        max(bar.value, bar.interval[1] if bar.interval else 0.0, bar.compared or 0.0)
        for bar in bars
    )
    x_of = _scale(0.0, greatest or 1.0, LABEL_WIDTH, WIDTH - VALUE_WIDTH)
    parts = []
    for number, bar in enumerate(bars):
        top = 6 + number * ROW
        width = x_of(bar.value) - LABEL_WIDTH
        parts.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{top + 14}" text-anchor="end">'
            f"{escape(_shortened(bar.label))}</text>"
            f'<rect class="bar" x="{LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="16"/>'
            f'<text x="{WIDTH - VALUE_WIDTH + 10}" y="{top + 14}">{escape(bar.shown)}</text>'
        )
        if bar.interval:
            low, high = (x_of(end) for end in bar.interval)
            parts.append(
                f'<path class="whisker" d="M{low:.1f} {top + 8}H{high:.1f}M{low:.1f} {top + 4}v8'
                f'M{high:.1f} {top + 4}v8"/>'
            )
        if bar.compared is not None:
            parts.append(f'<path class="mark" d="M{x_of(bar.compared):.1f} {top - 3}v22"/>')
    summary = "; ".join(f"{bar.label}: {bar.shown}" for bar in bars)
    return _svg(title, summary, 12 + len(bars) * ROW, parts)


def scatter(title: str, description: str, points: Sequence[Point], labels: Sequence[str]) -> str:
    """Points in a plane, each label with a colour and a shape, the legend next to them.

    Args:
        title: What is drawn.
        description: What there is to see, in words.
        points: At least one.
        labels: All labels of the points, in the legend's order.
    """
    x_of = _scale(min(p.x for p in points), max(p.x for p in points), 12, MAP_SIZE - 12)
    y_of = _scale(min(p.y for p in points), max(p.y for p in points), MAP_SIZE - 12, 12)
    number_of = {label: number for number, label in enumerate(labels)}
    parts = [
        f'<g class="dot c{number_of[p.label]}" transform="translate({x_of(p.x):.1f} '
        f'{y_of(p.y):.1f})"><title>{escape(p.title)} ({escape(p.label)})</title>'
        f"{_shape(number_of[p.label])}</g>"
        for p in points
    ]
    for number, label in enumerate(labels):
        y = 20 + number * ROW
        parts.append(
            f'<g class="dot c{number}" transform="translate({MAP_SIZE + 14} {y})">'
            f'{_shape(number)}</g><text x="{MAP_SIZE + 26}" y="{y + 4}">{escape(label)}</text>'
        )
    return _svg(title, description, MAP_SIZE, parts, MAP_SIZE + MAP_LEGEND)


def _shape(number: int) -> str:
    return SHAPES[number % len(SHAPES)]


def _shortened(text: str, length: int = 34) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """Maps low to start and high to stop, all else in proportion."""
    slope = (stop - start) / ((high - low) or 1.0)
    return lambda value: start + (value - low) * slope


def _svg(
    title: str, description: str, height: int, parts: Sequence[str], width: int = WIDTH
) -> str:
    name = re.sub(r"\W+", "-", title.lower())
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}t {name}d">'
        f'<title id="{name}t">{escape(title)}</title><desc id="{name}d">{escape(description)}'
        f"</desc>{''.join(parts)}</svg>"
    )
