"""Training batches: a `keras.utils.PyDataset` over packed rows, shuffled, seeded, resumable."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from segue.config import Config, TrainingConfig
from segue.data.histories import Histories
from segue.errors import TrainingError
from segue.model.negatives import NegativeSampler, generator
from segue.training.packing import (
    Packing,
    Windows,
    consecutive_windows,
    newest_windows,
    pack,
    unpacked,
)

# The packed rows of a batch are a multiple of this, so that attention finds chunks of equal size.
ROW_MULTIPLE = 4
# Counters that keep the streams of one seed apart.
PACKING_STREAM, NEGATIVES_STREAM = 1, 2

Batch = tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]], npt.NDArray[np.float32]]


def windows_of(train: Histories, config: Config) -> Windows:
    """The windows that the configuration trains on."""
    cut = {"newest": newest_windows, "all": consecutive_windows}[config.training.windows]
    return cut(train, config.model.max_length)


def rows_per_batch(windows: Windows, num_rows: int, config: TrainingConfig) -> int:
    """Rows that hold `batch_size` windows: exactly when unpacked, about so when packed.

    Args:
        windows: all of them, at least one.
        num_rows: rows that they are packed into.
        config: packing and batch size.
    """
    if not config.packed:
        return min(config.batch_size, len(windows))
    rows = min(max(1, round(config.batch_size * num_rows / len(windows))), num_rows)
    return -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE


class PackedBatches(keras.utils.PyDataset):
    """Batches of one epoch after another; batch i of epoch e is a function of the seed, e and i.

    Each batch is (x, y, sample_weight) as `SASRec` takes it: `item_ids` and `segment_ids`
    int32[rows, length], `positive_sequence` int32[rows, length], where the loss wants them
    `negative_sequence`, and weights float32[rows, length], 1 where there is a target.
    """

    def __init__(self, train: Histories, config: Config) -> None:
        """Packs the windows of `train`.

        Args:
            train: the training histories.
            config: batch size, packing, negatives and seed.

        Raises:
            TrainingError: no history has two items.
        """
        super().__init__(workers=1)
        self._train = train
        self._training = config.training
        self._loss = config.loss
        self._length = config.model.max_length
        self.windows = windows_of(train, config)
        if not len(self.windows):
            raise TrainingError(
                f"none of the {train.num_users:,} users has two training items, so there is "
                "nothing to predict; give a longer log"
            )
        self.sampler = NegativeSampler.of(config.loss, train)
        self.epoch = 0
        self.first_batch = 0
        self._packing = self._packed(0)
        self.rows_per_batch = rows_per_batch(self.windows, self._packing.num_rows, config.training)

    @property
    def batches_per_epoch(self) -> int:
        return -(-self._packing.num_rows // self.rows_per_batch)

    def start_at(self, epoch: int, batch: int) -> None:
        """Continues with that batch of that epoch; the epochs after it begin at 0."""
        self.epoch = epoch
        self.first_batch = batch
        self._packing = self._packed(epoch)

    @property
    def num_batches(self) -> int:
        return self.batches_per_epoch - self.first_batch

    def __getitem__(self, index: int) -> Batch:
        return self._batch(index + self.first_batch)

    def _packed(self, epoch: int) -> Packing:
        random = generator(self._training.seed, PACKING_STREAM, epoch)
        if self._training.packed:
            return pack(self.windows.lengths, self._length, random)
        return unpacked(len(self.windows), random)

    def _batch(self, index: int) -> Batch:
        first = index * self.rows_per_batch
        stop = min(first + self.rows_per_batch, self._packing.num_rows)
        row_offsets = self._packing.row_offsets[first : stop + 1]
        chosen = self._packing.order[row_offsets[0] : row_offsets[-1]]
        lengths = self.windows.lengths[chosen]
        per_row = np.diff(row_offsets)
        rows = np.repeat(np.arange(len(per_row)), per_row)
        first_of_row = row_offsets[:-1] - row_offsets[0]
        number_in_row = np.arange(len(chosen)) - np.repeat(first_of_row, per_row)

        ends = np.cumsum(lengths)
        row_begins = np.concatenate([[0], ends])[first_of_row]
        begins = ends - lengths - row_begins[rows]
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        places = np.repeat(rows * self._length + begins, lengths) + within
        sources = np.repeat(self.windows.starts[chosen], lengths) + within

        def spread(values: npt.ArrayLike, dtype: Any) -> npt.NDArray[Any]:
            array = np.zeros(self.rows_per_batch * self._length, dtype=dtype)
            array[places] = values
            return array.reshape(self.rows_per_batch, self._length)

        x = {
            "item_ids": spread(self._train.item_ids[sources], np.int32),
            "segment_ids": spread(np.repeat(number_in_row + 1, lengths), np.int32),
        }
        targets = self._train.item_ids[sources + 1]
        y = {"positive_sequence": spread(targets, np.int32)}
        if self._loss.loss != "softmax":
            users = np.repeat(self.windows.users[chosen], lengths)
            y["negative_sequence"] = self._negatives(index, users, places, targets)
        return x, y, spread(1.0, np.float32)

    def _negatives(
        self,
        index: int,
        users: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.int32]:
        """int32[negatives] for the batch, [rows, 1, negatives], or [rows, length, negatives].

        Args:
            index: of the batch.
            users: int64[targets], whose targets they are.
            places: int64[targets], where the targets stand in the flat rows.
            targets: int32[targets]; `in_batch` draws among them.
        """
        random = generator(self._training.seed, NEGATIVES_STREAM, self.epoch, index)
        count = self._loss.negatives
        pool = targets if self._loss.sampling == "in_batch" else None
        if self._loss.negatives_per == "batch":
            return self.sampler.draw(random, (count,), pool=pool)
        if self._loss.negatives_per == "row":
            return self.sampler.draw(random, (self.rows_per_batch, 1, count), pool=pool)
        # 0 where there is no target.
        negatives = np.zeros((self.rows_per_batch * self._length, count), dtype=np.int32)
        negatives[places] = self.sampler.draw(random, (len(users), count), users, pool)
        return negatives.reshape(self.rows_per_batch, self._length, count)
