"""Claim: on a CPU segue trains faster on JAX than on PyTorch, and on PyTorch than on TensorFlow.

The training that `segue fit` runs, as `train_speed.py` times it: MovieLens-1M without each user's
last two items, the newest 200 of the rest; 2 blocks, 1 head, dropout 0.2, batches of 128 users,
Adam. Width 50 with BCE and one negative, 64 with full softmax. Each backend runs in a process of
its own, they take turns over the rounds, and the medians count. Compilation and the first epoch are
left out; the making of batches is not.

    python benchmarks/backends.py [--rounds N] [--seconds S] [--data FOLDER]
"""

import json
import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from peers.environments import python_of, result_of
from surroundings import surroundings
from train_speed import parsed, written

import segue

# Name and environment of each backend, the fastest first.
BACKENDS = {"jax": "segue", "torch": "torch", "tensorflow": "tensorflow"}
OBJECTIVES = {"bce": 50, "softmax": 64}


def main() -> int:
    """Runs the rounds, prints the table and the row, and returns 1 where the claim fails."""
    options = parsed()
    train = segue.leave_one_out(
        segue.read_log(options.data / "interactions.parquet", time_col="position")
    ).train
    for environment in BACKENDS.values():
        python_of(environment)
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = written(train, Path(folder))
        for number in range(options.rounds):
            for objective, width in OBJECTIVES.items():
                for backend, environment in BACKENDS.items():
                    result = result_of(
                        environment,
                        "segue_sasrec.py",
                        *("speed", path, objective, width, options.seconds),
                    )
                    results.setdefault((objective, backend), []).append(result)
                    print(
                        f"round {number + 1}: {backend}, {objective}: "
                        f"{result['targets_per_s']:,} targets/s",
                        file=sys.stderr,
                        flush=True,
                    )
    rows = [row(*system, each) for system, each in results.items()]
    print(f"{'backend':<12}{'objective':<11}{'width':>5}{'targets/s':>11}{'peak GB':>9}")
    for each in rows:
        print(
            f"{each['backend']:<12}{each['objective']:<11}{each['width']:>5}"
            f"{each['targets_per_s']:>11,.0f}{each['peak_rss_bytes'] / 1e9:>9.2f}"
        )
    is_shown = all(is_in_order(rows, objective) for objective in OBJECTIVES)
    document = {"benchmark": "backends", "is_shown": is_shown, "rounds": options.rounds}
    print(json.dumps({**document, "rows": rows, **surroundings(["keras", "jax"], 0)}))
    return 0 if is_shown else 1


def row(objective: str, backend: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians over the rounds, and every round's figure."""
    speeds = [each["targets_per_s"] for each in results]
    return {
        "backend": backend,
        "objective": objective,
        "width": OBJECTIVES[objective],
        "targets_per_s": statistics.median(speeds),
        "peak_rss_bytes": statistics.median(each["peak_rss_bytes"] for each in results),
        "all_targets_per_s": speeds,
        "versions": results[0]["versions"],
    }


def is_in_order(rows: list[dict[str, Any]], objective: str) -> bool:
    """Whether the backends come in the order claimed, the fastest first."""
    speeds = [each["targets_per_s"] for each in rows if each["objective"] == objective]
    return all(faster > slower for faster, slower in pairwise(speeds))


if __name__ == "__main__":
    sys.exit(main())
