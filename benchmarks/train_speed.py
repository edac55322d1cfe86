"""Claim: segue trains 3 times as fast as the fastest peer with BCE, 5 times as fast as RecTools
with full softmax and in less memory, on the same cores.

MovieLens-1M without each user's last two items, the newest 200 of the rest; 2 blocks, 1 head,
dropout 0.2, batches of 128 users, Adam. Width 50 with BCE and one negative, 64 with full softmax.
The peers are RecTools 0.19's SASRec and the Keras tutorial's model, rebuilt; each system runs in a
process of its own, they take turns over the rounds, and the medians count. Compilation and the
first steps are left out; the making of batches is not.

    python benchmarks/train_speed.py [--rounds N] [--seconds S] [--data FOLDER]
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peers.environments import python_of, result_of
from surroundings import ML_1M, surroundings

import segue
from segue.data.histories import Histories
from segue.training.packing import newest_windows

BCE_RATIO, SOFTMAX_RATIO = 3.0, 5.0
LENGTH, BLOCKS = 200, 2
# Name, environment, worker, objective, width: in the order of their turns.
SYSTEMS = [
    ("segue", "segue", "segue_sasrec.py", "bce", 50),
    ("RecTools", "rectools", "rectools_sasrec.py", "bce", 50),
    ("Keras tutorial", "keras", "keras_tutorial.py", "bce", 50),
    ("segue", "segue", "segue_sasrec.py", "softmax", 64),
    ("RecTools", "rectools", "rectools_sasrec.py", "softmax", 64),
]


def main() -> int:
    """Runs the rounds, prints the table and the row, and returns 1 where a claim fails."""
    options = parsed()
    log = segue.read_log(options.data / "interactions.parquet", time_col="position")
    train = segue.leave_one_out(log).train
    for _, environment, *_ in SYSTEMS:
        python_of(environment)
    rounds: list[list[dict[str, Any]]] = []
    products: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = written(train, Path(folder))
        for number in range(options.rounds):
            products.append(result_of("segue", "segue_sasrec.py", "product")["gflops"])
            rounds.append([])
            for name, environment, worker, objective, width in SYSTEMS:
                result = result_of(
                    environment, worker, "speed", path, objective, width, options.seconds
                )
                rounds[-1].append(result)
                print(
                    f"round {number + 1}: {name}, {objective}: "
                    f"{result['targets_per_s']:,} targets/s",
                    file=sys.stderr,
                    flush=True,
                )
    rows = [
        row(system, results, train)
        for system, results in zip(SYSTEMS, zip(*rounds, strict=True), strict=True)
    ]
    product = statistics.median(products)
    print_table(rows)
    print(f"a product of two 4,096 x 4,096 float32 matrices: {product:.0f} GFLOP/s")
    figures = ratios(rows)
    holds = [
        figures["bce_ratio"] >= BCE_RATIO,
        figures["softmax_ratio"] >= SOFTMAX_RATIO,
        figures["softmax_memory_ratio"] < 1.0,
    ]
    document = {**figures, "matrix_product_gflops": product, "rows": rows, "holds": holds}
    print(json.dumps({**document, "rounds": options.rounds, **surroundings(["keras", "jax"], 0)}))
    return 0 if all(holds) else 1


def parsed() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description="Training speed of segue and its peers.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="timed for each, at least")
    parser.add_argument(
        "--data", type=Path, default=ML_1M, help="a folder with interactions.parquet"
    )
    return parser.parse_args()


def written(train: Histories, folder: Path) -> Path:
    """The training part as the workers read it: NumPy arrays, which every environment knows."""
    path = folder / "train.npz"
    np.savez(
        path,
        item_ids=train.item_ids,
        offsets=train.offsets,
        num_items=train.vocabulary.num_items,
    )
    return path


def row(
    system: tuple[Any, ...], results: tuple[dict[str, Any], ...], train: Histories
) -> dict[str, Any]:
    """The medians over the rounds, and every round's figure."""
    name, _, _, objective, width = system
    speeds = [each["targets_per_s"] for each in results]
    speed = statistics.median(speeds)
    flops = flops_per_target(train, objective, width)
    return {
        "system": name,
        "objective": objective,
        "width": width,
        "targets_per_s": speed,
        "gflops": round(speed * flops / 1e9, 1),
        "peak_rss_bytes": statistics.median(each["peak_rss_bytes"] for each in results),
        "all_targets_per_s": speeds,
        "versions": results[0]["versions"],
    }


def flops_per_target(train: Histories, objective: str, width: int) -> float:
    """Floating-point operations that the mathematics of a training step asks for, per real target.

    Only products count, 2 operations a multiply-add, the same for every system, whatever it does
    besides (padding, keys that may not be seen, scores computed again):
    - a position and block: query, key, value and output projection 4 d^2, feed-forward 2 d^2;
    - a pair of a query and a key that it may see, and block: score d and weighted value d; a
      window of n items has n (n + 1) / 2 such pairs;
    - a target: d for each logit, of all items with softmax, of two with BCE.
    The gradient of a product of two matrices is two products of the same size: 3 times in all.
    """
    windows = newest_windows(train, LENGTH)
    pairs = float((windows.lengths * (windows.lengths + 1) / 2).sum()) / windows.num_targets
    logits = train.vocabulary.num_items if objective == "softmax" else 2
    multiply_adds = BLOCKS * (6 * width**2 + 2 * width * pairs) + width * logits
    return 3 * 2 * multiply_adds


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """segue over the fastest peer of each objective, and its softmax memory over RecTools'."""

    def values(key: str, objective: str, is_segue: bool) -> list[float]:
        return [
            each[key]
            for each in rows
            if each["objective"] == objective and (each["system"] == "segue") == is_segue
        ]

    def ratio(key: str, objective: str) -> float:
        ours, peers = (max(values(key, objective, is_segue)) for is_segue in (True, False))
        return round(ours / peers, 2)

    return {
        "bce_ratio": ratio("targets_per_s", "bce"),
        "softmax_ratio": ratio("targets_per_s", "softmax"),
        "softmax_memory_ratio": ratio("peak_rss_bytes", "softmax"),
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """One line a system."""
    print(
        f"{'system':<16}{'objective':<11}{'width':>5}{'targets/s':>11}{'GFLOP/s':>9}{'peak GB':>9}"
    )
    for each in rows:
        print(
            f"{each['system']:<16}{each['objective']:<11}{each['width']:>5}"
            f"{each['targets_per_s']:>11,.0f}{each['gflops']:>9.1f}"
            f"{each['peak_rss_bytes'] / 1e9:>9.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
