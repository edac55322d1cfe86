"""The plan of a training: what it goes over and in what pieces, made once before it starts."""

from dataclasses import dataclass

import numpy as np

from segue.config import Config, TrainingConfig
from segue.data.histories import Histories
from segue.errors import TrainingError
from segue.model.negatives import generator
from segue.training.packing import (
    Layout,
    Windows,
    consecutive_windows,
    newest_windows,
    pack,
    unpacked,
)

# The packed rows of a batch are a multiple of this, so that attention finds chunks of equal size
# and devices equal shares.
ROW_MULTIPLE = 4
# Keeps the streams of one seed apart: this one's, the training's negatives', the validation's.
PACKING_STREAM, NEGATIVES_STREAM, VALIDATION_STREAM = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Plan:
    """What a training goes over.

    Attributes:
        windows: The pieces of the histories.
        first_layout: Where each input lies in the first epoch; every epoch has as many rows.
        rows_per_batch: Rows of a step.
        config: How the windows are packed, and the seed.
    """

    windows: Windows
    first_layout: Layout
    rows_per_batch: int
    config: Config

    @classmethod
    def of(cls, histories: Histories, config: Config) -> "Plan":
        """The plan of a training on these histories.

        Raises:
            TrainingError: No history has two items.
        """
        cut = {"newest": newest_windows, "all": consecutive_windows}[config.training.windows]
        windows = cut(histories, config.model.max_length)
        if not len(windows):
            raise TrainingError(
                f"none of the {histories.num_users:,} users has two training items, so there is "
                "nothing to predict; give a longer log"
            )
        layout = _layout(windows, config, 0)
        rows = rows_per_batch(len(windows), layout.num_rows, config.training)
        return cls(windows, layout, rows, config)

    @property
    def batches_per_epoch(self) -> int:
        return -(-self.first_layout.num_rows // self.rows_per_batch)

    @property
    def num_steps(self) -> int:
        """Of the whole training, unless it stops early."""
        return self.config.training.epochs * self.batches_per_epoch

    @property
    def positions_per_batch(self) -> int:
        return self.rows_per_batch * self.config.model.max_length

    def layout(self, epoch: int) -> Layout:
        """Where each input lies in an epoch, counted from 0: it depends on the seed alone."""
        return self.first_layout if epoch == 0 else _layout(self.windows, self.config, epoch)


def rows_per_batch(num_windows: int, num_rows: int, config: TrainingConfig) -> int:
    """Rows that hold `batch_size` windows: exactly when unpacked, about so when packed.

    Args:
        num_windows: All of them, at least one.
        num_rows: Rows that they are packed into.
        config: Packing and batch size.
    """
    if not config.packed:
        return min(config.batch_size, num_windows)
    rows = min(max(1, round(config.batch_size * num_rows / num_windows)), num_rows)
    return -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE


def _layout(windows: Windows, config: Config, epoch: int) -> Layout:
    random: np.random.Generator = generator(config.training.seed, PACKING_STREAM, epoch)
    if config.training.packed:
        packing = pack(windows.lengths, config.model.max_length, random)
    else:
        packing = unpacked(len(windows), random)
    return Layout.of(windows, packing)
