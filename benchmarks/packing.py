"""Claim: what is learned does not depend on packing: with padded rows and with packed ones the same
training ends within the spread of its seeds.

ml-100k, the preset `quick` with more epochs, everything the same but `packed`; the epoch is chosen
by NDCG@10 on everyone's last but one item, and the last is tested. The claim holds where the means
of the test NDCG@10 lie no further apart than the mean of the two spreads (highest less lowest over
the seeds), and the means of the last training loss within 1%.

    python benchmarks/packing.py [--seeds N ...] [--epochs N]
"""

import argparse
import json
import statistics
import sys

from surroundings import surroundings

import segue
from segue.data.splits import Split

MOST_LOSS_APART = 0.01


def main() -> int:
    """Trains both ways, prints the table and the row, and returns 1 where the claim fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3], metavar="N")
    parser.add_argument("--epochs", type=int, default=20, metavar="N")
    options = parser.parse_args()
    log, _ = segue.load_dataset("ml-100k")
    split = segue.leave_one_out(log)
    rows = {}
    for packed in ("true", "false"):
        runs = [trained(split, packed, seed, options.epochs) for seed in options.seeds]
        rows[packed] = {name: [run[name] for run in runs] for name in runs[0]}
        figures = " ".join(f"{each:.4f}" for each in rows[packed]["ndcg@10"])
        loss, seconds = (statistics.mean(rows[packed][name]) for name in ("loss", "seconds"))
        print(f"packed={packed}: NDCG@10 {figures}; loss {loss:.4f}; {seconds:.0f} s", flush=True)
    is_shown = holds(rows["true"], rows["false"])
    document = {"benchmark": "packing", "is_shown": is_shown, "rows": rows}
    print(json.dumps({**document, **surroundings(["keras", "jax"], options.seeds[0])}))
    return 0 if is_shown else 1


def trained(split: Split, packed: str, seed: int, epochs: int) -> dict[str, float]:
    """The test NDCG@10, the last training loss and the seconds of one training."""
    config = segue.load_preset("quick").with_settings(
        [f"packed={packed}", f"seed={seed}", f"epochs={epochs}"]
    )
    recommender = segue.fit(split, preset=config)
    training = recommender.run.training
    return {
        "ndcg@10": recommender.run.report["metrics"]["ndcg@10"],
        "loss": training["epochs"][-1]["loss"],
        "seconds": training["seconds"],
    }


def holds(packed: dict[str, list[float]], padded: dict[str, list[float]]) -> bool:
    """Whether both ways end in the same place, as far as seeds tell."""

    def apart(name: str) -> float:
        return abs(statistics.mean(packed[name]) - statistics.mean(padded[name]))

    spread = sum(max(each["ndcg@10"]) - min(each["ndcg@10"]) for each in (packed, padded))
    is_same_loss = apart("loss") <= MOST_LOSS_APART * statistics.mean(padded["loss"])
    return is_same_loss and apart("ndcg@10") <= spread / 2


if __name__ == "__main__":
    sys.exit(main())
