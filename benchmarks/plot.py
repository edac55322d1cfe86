"""Lines over two axes, as the text of an SVG: nothing to install for a plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 616, 24, 344  # of the area between the axes, in pixels
COLOURS = ("#0b6e4f", "#b5532a", "#3b5b92")
NUM_TICKS = 5
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)  # between ticks, times a power of ten


@dataclass(frozen=True)
class Series:
    """A named line through points (x, y), neither below 0."""

    name: str
    points: Sequence[tuple[float, float]]


def line_plot(series: Sequence[Series], x_label: str, y_label: str, target: float) -> str:
    """The SVG: every series with its points, and a dashed line at the height of the target."""
    x_ticks = ticks(max(x for each in series for x, _ in each.points))
    y_ticks = ticks(max(target, *(y for each in series for _, y in each.points)))

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (RIGHT - LEFT) * x / x_ticks[-1]
        return across, BOTTOM - (BOTTOM - TOP) * y / y_ticks[-1]

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _line((LEFT, BOTTOM), (RIGHT, BOTTOM), "#444"),
        _line((LEFT, BOTTOM), (LEFT, TOP), "#444"),
    ]
    for x in x_ticks:
        parts.append(_text(at(x, 0)[0], BOTTOM + 18, f"{x:g}", "middle"))
    for y in y_ticks:
        height = at(0, y)[1]
        parts.append(_line((LEFT, height), (RIGHT, height), "#ddd"))
        parts.append(_text(LEFT - 8, height + 4, f"{y:g}", "end"))
    parts.append(_line(at(0, target), at(x_ticks[-1], target), "#888", 'stroke-dasharray="5 4"'))
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 16, x_label, "middle"))
    parts.append(_text(LEFT, TOP - 8, y_label, "start"))
    for number, each in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(x, y) for x, y in each.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
        parts.append(_text(RIGHT, BOTTOM - 12 - 18 * number, each.name, "end", colour))
    return "\n".join([*parts, "</svg>", ""])


def ticks(largest: float) -> list[float]:
    """Round numbers from 0 to the first that is not below `largest`, about `NUM_TICKS` apart."""
    rough = max(largest, 1e-9) / NUM_TICKS
    power = 1.0
    while power > rough:
        power /= 10
    while power * 10 <= rough:
        power *= 10
    step = next(each * power for each in STEPS if each * power >= rough)
    count = 1
    while count * step < largest:
        count += 1
    return [round(number * step, 12) for number in range(count + 1)]


def _line(
    start: tuple[float, float], end: tuple[float, float], colour: str, extra: str = ""
) -> str:
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke="{colour}" {extra}/>'
    )


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(text)}</text>"
    )
