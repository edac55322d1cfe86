"""Claim: on a GPU a run recommends what it does on the CPU: the same top 10 for 1,000 users, but
for items whose scores lie closer than 1e-3. The check takes 6 minutes at most.

What else is printed is measured, and nothing is claimed of it: for `sasrec` and `best`, in float32
and in bfloat16, the targets a second of whole epochs after the first, the share of what the card
reaches in a large product of that precision, and the memory at its peak; and where the time of a
step goes. The log is made: 6,040 users who walk along a cycle of 3,416 items, 101 steps each. Each
training has a process of its own. Where there is no GPU, one line says so.

    python benchmarks/accelerator.py [--epochs N] [--try]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from surroundings import surroundings

import segue
from segue.data.synthetic import markov_log

PRESETS, PRECISIONS = ("sasrec", "best"), ("float32", "bfloat16")
USERS, ITEMS, STEPS, CERTAINTY, SEED = 6_040, 3_416, 101, 0.8, 0
ASKED, K, CLOSE, MOST_SECONDS = 1_000, 10, 1e-3, 360
PRODUCT_SIZE, TRACED_STEPS = 8_192, 10
# What `--try` goes without a GPU for: a look at whether the script runs.
TRIED = ["max_length=32", "width=32", "num_blocks=1"]
TRIED_USERS, TRIED_PRODUCT = 200, 512


def main() -> int:
    """Runs the workers, prints the tables and the row, and returns 1 where the claim fails."""
    options = parsed()
    if options.worker:
        print(json.dumps(WORKERS[options.worker[0]](options, *options.worker[1:])))
        return 0
    start = time.perf_counter()
    device = in_own_process(options, "device")
    if device["platform"] == "cpu" and not options.is_tried:
        print("no GPU: JAX computes on the CPU here, so nothing was checked")
        return 0
    rows, answers = [], []
    with tempfile.TemporaryDirectory() as folder:
        # A worker compiles a step three times, to train, to look into and to trace it.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(folder, "compiled")))
        for preset in PRESETS:
            for precision in PRECISIONS:
                run = Path(folder, f"{preset}-{precision}")
                rows.append(in_own_process(options, "train", preset, precision, run))
                print_row(rows[-1])
            answers.append(compared(options, Path(folder, f"{preset}-{PRECISIONS[0]}")))
    seconds = time.perf_counter() - start
    for preset, answer in zip(PRESETS, answers, strict=True):
        print(
            f"{preset}: {answer['items_apart']} of {answer['items']:,} places of the top {K} "
            f"differ from the CPU's, by scores up to {answer['furthest']:.1e} apart"
        )
    holds = [seconds <= MOST_SECONDS, *(answer["furthest"] < CLOSE for answer in answers)]
    document = {
        "benchmark": "accelerator",
        "holds": holds,
        "seconds": round(seconds),
        "rows": rows,
        "answers": dict(zip(PRESETS, answers, strict=True)),
        **surroundings(["segue", "keras", "jax", "numpy"], SEED),
        "device": device["kind"],
    }
    print(json.dumps(document))
    return 0 if all(holds) else 1


def parsed() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="of each training")
    parser.add_argument(
        "--try",
        dest="is_tried",
        action="store_true",
        help="a small log and model on whatever device there is: to see whether the script runs",
    )
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(options: argparse.Namespace, *worker: object, **environment: str) -> Any:
    """What a worker says in its last line.

    Raises:
        SystemExit: The worker failed; it has said why on standard error.
    """
    command = [sys.executable, __file__, "--epochs", str(options.epochs)]
    command += ["--try"] if options.is_tried else []
    done = subprocess.run(
        [*command, "--worker", *map(str, worker)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": "jax", **environment},
    )
    if done.returncode:
        raise SystemExit(f"the worker {' '.join(map(str, worker))} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def device_of(options: argparse.Namespace) -> dict[str, str]:
    """The platform and the name of the first device."""
    import jax

    first = jax.local_devices()[0]
    return {"platform": first.platform, "kind": f"{first.platform} {first.device_kind}"}


def trained(options: argparse.Namespace, preset: str, precision: str, run: str) -> dict[str, Any]:
    """Trains and writes the run; the speed, the memory, and the parts of a step."""
    log = markov_log(
        TRIED_USERS if options.is_tried else USERS, ITEMS, STEPS, certainty=CERTAINTY, seed=SEED
    )
    histories = segue.Histories.from_log(log)
    settings = [f"epochs={options.epochs}", f"precision={precision}", f"seed={SEED}"]
    settings += [*TRIED, "num_heads=1"] if options.is_tried else []
    config = segue.load_preset(preset).with_settings(settings)
    ends: list[float] = []
    session = segue.Session(on_epoch=lambda _: ends.append(time.perf_counter()))
    recommender = segue.fit(histories, preset=config, session=session)
    recommender.save(run)
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    return {
        "preset": preset,
        "precision": precision,
        "loss": recommender.run.training["epochs"][-1]["loss"],
        **measured(options, recommender, histories, config, seconds),
    }


def measured(
    options: argparse.Namespace,
    recommender: segue.Recommender,
    histories: segue.Histories,
    config: segue.Config,
    seconds: float,
) -> dict[str, Any]:
    """Figures of a training whose epochs took so many seconds each."""
    import jax
    from tracing import product_rate, step_and_batch, timed, traced

    from segue.training.plan import Plan

    memory = jax.local_devices()[0].memory_stats() or {}
    plan = Plan.of(histories, config)
    targets = plan.windows.num_targets
    flops = flops_per_target(recommender, plan)
    product = product_rate(
        TRIED_PRODUCT if options.is_tried else PRODUCT_SIZE, config.training.precision
    )
    step, batch = step_and_batch(histories, config)
    step_seconds = timed(step, batch, TRACED_STEPS)
    parts = traced(step, batch, TRACED_STEPS)
    parts["idle"] = max(0.0, step_seconds - sum(parts.values()))
    return {
        "targets_per_s": round(targets / seconds),
        "tflops": targets / seconds * flops / 1e12,
        "product_tflops": product / 1e12,
        "share_of_peak": targets / seconds * flops / product,
        "peak_bytes": memory.get("peak_bytes_in_use"),
        "step_ms": 1e3 * step_seconds,
        "parts_ms": {name: 1e3 * value for name, value in parts.items()},
    }


def flops_per_target(recommender: segue.Recommender, plan: Any) -> float:
    """Floating-point operations that the mathematics of a step asks for, per target.

    As in `train_speed.py`: the products alone, each 3 times, with its gradient. A position: every
    matrix of the encoder; a pair of a query and a key that it may see, and block: score and
    weighted value; a target: the logits of all items.
    """
    weights, settings = recommender.run.weights, recommender.run.config.model
    matrices = sum(
        weight.size for name, weight in weights.items() if name.rpartition("/")[2] == "kernel"
    )
    lengths = plan.windows.lengths
    pairs = float((lengths * (lengths + 1) / 2).sum()) / plan.windows.num_targets
    attended = settings.num_blocks * 2 * settings.width * pairs
    logits = recommender.vocabulary.num_items * settings.width
    return 3 * 2 * (matrices + attended + logits)


def compared(options: argparse.Namespace, run: Path) -> dict[str, Any]:
    """How far what a run recommends on the GPU is from what it does on the CPU."""
    files = {name: run.with_name(f"{run.name}-{name}.parquet") for name in ("gpu", "cpu")}
    in_own_process(options, "answer", run, files["gpu"])
    in_own_process(options, "answer", run, files["cpu"], JAX_PLATFORMS="cpu")
    return distance(pl.read_parquet(files["gpu"]), pl.read_parquet(files["cpu"]))


def answered(options: argparse.Namespace, run: str, file: str) -> dict[str, int]:
    """Writes what a run recommends to its first users."""
    recommender = segue.load(run)
    assert recommender.run.split is not None
    histories = recommender.run.split.histories
    users = histories.take(np.arange(min(ASKED, histories.num_users)))
    answers = recommender.recommend_histories(users, K)
    answers.select("user_id", "item_id", "rank", "score").write_parquet(file)
    return {"rows": len(answers)}


def distance(first: pl.DataFrame, second: pl.DataFrame) -> dict[str, Any]:
    """How many places of two top lists hold other items, and by how much their scores differ.

    An item that one list lacks counts with the last score of that list: it would have had no more
    there, and that much is what let it fall behind.

    Args:
        first, second: user_id, item_id, rank, score: the same number of ranks for each user.
    """
    by_rank = first.join(second, on=["user_id", "rank"], suffix="_second", validate="1:1")
    by_item = first.join(
        second, on=["user_id", "item_id"], how="full", coalesce=True, suffix="_second"
    )
    for name, frame in (("last", first), ("last_second", second)):
        lowest = frame.group_by("user_id").agg(pl.col("score").min().alias(name))
        by_item = by_item.join(lowest, on="user_id")
    apart = by_item.select(
        pl.col("score").fill_null(pl.col("last"))
        - pl.col("score_second").fill_null(pl.col("last_second"))
    ).to_series()
    return {
        "items": len(by_rank),
        "items_apart": by_rank.filter(pl.col("item_id") != pl.col("item_id_second")).height,
        "furthest": float(np.abs(apart.to_numpy()).max()),
    }


def print_row(row: dict[str, Any]) -> None:
    """One line for the training, and one for each part of a step."""
    memory = f"{row['peak_bytes'] / 1e9:.2f} GB" if row["peak_bytes"] else "memory unknown"
    print(
        f"{row['preset']}, {row['precision']}: {row['targets_per_s']:,} targets/s, "
        f"{row['tflops']:.1f} of {row['product_tflops']:.1f} TFLOP/s "
        f"({row['share_of_peak']:.1%}), {memory}, {row['step_ms']:.2f} ms a step"
    )
    for name, value in sorted(row["parts_ms"].items(), key=lambda part: -part[1]):
        print(f"    {name:<46}{value:>8.2f} ms{value / row['step_ms']:>8.0%}", flush=True)


WORKERS = {"device": device_of, "train": trained, "answer": answered}


if __name__ == "__main__":
    sys.exit(main())
