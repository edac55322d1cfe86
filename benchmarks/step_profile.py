"""Where the time of a training step goes, and what its arithmetic and its memory traffic ask for.

MovieLens-1M without each user's last two items, 2 blocks, 1 head, dropout 0.2, packed batches of
128 users, JAX on this machine's cores. The parts come from a trace of the compiled step: each
operation counts for the part of the model that its name says, its time divided by the cores. "idle"
is what the step takes beyond that. The floors, at the rates of a large product and a large copy:

arithmetic  the products of the mathematics (`train_speed.py`), and the operations that XLA counts.
memory      the bytes that the step's operations read and write by XLA's count, as if no cache held
            any of them.

XLA counts what is in a loop once, and so less than there is.

    python benchmarks/step_profile.py [--objective bce|softmax] [--width D] [--steps N]
"""

import argparse
import collections
import gzip
import json
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from surroundings import ML_1M, surroundings
from train_speed import flops_per_target

import segue
from segue.training.batches import PackedBatches
from segue.training.trainer import _optimizer, build_model

import jax  # isort: skip - segue chooses the backend first

LOSS_OF = {"bce": [], "softmax": ["loss=softmax"]}
# The first that fits an operation's name has it.
PARTS = [
    ("attention: scores, softmax, weighted values", r"attention/while"),
    ("attention: projections", r"attention/"),
    ("feed-forward", r"feedforward/"),
    ("layer normalisation", r"norm"),
    ("dropout, residuals", r"dropout|block_\d+"),
    ("positions", r"position_embedding"),
    ("item embeddings and the loss", r"jvp|transpose|item_embedding|while"),
    ("optimizer and metrics", r""),
]
BYTES_COPIED, PRODUCT_SIZE = 2**28, 4_096


def main() -> int:
    """Prints the table and the row."""
    options = parsed()
    log = segue.read_log(ML_1M / "interactions.parquet", time_col="position")
    train = segue.leave_one_out(log).train
    config = segue.load_preset("tutorial").with_settings(
        [f"width={options.width}", "dropout=0.2", *LOSS_OF[options.objective]]
    )
    batches = PackedBatches(train, config)
    step, state, batch = compiled_step(batches, config)
    seconds, state = timed(step, state, batch, options.steps)
    parts = traced(step, state, batch, options.steps)
    product, copied = product_rate(), copy_rate()
    counted = step.cost_analysis()
    targets = int(batch[2].sum())
    flops = flops_per_target(train, options.objective, options.width) * targets
    floors = {
        "arithmetic, as XLA counts": counted["flops"] / product,
        "arithmetic, as the mathematics has it": flops / product,
        "memory, as XLA counts": counted["bytes accessed"] / copied,
    }
    parts["idle"] = max(0.0, seconds - sum(parts.values()))
    print(f"one step of {targets:,} targets, {options.objective}, width {options.width}")
    for title, figures in (("part", parts), ("floor", floors)):
        print(f"\n{title:<46}{'ms':>8}{'share':>8}")
        for name, value in sorted(figures.items(), key=lambda each: -each[1]):
            print(f"{name:<46}{1e3 * value:>8.1f}{value / seconds:>8.0%}")
    print(f"{'the step':<46}{1e3 * seconds:>8.1f}\n")
    document = {
        "benchmark": "step_profile",
        "objective": options.objective,
        "width": options.width,
        "step_ms": 1e3 * seconds,
        "parts_ms": {name: 1e3 * each for name, each in parts.items()},
        "floors_ms": {name: 1e3 * each for name, each in floors.items()},
        "gflops": flops / seconds / 1e9,
        "product_gflops": product / 1e9,
        "copy_gb_per_s": copied / 1e9,
        **surroundings(["keras", "jax"], config.training.seed),
    }
    print(json.dumps(document))
    return 0


def parsed() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objective", choices=LOSS_OF, default="bce")
    parser.add_argument("--width", type=int, default=50, metavar="D")
    parser.add_argument("--steps", type=int, default=10, metavar="N")
    return parser.parse_args()


def compiled_step(batches: PackedBatches, config: segue.Config) -> tuple[Any, Any, Any]:
    """The step that `model.fit` runs, compiled, the state before it and a batch for it."""
    model = build_model(batches.sampler.probabilities.size, config)
    model.compile(optimizer=_optimizer(config, batches.batches_per_epoch, model.num_items))
    model.optimizer.build(model.trainable_variables)
    batch = batches[0]
    state = tuple(
        [each.value for each in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    step = jax.jit(model.train_step, donate_argnums=0).lower(state, batch).compile()
    return step, state, batch


def timed(step: Any, state: Any, batch: Any, steps: int) -> tuple[float, Any]:
    """Seconds of a step, the median after the first, and the state after them."""
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        _, state = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), state


def traced(step: Any, state: Any, batch: Any, steps: int) -> dict[str, float]:
    """Seconds of each part in a step, all cores' time divided by their number."""
    names = dict(
        re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name=\"([^\"]*)\"", step.as_text(), re.M)
    )
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                _, state = jax.block_until_ready(step(state, batch))
        (path,) = Path(folder).rglob("*.trace.json.gz")
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
    microseconds: collections.Counter[str] = collections.Counter()
    for event in events:
        # Loops are counted by what is in them.
        if event.get("name") in names and not event["name"].startswith("while"):
            microseconds[part_of(names[event["name"]])] += event["dur"]
    share = 1e6 * steps * len(os.sched_getaffinity(0))
    return {part: each / share for part, each in microseconds.items()}


def part_of(operation: str) -> str:
    """The part of the model that an operation's name belongs to."""
    return next(part for part, pattern in PARTS if re.search(pattern, operation))


def product_rate() -> float:
    """Operations per second of a large square float32 product, the best of a few."""
    square = jax.random.normal(jax.random.key(0), (PRODUCT_SIZE, PRODUCT_SIZE))
    return 2 * PRODUCT_SIZE**3 / best_of(jax.jit(lambda a: a @ a), square)


def copy_rate() -> float:
    """Bytes per second read and written by a large copy, the best of a few."""
    array = jax.numpy.zeros(BYTES_COPIED // 4)
    return 2 * BYTES_COPIED / best_of(jax.jit(lambda a: a + 1.0), array)


def best_of(function: Any, array: Any) -> float:
    """Seconds."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        function(array).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    sys.exit(main())
