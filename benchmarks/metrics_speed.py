"""Claim: the metrics cost little, from tables and from scores.

From tables: HR@10 and NDCG@10 of 200,000 users' top 10, the building of each library's own objects
included, at least 3 times as fast as RecTools and 50 times as fast as ranx. Each library runs in a
process of its own, in turn, after a small warm-up, which compiles what ranx compiles; RecTools,
which needs older packages than segue, in another Python. From scores: 1,000,000 users against
10,000 items, ranked in blocks, with the peak of memory of the process.

    python benchmarks/metrics_speed.py [--rectools-python .peers/rectools/bin/python] [--rounds 3]
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NUM_USERS, K, NUM_ITEMS = 200_000, 10, 5_000
WARM_UP_USERS = 100
SCORED_USERS, SCORED_ITEMS = 1_000_000, 10_000
SEED = 0
PEERS = ("segue", "rectools", "ranx")


def main() -> None:
    """Run all, print a table and the row for the records."""
    options = _options()
    if options.worker:
        print(json.dumps(_worker(options.worker, options.arrays)))
        return
    from surroundings import surroundings

    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder, "tables.npz")
        np.savez(arrays, **_tables())
        pythons = {"rectools": options.rectools_python}
        runs = [
            _apart(pythons.get(peer) or sys.executable, peer, arrays)
            for _ in range(options.rounds)
            for peer in PEERS
            if peer != "rectools" or options.rectools_python
        ]
        blocks = _apart(sys.executable, "blocks", arrays)
    own = min(each["seconds"] for each in runs if each["name"] == "segue")
    print(f"{'':10}{'best s':>10}{'times segue':>14}{'HR@10':>10}{'NDCG@10':>10}")
    for peer in dict.fromkeys(each["name"] for each in runs):
        best = min((each for each in runs if each["name"] == peer), key=lambda one: one["seconds"])
        print(
            f"{peer:10}{best['seconds']:10.3f}{best['seconds'] / own:14.1f}"
            f"{best['hr@10']:10.5f}{best['ndcg@10']:10.5f}"
        )
    print(
        f"{SCORED_USERS:,} users x {SCORED_ITEMS:,} items in blocks: {blocks['seconds']:.1f} s, "
        f"{blocks['peak_gb']:.2f} GB at the peak"
    )
    about = surroundings(["numpy", "polars", "ranx"], SEED)
    print(json.dumps({"runs": runs, "blocks": blocks, **about}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rectools-python", help="a Python that has RecTools")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=[*PEERS, "blocks"], help=argparse.SUPPRESS)
    parser.add_argument("--arrays", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _tables() -> dict[str, Any]:
    """Columns of the recommendations and the targets; every second target is recommended."""
    rng = np.random.default_rng(SEED)
    # Distinct items in a row: a random start and steps that go once round the catalogue.
    starts = rng.integers(0, NUM_ITEMS, (NUM_USERS, 1))
    items = (starts + np.arange(K) * rng.integers(1, NUM_ITEMS // K, (NUM_USERS, 1))) % NUM_ITEMS
    place = rng.integers(0, 2 * K, NUM_USERS)
    is_hit = place < K
    targets = np.where(is_hit, items[np.arange(NUM_USERS), np.minimum(place, K - 1)], NUM_ITEMS + 1)
    return {
        "user_id": np.repeat(np.arange(NUM_USERS), K),
        "item_id": items.ravel(),
        "rank": np.tile(np.arange(1, K + 1), NUM_USERS),
        "target_id": targets,
    }


def _apart(python: str, name: str, arrays: Path) -> dict[str, Any]:
    """A measure in a fresh process."""
    command = [python, __file__, "--worker", name, "--arrays", str(arrays)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _worker(name: str, arrays: Path) -> dict[str, Any]:
    if name == "blocks":
        return _blocks()
    tables = dict(np.load(arrays))
    measure: Callable[[dict[str, Any]], dict[str, float]] = globals()[f"_{name}"]()
    measure(_head(tables, WARM_UP_USERS))
    started = time.perf_counter()
    found = measure(tables)
    return {"name": name, "seconds": time.perf_counter() - started, **found}


def _head(tables: dict[str, Any], users: int) -> dict[str, Any]:
    return {
        name: column[: users if name == "target_id" else users * K]
        for name, column in tables.items()
    }


def _segue() -> Callable[[dict[str, Any]], dict[str, float]]:
    import polars as pl

    from segue.evaluation.metrics import hit_rate, ndcg
    from segue.evaluation.tables import ranks_of_tables

    def measure(tables: dict[str, Any]) -> dict[str, float]:
        targets = tables["target_id"]
        ranks = ranks_of_tables(
            pl.DataFrame({name: tables[name] for name in ("user_id", "item_id", "rank")}),
            pl.DataFrame({"user_id": np.arange(len(targets)), "item_id": targets}),
        )
        return {"hr@10": float(hit_rate(ranks, K).mean()), "ndcg@10": float(ndcg(ranks, K).mean())}

    return measure


def _rectools() -> Callable[[dict[str, Any]], dict[str, float]]:
    import pandas as pd

    metrics = importlib.import_module("rectools.metrics")
    chosen = {
        "hr@10": metrics.HitRate(k=K),
        # RecTools divides by the gain of K hits unless told that the ideal has one.
        "ndcg@10": metrics.NDCG(k=K, divide_by_achievable=True),
    }

    def measure(tables: dict[str, Any]) -> dict[str, float]:
        targets = tables["target_id"]
        found = metrics.calc_metrics(
            chosen,
            reco=pd.DataFrame({name: tables[name] for name in ("user_id", "item_id", "rank")}),
            interactions=pd.DataFrame({"user_id": np.arange(len(targets)), "item_id": targets}),
        )
        return {name: float(value) for name, value in found.items()}

    return measure


def _ranx() -> Callable[[dict[str, Any]], dict[str, float]]:
    import pandas as pd
    import ranx

    def text(ids: Any) -> Any:
        """As ranx wants them: pandas would make strings of a type of its own."""
        return pd.Series(ids.astype(str), dtype=object)

    def measure(tables: dict[str, Any]) -> dict[str, float]:
        targets = tables["target_id"]
        users = text(np.arange(len(targets)))
        qrels = ranx.Qrels.from_df(
            pd.DataFrame({"q_id": users, "doc_id": text(targets), "score": 1})
        )
        run = ranx.Run.from_df(
            pd.DataFrame(
                {
                    "q_id": text(tables["user_id"]),
                    "doc_id": text(tables["item_id"]),
                    "score": 1.0 / tables["rank"],
                }
            )
        )
        found = ranx.evaluate(qrels, run, ["hit_rate@10", "ndcg@10"], make_comparable=True)
        return {"hr@10": float(found["hit_rate@10"]), "ndcg@10": float(found["ndcg@10"])}

    return measure


def _blocks() -> dict[str, Any]:
    """Rank random scores of a million users, which exist a block at a time."""
    import polars as pl

    from segue.data.histories import Histories
    from segue.data.splits import HeldOut
    from segue.data.vocabulary import Vocabulary
    from segue.evaluation.metrics import summarize
    from segue.evaluation.protocol import rank_full

    rng = np.random.default_rng(SEED)
    lengths = np.full(SCORED_USERS, 20)
    histories = Histories(
        Vocabulary(pl.int_range(1, SCORED_ITEMS + 1, eager=True)),
        pl.int_range(SCORED_USERS, eager=True),
        np.concatenate([[0], np.cumsum(lengths)]),
        rng.integers(1, SCORED_ITEMS + 1, lengths.sum(), dtype=np.int32),
        np.arange(lengths.sum()),
    )
    targets = rng.integers(1, SCORED_ITEMS + 1, SCORED_USERS, dtype=np.int32)

    class Noise:
        """A score for every item from one product, as a model's are."""

        items = rng.normal(size=(16, SCORED_ITEMS + 1)).astype(np.float32)
        queries = rng.normal(size=(SCORED_USERS, 16)).astype(np.float32)

        def score(self, histories: Histories, users: slice) -> Any:
            return self.queries[users] @ self.items

    started = time.perf_counter()
    found = summarize(rank_full(Noise(), HeldOut("test", histories, targets)).ranks)
    return {
        "name": "blocks",
        "seconds": time.perf_counter() - started,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "hr@10": found["hr@10"],
    }


if __name__ == "__main__":
    main()
