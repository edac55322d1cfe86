"""RecTools' worker: its SASRec, trained by its own `fit`.

rectools_sasrec.py speed HISTORIES bce|softmax WIDTH SECONDS
rectools_sasrec.py quality HISTORIES STATES
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from worker import (
    BATCH_SIZE,
    BLOCKS,
    DROPOUT,
    HEADS,
    LEARNING_RATE,
    LENGTH,
    TrainingClock,
    read_histories,
    report_speed,
)

LOSS_OF = {"bce": "BCE", "softmax": "softmax"}
QUALITY_WIDTH = 64
WARM_UP_STEPS = 3
FEWEST_STEPS = 5
ENDLESS = 100_000  # epochs; a callback ends the training
ENCODED_AT_ONCE = 128


def dataset_of(path: Path) -> Dataset:
    """The training part as RecTools holds it; its outside ids are the dense ones."""
    item_ids, offsets, _ = read_histories(path)
    lengths = np.diff(offsets)
    places = np.arange(len(item_ids)) - np.repeat(offsets[:-1], lengths)
    frame = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(lengths)), lengths),
            Columns.Item: item_ids,
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(places, unit="s"),
        }
    )
    return Dataset.construct(frame)


def model_of(objective: str, width: int, trainer: Any, settings: dict[str, Any]) -> SASRecModel:
    """The model as its documentation sets it up, in the sizes that everybody has here.

    Args:
        objective: "bce" or "softmax".
        width: of the item table and the states.
        trainer: a function of this module; RecTools wants its name.
        settings: its arguments, ready for JSON.
    """
    return SASRecModel(
        n_blocks=BLOCKS,
        n_heads=HEADS,
        n_factors=width,
        dropout_rate=DROPOUT,
        session_max_len=LENGTH,
        batch_size=BATCH_SIZE,
        loss=LOSS_OF[objective],
        n_negatives=1,
        lr=LEARNING_RATE,
        get_trainer_func=trainer,
        get_trainer_func_kwargs=settings,
    )


def plain_trainer(callback: Callback) -> Trainer:
    """Neither logs nor checkpoints; the callback ends it."""
    return Trainer(
        max_epochs=ENDLESS,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[callback],
    )


class StepClock(Callback):
    """Notes when each step ended and how many real targets it had."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ends: list[float] = []
        self.targets: list[int] = []

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self.ends.append(time.perf_counter())
        self.targets.append(int((batch["y"] != 0).sum()))
        timed = self.ends[WARM_UP_STEPS - 1 :]
        if len(timed) > FEWEST_STEPS and timed[-1] - timed[0] >= self.seconds:
            trainer.should_stop = True


def speed_trainer(seconds: float) -> Trainer:
    """What `speed` trains with."""
    return plain_trainer(StepClock(seconds))


def speed(path: Path, objective: str, width: int, seconds: float) -> None:
    """Times steps from end to end, so that the loading of a batch is in them."""
    model = model_of(objective, width, speed_trainer, {"seconds": seconds})
    model.fit(dataset_of(path))
    # RecTools trains with a copy of the trainer.
    clock = next(each for each in model.fit_trainer.callbacks if isinstance(each, StepClock))
    duration = clock.ends[-1] - clock.ends[WARM_UP_STEPS - 1]
    targets = sum(clock.targets[WARM_UP_STEPS:])
    report_speed(duration, targets, ["rectools", "torch", "pytorch-lightning"])


class EpochClock(Callback):
    """Hands the state over after each epoch, and stops when told to."""

    def __init__(self, path: str, states: str) -> None:
        self.item_ids, self.offsets, self.num_items = read_histories(Path(path))
        self.states = Path(states)

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Runs at the start of the fit, once the data is prepared."""
        self.own_ids = own_ids(module, self.num_items)
        self.windows = left_padded(self.own_ids[self.item_ids], self.offsets)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        CLOCK[0].stop()
        answer = CLOCK[0].ask(*encoded(module, self.windows, self.own_ids))
        trainer.should_stop = not answer["go_on"]


# RecTools copies the trainer with its callbacks; the clock must stay the one that was started.
CLOCK: list[TrainingClock] = []


def quality_trainer(path: str, states: str) -> Trainer:
    """What `quality` trains with."""
    return plain_trainer(EpochClock(path, states))


def quality(path: Path, states: Path) -> None:
    """Trains until told to stop; the clock runs from the call of `fit`."""
    settings = {"path": str(path), "states": str(states)}
    model = model_of("softmax", QUALITY_WIDTH, quality_trainer, settings)
    dataset = dataset_of(path)
    CLOCK.append(TrainingClock(states))
    model.fit(dataset)


def own_ids(module: LightningModule, num_items: int) -> npt.NDArray[np.int64]:
    """int64[num_items + 1]: RecTools' id of each dense id; 0 for padding and the untrained."""
    mapped = np.zeros(num_items + 1, dtype=np.int64)
    externals = module.data_preparator.get_known_item_ids().astype(np.int64)
    mapped[externals] = module.data_preparator.get_known_items_sorted_internal_ids()
    return mapped


def left_padded(
    item_ids: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """int64[users, LENGTH]: the newest items of each user at the right, as RecTools feeds them."""
    places = offsets[1:, None] - LENGTH + np.arange(LENGTH)
    is_item = places >= offsets[:-1, None]
    return np.where(is_item, item_ids[np.maximum(places, 0)], 0)


def encoded(
    module: LightningModule, windows: npt.NDArray[np.int64], own_ids: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Queries float32[users, width], and the item table by dense ids, zeros where untrained."""
    backbone = module.torch_model
    backbone.eval()
    with torch.no_grad():
        table = backbone.item_model.get_all_embeddings()
        blocks = torch.split(torch.from_numpy(windows), ENCODED_AT_ONCE)
        queries = [backbone.encode_sessions({"x": block}, table)[:, -1] for block in blocks]
    backbone.train()
    item_table = table.numpy()[own_ids]
    item_table[own_ids == 0] = 0.0
    return torch.cat(queries).numpy(), item_table


if __name__ == "__main__":
    mode, *given = sys.argv[1:]
    if mode == "speed":
        speed(Path(given[0]), given[1], int(given[2]), float(given[3]))
    else:
        quality(Path(given[0]), Path(given[1]))
