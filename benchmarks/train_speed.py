"""Claim: segue trains at least 4 times as fast as the fastest peer with BCE, and 4.5 times as fast
with full softmax, there in less memory than RecTools' SASRec; on the same cores.

MovieLens-1M without each user's last two items, the newest 200 of the rest; 2 blocks, 1 head,
dropout 0.2, batches of 128 users, Adam. Width 50 with BCE and one negative, 64 with full softmax.
The peers are RecTools 0.19's SASRec, the network of its `fast_transformers` in a plain loop, and
the Keras tutorial's model, rebuilt; each system runs in a process of its own, they take turns over
the rounds, and the medians count. Compilation and the first steps are left out; the making of
batches is not.

    python benchmarks/train_speed.py [--rounds N] [--seconds S] [--data FOLDER]
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers.environments import python_of, result_of
from surroundings import ML_1M, surroundings

import segue
from segue.data.histories import Histories
from segue.training.packing import newest_windows

BCE_RATIO, SOFTMAX_RATIO = 4.0, 4.5
LENGTH, BLOCKS = 200, 2
SEGUE, SASREC_MODEL = "segue", "RecTools SASRec"


class System(NamedTuple):
    """Who trains, in which environment, by which worker, on what."""

    name: str
    environment: str
    worker: str
    objective: str
    width: int


# In the order of their turns.
SYSTEMS = [
    System(SEGUE, "segue", "segue_sasrec.py", "bce", 50),
    System(SASREC_MODEL, "rectools", "rectools_sasrec.py", "bce", 50),
    System("RecTools flat", "rectools", "rectools_flat.py", "bce", 50),
    System("Keras tutorial", "keras", "keras_tutorial.py", "bce", 50),
    System(SEGUE, "segue", "segue_sasrec.py", "softmax", 64),
    System(SASREC_MODEL, "rectools", "rectools_sasrec.py", "softmax", 64),
    System("RecTools flat", "rectools", "rectools_flat.py", "softmax", 64),
]


def main() -> int:
    """Runs the rounds, prints the table and the row, and returns 1 where a claim fails."""
    options = parsed()
    log = segue.read_log(options.data / "interactions.parquet", time_col="position")
    train = segue.leave_one_out(log).train
    for system in SYSTEMS:
        python_of(system.environment)
    rounds: list[list[dict[str, Any]]] = []
    products: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = written(train, Path(folder))
        for number in range(options.rounds):
            products.append(result_of("segue", "segue_sasrec.py", "product")["gflops"])
            rounds.append([])
            for system in SYSTEMS:
                _, environment, worker, objective, width = system
                result = result_of(
                    environment, worker, "speed", path, objective, width, options.seconds
                )
                rounds[-1].append(result)
                print(
                    f"round {number + 1}: {system.name}, {objective}: "
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


def row(system: System, results: tuple[dict[str, Any], ...], train: Histories) -> dict[str, Any]:
    """The medians over the rounds, and every round's figure."""
    speeds = [result["targets_per_s"] for result in results]
    speed = statistics.median(speeds)
    flops = flops_per_target(train, system.objective, system.width)
    return {
        "system": system.name,
        "objective": system.objective,
        "width": system.width,
        "targets_per_s": speed,
        "gflops": round(speed * flops / 1e9, 1),
        "peak_rss_bytes": statistics.median(result["peak_rss_bytes"] for result in results),
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
    """segue's speed over the fastest peer's of each objective, and its softmax memory."""

    def values(key: str, objective: str) -> dict[str, float]:
        return {row["system"]: row[key] for row in rows if row["objective"] == objective}

    def speed_ratio(objective: str) -> float:
        speeds = values("targets_per_s", objective)
        return round(speeds.pop(SEGUE) / max(speeds.values()), 2)

    memory = values("peak_rss_bytes", "softmax")
    return {
        "bce_ratio": speed_ratio("bce"),
        "softmax_ratio": speed_ratio("softmax"),
        "softmax_memory_ratio": round(memory[SEGUE] / memory[SASREC_MODEL], 2),
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """One line a system."""
    print(
        f"{'system':<16}{'objective':<11}{'width':>5}{'targets/s':>11}{'GFLOP/s':>9}{'peak GB':>9}"
    )
    for row in rows:
        print(
            f"{row['system']:<16}{row['objective']:<11}{row['width']:>5}"
            f"{row['targets_per_s']:>11,.0f}{row['gflops']:>9.1f}"
            f"{row['peak_rss_bytes'] / 1e9:>9.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
