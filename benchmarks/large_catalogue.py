"""Claim: a loaded recommender of 500,000 items at width 64 holds at most 1.4 item tables in memory,
after `similar` too, and explains an item after 30 others in at most 15 ms.

The weights are random: what is measured does not depend on them. Memory is the resident set of a
fresh process, less what the same process holds after a run of 100 items was loaded and asked the
same; freed pages are given back before each reading. Milliseconds are the median of 20 explanations
after the first, which compiles.

    python benchmarks/large_catalogue.py
"""

import ctypes
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from surroundings import surroundings

import segue
from segue.artifact import Run, write_run
from segue.config import Config, ModelConfig
from segue.data.vocabulary import Vocabulary
from segue.model.sequence_model import build_model
from segue.model.weights import weights_of
from segue.reporting.explanation import explain

ITEMS, WIDTH, HISTORY = 500_000, 64, 30
MAX_TABLES, MAX_EXPLANATION_MS = 1.4, 15.0
TABLE_BYTES = (ITEMS + 1) * WIDTH * 4


def main() -> int:
    """Writes two runs, asks a process of its own about them, and returns 1 where a claim fails."""
    with tempfile.TemporaryDirectory() as folder:
        for name, num_items in (("small", 100), ("large", ITEMS)):
            write(Path(folder) / name, num_items)
        command = [sys.executable, __file__, "--measure", folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    holds = [
        max(figures["tables"], figures["tables_after_similar"]) <= MAX_TABLES,
        figures["explanation_ms"] <= MAX_EXPLANATION_MS,
    ]
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(json.dumps({**figures, "holds": holds, **surroundings(["keras", "jax"], 0)}))
    return 0 if all(holds) else 1


def write(path: Path, num_items: int) -> None:
    """A run with random weights."""
    config = Config(model=ModelConfig(width=WIDTH, max_length=200))
    model = build_model(num_items, config)
    ids = pl.int_range(1, num_items + 1, dtype=pl.Int64, eager=True)
    run = Run(
        config=config,
        weights=weights_of(model),
        vocabulary=Vocabulary.from_ids(ids),
        catalogue=None,
        item_counts=np.concatenate([[0], np.ones(num_items, np.int64)]),
        split=None,
        training={},
        ranking=None,
        report={},
    )
    write_run(run, path)


def measure(folder: Path) -> None:
    """Prints the figures of the large run, beside the small one's."""
    history = list(range(1, HISTORY + 1))
    small = segue.load(folder / "small")
    ask(small, history)
    before = resident_bytes()
    large = segue.load(folder / "large")
    after_load = resident_bytes()
    large.similar(5)
    after_similar = resident_bytes()
    explain(large, history, 77)
    times = []
    for item in range(100, 120):
        start = time.perf_counter()
        explain(large, history, item)
        times.append(1e3 * (time.perf_counter() - start))
    print(
        json.dumps(
            {
                "table_mb": round(TABLE_BYTES / 1e6, 1),
                "tables": round((after_load - before) / TABLE_BYTES, 2),
                "tables_after_similar": round((after_similar - before) / TABLE_BYTES, 2),
                "explanation_ms": round(statistics.median(times), 1),
            }
        )
    )


def ask(recommender: segue.Recommender, history: list[int]) -> None:
    """Every kind of question once, so that what they compile and import is there."""
    recommender.recommend([history])
    recommender.similar(5)
    explain(recommender, history, 77)


def resident_bytes() -> int:
    """Memory that the process holds now, what it freed given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line
    )
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]))
    else:
        sys.exit(main())
