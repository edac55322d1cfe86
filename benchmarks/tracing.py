"""What a compiled training step does with its time: for `step_profile.py` and `accelerator.py`."""

import collections
import gzip
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import segue
from segue.config import DrawnLossConfig
from segue.model.negatives import NegativeSampler
from segue.model.sequence_model import build_model
from segue.training.batches import Batch, Batches
from segue.training.placement import prepare
from segue.training.plan import Plan
from segue.training.steps import make_step

import jax  # isort: skip - segue chooses the backend first

# The first that fits an operation's name has it.
PARTS = [
    ("attention: projections", r"attention/\w*projection/"),
    ("attention: scores, softmax, weighted values", r"attention/"),
    ("feed-forward", r"feedforward/"),
    ("layer normalisation", r"norm"),
    ("dropout, residuals", r"dropout|block_\d+"),
    ("positions", r"position_embedding"),
    ("item embeddings and the loss", r"jvp|transpose|item_embedding|while"),
    ("optimizer and the like", r""),
]
LIBRARIES = "kernels of libraries, which name no part"
BYTES_COPIED = 2**28


def step_and_batch(histories: segue.Histories, config: segue.Config) -> tuple[Any, Batch]:
    """The step that a training of these histories runs, and its first batch."""
    num_items = histories.vocabulary.num_items
    plan = Plan.of(histories, config)
    prepare(config, num_items, plan)
    model = build_model(num_items, config)
    is_drawn = isinstance(config.loss, DrawnLossConfig)
    sampler = NegativeSampler.of(config.loss, histories) if is_drawn else None
    batches = Batches(histories, config, plan, sampler, model.wants)
    return make_step(model, config, plan), batches.batch(plan.first_layout, 0, 0)


def timed(step: Any, batch: Batch, steps: int) -> float:
    """Seconds of a step, the median after the first."""
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        jax.block_until_ready(step.run(batch))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def traced(step: Any, batch: Batch, steps: int) -> dict[str, float]:
    """Seconds of each part of the model in a step: on a CPU, of all cores over their number."""
    parts = parts_of(step.compiled(batch).as_text())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                jax.block_until_ready(step.run(batch))
        (path,) = Path(folder).rglob("*.trace.json.gz")
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
    is_cpu = jax.default_backend() == "cpu"
    microseconds: collections.Counter[str] = collections.Counter()
    for event in events if is_cpu else of_streams(events):
        operation = event.get("args", {}).get("hlo_op", event.get("name"))
        # Loops are counted by what is in them.
        if operation in parts and not operation.startswith("while"):
            microseconds[parts[operation]] += event["dur"]
        elif not is_cpu:
            microseconds[LIBRARIES] += event["dur"]
    share = 1e6 * steps * (len(os.sched_getaffinity(0)) if is_cpu else 1)
    return {part: duration / share for part, duration in microseconds.items()}


def parts_of(text: str) -> dict[str, str]:
    """The part of the model that each operation of a compiled step belongs to.

    By the names that a trace may have: the operation's, and its kernel's on a GPU.
    """
    lines = re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name=\"([^\"]*)\"", text, re.M)
    parts = {name: part_of(origin) for name, origin in lines}
    return {re.sub(r"\W", "_", name): part for name, part in parts.items()} | parts


def of_streams(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What ran on a GPU: the events of its streams."""
    streams = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and event["args"]["name"].startswith("Stream")
    }
    return [event for event in events if "dur" in event and (event["pid"], event["tid"]) in streams]


def part_of(operation: str) -> str:
    """The part of the model that an operation's name belongs to."""
    return next(part for part, pattern in PARTS if re.search(pattern, operation))


def product_rate(size: int = 4_096, dtype: str = "float32") -> float:
    """Operations per second of a large square product, the best of a few."""
    square = jax.random.normal(jax.random.key(0), (size, size), dtype)
    return 2 * size**3 / best_of(jax.jit(lambda a: a @ a), square)


def copy_rate() -> float:
    """Bytes per second read and written by a large copy, the best of a few."""
    array = jax.numpy.zeros(BYTES_COPIED // 4)
    return 2 * BYTES_COPIED / best_of(jax.jit(lambda a: a + 1.0), array)


def best_of(function: Callable[[Any], Any], array: Any) -> float:
    """Seconds."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        function(array).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def print_shares(title: str, figures: dict[str, float], seconds: float) -> None:
    """One line for each figure, in seconds, and what share of a step's seconds it is."""
    print(f"\n{title:<46}{'ms':>8}{'share':>8}")
    for name, value in sorted(figures.items(), key=lambda figure: -figure[1]):
        print(f"{name:<46}{1e3 * value:>8.1f}{value / seconds:>8.0%}")
