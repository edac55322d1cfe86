"""Claim: with sampled softmax, a step at 1,000,000 items costs at most 1.5 times a step at 10,000
and the training stays under 3 GB at width 64; 10,000,000 items train.

Synthetic histories of uniformly drawn items, so that a batch touches as many rows as it can: 3,000
users with 20 to 200 items, batches of 128 users, width 64, 2 blocks, 256 shared negatives. The
training is the one that `segue fit` runs; each size has a process of its own, the sizes take turns
over the rounds, and medians count. Whole epochs after the first are timed, batches included. "whole
table" is the same training with every row updated at every step, for the choice of the size above
which it is not.

    python benchmarks/catalogue_growth.py [--rounds N]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import polars as pl
from surroundings import surroundings

import segue
from segue.data.vocabulary import Vocabulary
from segue.model.sequence_model import build_model
from segue.training import placement
from segue.training.loop import train
from segue.training.plan import Plan

SMALL, MEDIUM, LARGE, HUGE = 10_000, 100_000, 1_000_000, 10_000_000
GROWTH, MOST_GB = 1.5, 3.0
USERS, EPOCHS = 3_000, 3
SETTINGS = [
    "width=64",
    "dropout=0.2",
    "loss=sampled_softmax",
    "negatives=256",
    "negatives_per=batch",
    "batch_size=128",
    f"epochs={EPOCHS}",
]
NEVER = 2**31  # more items than there are: the whole table is updated
# Items, and from how many on a step updates its own rows alone.
TURNS = [(SMALL, 0), (SMALL, NEVER), (MEDIUM, 0), (MEDIUM, NEVER), (LARGE, 0), (LARGE, NEVER)]


def main() -> int:
    """Runs the rounds, prints the table and the row, and returns 1 where the claim fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measured(*options.worker)))
        return 0
    results: dict[tuple[int, int], list[dict[str, float]]] = {turn: [] for turn in TURNS}
    for _ in range(options.rounds):
        for turn in TURNS:
            results[turn].append(in_own_process(*turn))
    results[HUGE, 0] = [in_own_process(HUGE, 0)]
    rows = [row_of(turn, runs) for turn, runs in results.items()]
    print(f"{'items':>12} {'updates':>12} {'ms a step':>10} {'peak GB':>8} {'loss':>7}")
    for row in rows:
        print(
            f"{row['items']:>12,} {row['updates']:>12} {row['step_ms']:>10.0f} "
            f"{row['peak_gb']:>8.2f} {row['loss']:>7.3f}"
        )
    step = {(row["items"], row["updates"]): row for row in rows}
    ratio = step[LARGE, "its rows"]["step_ms"] / step[SMALL, "its rows"]["step_ms"]
    peak = step[LARGE, "its rows"]["peak_gb"]
    is_shown = (
        ratio <= GROWTH and peak <= MOST_GB and bool(np.isfinite(step[HUGE, "its rows"]["loss"]))
    )
    print(
        json.dumps(
            {
                "benchmark": "catalogue_growth",
                "is_shown": is_shown,
                "growth_ratio": round(ratio, 3),
                "peak_gb_at_1m": round(peak, 2),
                "rows": rows,
                "rounds": options.rounds,
                **surroundings(["segue", "keras", "jax", "numpy"], seed=0),
            }
        )
    )
    return 0 if is_shown else 1


def in_own_process(num_items: int, lazy_items: int) -> dict[str, float]:
    """`measured` in a process of its own, with the allocator's setting of `segue fit`."""
    command = [sys.executable, __file__, "--worker", str(num_items), str(lazy_items)]
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(num_items: int, lazy_items: int) -> dict[str, float]:
    """Milliseconds of a step, the last loss, and the process's memory at its peak."""
    placement.LAZY_ITEMS = lazy_items
    config = segue.load_preset("sasrec").with_settings(SETTINGS)
    random = np.random.default_rng(0)
    ids = pl.int_range(1, num_items + 1, dtype=pl.Int64, eager=True)
    users = [
        random.integers(1, num_items + 1, length).astype(np.int32)
        for length in random.integers(20, 201, USERS)
    ]
    histories = segue.Histories.from_lists(Vocabulary.from_ids(ids), users)
    plan = Plan.of(histories, config)
    placement.prepare(config, num_items, plan)
    ends: list[float] = []
    session = segue.Session(on_epoch=lambda _: ends.append(time.perf_counter()))
    curves = train(build_model(num_items, config), histories, config, plan=plan, session=session)
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    return {
        "step_ms": 1e3 * seconds / plan.batches_per_epoch,
        "loss": curves.epochs[-1]["loss"],
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def row_of(turn: tuple[int, int], runs: list[dict[str, float]]) -> dict[str, Any]:
    """The medians of one turn's runs."""
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {"items": turn[0], "updates": "whole table" if turn[1] else "its rows", **medians}


if __name__ == "__main__":
    sys.exit(main())
