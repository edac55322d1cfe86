"""What every worker script shares, on NumPy alone, for each runs in an environment of its own."""

import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LENGTH, BATCH_SIZE, BLOCKS, HEADS, DROPOUT, LEARNING_RATE = 200, 128, 2, 1, 0.2, 1e-3
Ints = npt.NDArray[np.int64]


def read_histories(path: Path) -> tuple[Ints, Ints, int]:
    """The training part: dense ids int64[interactions], offsets int64[users + 1], and num_items.

    User u owns the interactions offsets[u] up to offsets[u + 1], in time order; ids are 1 to
    num_items.
    """
    with np.load(path) as arrays:
        return (
            arrays["item_ids"].astype(np.int64),
            arrays["offsets"].astype(np.int64),
            int(arrays["num_items"]),
        )


def report_speed(seconds: float, targets: int, packages: Iterable[str]) -> None:
    """Prints the measurement as a line of JSON: real targets per second, memory, versions."""
    result = {
        "targets_per_s": round(targets / seconds),
        # Linux counts it in KiB.
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": round(seconds, 1),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    print(json.dumps(result), flush=True)


class TrainingClock:
    """Counts the seconds of a training, and stands still while the benchmark ranks a state."""

    def __init__(self, states: Path) -> None:
        """Starts at once.

        Args:
            states: the file in which states are handed over.
        """
        self.states = states
        self.seconds = 0.0
        self.started = time.perf_counter()

    def stop(self) -> None:
        """Stands still; what follows until `ask` returns is evaluation."""
        self.seconds += time.perf_counter() - self.started

    def ask(
        self, queries: npt.NDArray[np.float32], item_table: npt.NDArray[np.float32]
    ) -> dict[str, Any]:
        """Hands a state over, and goes on counting once the answer has come.

        Args:
            queries: float32[users, width].
            item_table: float32[num_items + 1, width].

        Returns:
            `ndcg@10`, and `go_on`: whether to train on.
        """
        np.savez(self.states, queries=queries, item_table=item_table)
        print(json.dumps({"seconds": self.seconds}), flush=True)
        answer: dict[str, Any] = json.loads(sys.stdin.readline())
        self.started = time.perf_counter()
        return answer
