"""Claim: segue reaches an NDCG@10 of 0.15 on the validation items of all users of MovieLens-1M in a
quarter of the training time of RecTools' SASRec with full softmax.

Both train on everything but each user's last two items; the first of those two is ranked in the
whole catalogue, seen items excluded, by `segue.evaluation` for both, after every epoch. The clock
counts training alone, from raw histories on, compilation included: it stands still while a state is
encoded and ranked. Each is stopped at the target or at the limit; where RecTools is stopped before
the target, its time is a lower bound.

RecTools: width 64, 2 blocks, 1 head, dropout 0.2, 200 items, batches of 128, Adam at 1e-3.

    python benchmarks/time_to_quality.py [--preset P] [--target T] [--minutes M] [--data FOLDER]
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from peers.environments import python_of, start
from plot import Series, line_plot
from surroundings import ML_1M, surroundings
from train_speed import written

import segue
from segue.data.histories import Histories
from segue.data.splits import HeldOut
from segue.evaluation.metrics import summarize
from segue.evaluation.protocol import rank_full

WANTED_RATIO = 4.0
PLOT = Path(__file__).with_suffix(".svg")


def main() -> int:
    """Trains both, prints the table and the row, and returns 1 where the claim fails."""
    options = parsed()
    log = segue.read_log(options.data / "interactions.parquet", time_col="position")
    split = segue.leave_one_out(log)
    assert split.validation is not None
    python_of("rectools")
    with tempfile.TemporaryDirectory() as folder:
        path, states = written(split.train, Path(folder)), Path(folder) / "states.npz"
        judge = Judge(split.validation, split.train, states, options.target, 60 * options.minutes)
        runs = {
            "segue": judge.run("segue", "segue_sasrec.py", "quality", path, options.preset, states),
            "RecTools": judge.run("rectools", "rectools_sasrec.py", "quality", path, states),
        }
    print_table(runs)
    names = {"segue": f"segue ({options.preset})", "RecTools": "RecTools SASRec (softmax)"}
    series = [
        Series(names[name], [(s / 60, ndcg) for s, ndcg in curve]) for name, curve in runs.items()
    ]
    PLOT.write_text(line_plot(series, "minutes of training", "NDCG@10, validation", options.target))
    results = {name: outcome(curve, options.target) for name, curve in runs.items()}
    ratio = results["RecTools"]["seconds"] / results["segue"]["seconds"]
    holds = results["segue"]["reached"] and ratio >= WANTED_RATIO
    document = {"ratio": round(ratio, 2), "target": options.target, **results, "holds": holds}
    document |= {"preset": options.preset, "limit_minutes": options.minutes, "curves": runs}
    print(json.dumps({**document, **surroundings(["keras", "jax"], 0)}))
    return 0 if holds else 1


def parsed() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description="NDCG@10 against training time.")
    parser.add_argument("--preset", default="esasrec")
    parser.add_argument("--target", type=float, default=0.15, help="of NDCG@10")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, for each")
    parser.add_argument(
        "--data", type=Path, default=ML_1M, help="a folder with interactions.parquet"
    )
    return parser.parse_args()


@dataclass(frozen=True)
class States:
    """A scorer that reads states a worker handed over.

    Attributes:
        queries: float32[users, width].
        item_table: float32[num_items + 1, width].
    """

    queries: npt.NDArray[np.float32]
    item_table: npt.NDArray[np.float32]

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        scores: npt.NDArray[np.float32] = self.queries[users] @ self.item_table.T
        return scores


@dataclass(frozen=True)
class Judge:
    """Ranks what a worker has learned after each epoch, and says when it is enough.

    Attributes:
        validation: all users and their validation items.
        train: the training histories; a target that is not in them is a miss.
        states: the file in which workers hand states over.
        target: NDCG@10 that ends a training.
        limit_s: seconds of training that end it too.
    """

    validation: HeldOut
    train: Histories
    states: Path
    target: float
    limit_s: float

    def run(self, environment: str, script: str, *arguments: object) -> list[tuple[float, float]]:
        """Seconds of training and NDCG@10 after each epoch of a worker.

        Raises:
            SystemExit: the worker failed; it has said why on standard error.
        """
        curve: list[tuple[float, float]] = []
        worker = start(environment, script, *arguments)
        assert worker.stdin is not None
        assert worker.stdout is not None
        for line in worker.stdout:
            seconds, ndcg = float(json.loads(line)["seconds"]), self.ndcg()
            curve.append((round(seconds, 1), round(ndcg, 4)))
            print(
                f"{environment}: epoch {len(curve)}, {seconds:.0f} s, NDCG@10 {ndcg:.4f}",
                file=sys.stderr,
                flush=True,
            )
            answer = {"ndcg@10": ndcg, "go_on": ndcg < self.target and seconds < self.limit_s}
            worker.stdin.write(json.dumps(answer) + "\n")
            worker.stdin.flush()
        if worker.wait() or not curve:
            raise SystemExit(f"{script} ended with {worker.returncode} after {len(curve)} epochs")
        return curve

    def ndcg(self) -> float:
        """NDCG@10 of the states that lie in the file."""
        with np.load(self.states) as arrays:
            scorer = States(arrays["queries"], arrays["item_table"])
        is_trained = self.train.item_counts() > 0
        ranking = rank_full(scorer, self.validation, is_trained=is_trained)
        return float(summarize(ranking.ranks)["ndcg@10"])


def outcome(curve: list[tuple[float, float]], target: float) -> dict[str, Any]:
    """When the target was reached, or how far the training had come when it was stopped."""
    seconds, ndcg = curve[-1]
    return {
        "seconds": seconds,
        "reached": ndcg >= target,
        "ndcg@10": ndcg,
        "best_ndcg@10": max(each for _, each in curve),
        "epochs": len(curve),
    }


def print_table(runs: dict[str, list[tuple[float, float]]]) -> None:
    """One line an epoch."""
    print(f"{'system':<10}{'epoch':>6}{'seconds':>9}{'NDCG@10':>9}")
    for name, curve in runs.items():
        for epoch, (seconds, ndcg) in enumerate(curve, start=1):
            print(f"{name:<10}{epoch:>6}{seconds:>9.0f}{ndcg:>9.4f}")


if __name__ == "__main__":
    sys.exit(main())
