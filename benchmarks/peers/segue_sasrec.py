"""segue's worker: the training that `segue fit` runs, and a large matrix product beside it.

segue_sasrec.py speed HISTORIES bce|softmax WIDTH SECONDS
segue_sasrec.py quality HISTORIES PRESET STATES
segue_sasrec.py product
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from worker import DROPOUT, TrainingClock, read_histories, report_speed

import segue
from segue.data.vocabulary import Vocabulary
from segue.scoring import ModelScorer
from segue.training.packing import newest_windows
from segue.training.trainer import build_model, train

# The peers' model, in batches of as many users: the tutorial's preset, whose loss is BCE.
LOSS_OF = {"bce": [], "softmax": ["loss=softmax"]}
PRODUCT_SIZE, PRODUCT_REPEATS = 4_096, 5


class EnoughError(Exception):
    """Ends a training from within."""


def histories_of(path: Path) -> segue.Histories:
    """The training part as segue holds it; its outside ids are the dense ones."""
    item_ids, offsets, num_items = read_histories(path)
    vocabulary = Vocabulary.from_ids(pl.int_range(1, num_items + 1, dtype=pl.Int64, eager=True))
    users = np.split(item_ids.astype(np.int32), offsets[1:-1])
    return segue.Histories.from_lists(vocabulary, users)


def speed(path: Path, objective: str, width: int, seconds: float) -> None:
    """Times whole epochs after the first, from end to end: packing and batches are in them."""
    histories = histories_of(path)
    config = segue.load_preset("tutorial").with_settings(
        [
            f"width={width}",
            f"dropout={DROPOUT}",
            "epochs=1000",
            "validate_every=1",
            *LOSS_OF[objective],
        ]
    )
    ends: list[float] = []

    def note_end() -> dict[str, float]:
        ends.append(time.perf_counter())
        if len(ends) > 1 and ends[-1] - ends[0] >= seconds:
            raise EnoughError
        return {"ndcg@10": 0.0}

    until_enough(
        lambda: train(
            build_model(histories.vocabulary.num_items, config), histories, config, note_end
        )
    )
    targets = newest_windows(histories, config.model.max_length).num_targets
    report_speed(ends[-1] - ends[0], targets * (len(ends) - 1), ["keras", "jax"])


def quality(path: Path, preset: str, states: Path) -> None:
    """Trains until told to stop; the clock runs from the making of the model."""
    histories = histories_of(path)
    config = segue.load_preset(preset).with_settings(["validate_every=1"])
    clock = TrainingClock(states)
    model = build_model(histories.vocabulary.num_items, config)
    scorer = ModelScorer(model)

    def measure() -> dict[str, float]:
        clock.stop()
        answer = clock.ask(scorer.queries(histories, slice(None)), scorer.item_table)
        if not answer["go_on"]:
            raise EnoughError
        return {"ndcg@10": answer["ndcg@10"]}

    until_enough(lambda: train(model, histories, config, measure))


def until_enough(work: Callable[[], object]) -> None:
    """Calls `work`, which may end by `EnoughError`."""
    try:
        work()
    except EnoughError:
        return


def product() -> None:
    """GFLOP/s of a square float32 matrix product, the best of a few."""
    import jax

    square = jax.random.normal(jax.random.key(0), (PRODUCT_SIZE, PRODUCT_SIZE))
    multiply = jax.jit(lambda a, b: a @ b)
    multiply(square, square).block_until_ready()
    times = []
    for _ in range(PRODUCT_REPEATS):
        start = time.perf_counter()
        multiply(square, square).block_until_ready()
        times.append(time.perf_counter() - start)
    print(json.dumps({"gflops": round(2 * PRODUCT_SIZE**3 / min(times) / 1e9, 1)}))


if __name__ == "__main__":
    mode, *given = sys.argv[1:]
    if mode == "speed":
        speed(Path(given[0]), given[1], int(given[2]), float(given[3]))
    elif mode == "quality":
        quality(Path(given[0]), given[1], Path(given[2]))
    else:
        product()
