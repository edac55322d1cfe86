"""Claim: 20 million interactions are read, mapped to dense ids and turned into histories in one go.

The log is made by `segue.data.synthetic.popularity_log` with the users and items of MovieLens-20M,
in no order of users or times, and written as Parquet and as CSV. Each file is then read by a
process of its own, so that its peak of memory is its own.

    python benchmarks/log_reading.py
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from surroundings import surroundings

from segue.data.histories import Histories
from segue.data.log import read_log
from segue.data.synthetic import popularity_log
from segue.data.vocabulary import Vocabulary

NUM_INTERACTIONS = 20_000_000
NUM_USERS = 138_493
NUM_ITEMS = 26_744
SEED = 0
T = TypeVar("T")
STEPS = ("read_log", "vocabulary", "histories")


def main() -> None:
    """Make the log, measure both formats, print the table and the row for the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.worker)))
        return
    with tempfile.TemporaryDirectory() as folder:
        log, made_s = timed(
            lambda: popularity_log(NUM_INTERACTIONS, NUM_USERS, NUM_ITEMS, seed=SEED)
        )
        print(f"{NUM_INTERACTIONS:,} interactions made in {made_s:.1f} s", flush=True)
        paths = [Path(folder, "log.parquet"), Path(folder, "log.csv")]
        log.frame.write_parquet(paths[0])
        log.frame.write_csv(paths[1])
        del log
        rows = [measured_apart(path) for path in paths]
    print_table(rows)
    print(json.dumps({"rows": rows, "made_s": made_s, **surroundings(["polars", "numpy"], SEED)}))


def measured_apart(path: Path) -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--worker", str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row: dict[str, Any] = json.loads(output)
    return row


def measure(path: Path) -> dict[str, Any]:
    """Seconds of each step, and this process' peak of resident memory."""
    log, read_s = timed(lambda: read_log(path))
    vocabulary, vocabulary_s = timed(lambda: Vocabulary.from_ids(log.frame["item_id"]))
    histories, histories_s = timed(lambda: Histories.from_log(log, vocabulary))
    if histories.num_interactions != NUM_INTERACTIONS:
        raise SystemExit(f"{histories.num_interactions:,} of {NUM_INTERACTIONS:,} arrived")
    return {
        "format": path.suffix[1:],
        "size_mb": round(path.stat().st_size / 1e6),
        **dict(zip(STEPS, (round(s, 2) for s in (read_s, vocabulary_s, histories_s)), strict=True)),
        "total": round(read_s + vocabulary_s + histories_s, 2),
        # Linux counts it in KiB.
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    }


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of `work`, and the seconds it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def print_table(rows: list[dict[str, Any]]) -> None:
    """Seconds, but for the columns that name their unit."""
    columns = list(rows[0])
    print("".join(f"{column:>13}" for column in columns))
    for row in rows:
        print("".join(f"{row[column]:>13}" for column in columns))


if __name__ == "__main__":
    main()
