"""segue's worker: the training that `segue fit` runs, and a large matrix product beside it.

segue_sasrec.py speed HISTORIES bce|softmax WIDTH SECONDS
segue_sasrec.py quality HISTORIES PRESET STATES
segue_sasrec.py product
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from worker import DROPOUT, TrainingClock, read_histories, report_speed

import segue
from segue.data.vocabulary import Vocabulary
from segue.model.sequence_model import SequenceModel, build_model
from segue.retriever import ModelScorer, item_table_of
from segue.training.loop import train
from segue.training.placement import prepare
from segue.training.plan import Plan

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


def planned(histories: segue.Histories, config: segue.Config) -> tuple[Plan, SequenceModel]:
    """Plan and model, once JAX has its devices: in the order of `segue fit`."""
    num_items = histories.vocabulary.num_items
    plan = Plan.of(histories, config)
    prepare(config, num_items, plan)
    return plan, build_model(num_items, config)


def speed(path: Path, objective: str, width: int, seconds: float) -> None:
    """Times whole epochs after the first, from end to end: packing and batches are in them."""
    histories = histories_of(path)
    config = segue.load_preset("tutorial").with_settings(
        [f"width={width}", f"dropout={DROPOUT}", "epochs=1000", *LOSS_OF[objective]]
    )
    plan, model = planned(histories, config)
    ends: list[float] = []

    def note_end(_: Mapping[str, float]) -> None:
        ends.append(time.perf_counter())
        if len(ends) > 1 and ends[-1] - ends[0] >= seconds:
            raise EnoughError

    session = segue.Session(on_epoch=note_end)
    until_enough(lambda: train(model, histories, config, plan=plan, session=session))
    targets = plan.windows.num_targets * (len(ends) - 1)
    report_speed(ends[-1] - ends[0], targets, ["keras", "jax"])


def quality(path: Path, preset: str, states: Path) -> None:
    """Trains until told to stop; the clock runs from the plan of the training on."""
    histories = histories_of(path)
    config = segue.load_preset(preset).with_settings(["validate_every=1"])
    clock = TrainingClock(states)
    plan, model = planned(histories, config)
    scorer = ModelScorer(model)

    def measure() -> dict[str, float]:
        clock.stop()
        answer = clock.ask(scorer.queries(histories, slice(None)), item_table_of(model))
        if not answer["go_on"]:
            raise EnoughError
        return {"ndcg@10": answer["ndcg@10"]}

    until_enough(lambda: train(model, histories, config, measure, plan=plan))


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
