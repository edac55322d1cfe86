"""Training batches: slices of an epoch's layout, shuffled, seeded, resumable."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.config import Config, DrawnLossConfig
from segue.data.columns import ASKED_AT, ITEM_IDS, TIMESTAMPS, unknown_of
from segue.data.histories import Histories
from segue.model.negatives import NegativeSampler, generator
from segue.training.packing import Layout
from segue.training.plan import NEGATIVES_STREAM, Plan

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step learns from.

    Attributes:
        inputs: `item_ids` and `segment_ids` int32[rows, length], and the columns that the model
            wants, [rows, length] each.
        targets: `positive_sequence` int32[rows, length], 0 where there is none; where the loss
            draws, `negative_sequence`, in a shape that `Loss` takes.
        weights: float32[rows, length], 1 where there is a target.
    """

    inputs: dict[str, Array]
    targets: dict[str, Array]
    weights: npt.NDArray[np.float32]


class Batches:
    """Batches of one epoch after another; batch i of epoch e is a function of the seed, e and i."""

    def __init__(
        self,
        histories: Histories,
        config: Config,
        plan: Plan,
        sampler: NegativeSampler | None,
        wants: Sequence[str] = (),
    ) -> None:
        """Batches of the training histories.

        Args:
            histories: What is trained on.
            config: Negatives and seed.
            plan: Windows, rows and layouts.
            sampler: Draws the negatives; None where the loss wants none.
            wants: The columns that the model reads in addition to the items.
        """
        self._histories = histories
        self._plan = plan
        self._length = config.model.max_length
        self._seed = config.training.seed
        self._loss = config.loss
        self._sampler = sampler
        self._wants = wants

    def of_epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `first` on; the next is made while one is worked on."""
        layout = self._plan.layout(epoch)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as maker:
            ahead: Future[Batch] | None = None
            for index in range(first, self._plan.batches_per_epoch):
                made, ahead = ahead, maker.submit(self.batch, layout, epoch, index)
                if made is not None:
                    yield made.result()
            if ahead is not None:
                yield ahead.result()

    def batch(self, layout: Layout, epoch: int, index: int) -> Batch:
        """One batch of an epoch.

        Args:
            layout: Of the epoch.
            epoch, index: Counted from 0; the negatives depend on them.
        """
        first = index * self._plan.rows_per_batch
        stop = min(first + self._plan.rows_per_batch, layout.num_rows)
        entries = layout.of_rows(first, stop)
        source = layout.source[entries]
        row = layout.row[entries].astype(np.int64) - first
        places = row * self._length + layout.column[entries]
        targets = self._histories.item_ids[source + 1]

        inputs = {
            ITEM_IDS: self._spread(self._histories.item_ids[source], places, 0),
            "segment_ids": self._spread(layout.segment[entries], places, 0),
            **{name: self._column(name, source, places) for name in self._wants},
        }
        answers = {"positive_sequence": self._spread(targets, places, 0)}
        if self._sampler is not None:
            users = self._histories.users_of(source)
            answers["negative_sequence"] = self._negatives((epoch, index), users, places, targets)
        weights = self._spread(np.ones(len(source), np.float32), places, 0)
        return Batch(inputs, answers, weights)

    def _column(
        self, name: str, source: npt.NDArray[np.int64], places: npt.NDArray[np.int64]
    ) -> Array:
        """A wanted column; `asked_at` is when the target, the next interaction, was asked for."""
        is_asked = name == ASKED_AT
        values = self._histories.flat(TIMESTAMPS if is_asked else name)
        unknown = unknown_of(name)
        if values is None:
            dtype = np.int32 if isinstance(unknown, int) else np.float32
            return self._spread(np.full(len(source), unknown, dtype), places, unknown)
        return self._spread(values[source + 1 if is_asked else source], places, unknown)

    def _spread(self, values: Array, places: npt.NDArray[np.int64], padding: float) -> Array:
        """[rows, length]: the values at these places of the flat rows, padding elsewhere."""
        spread = np.full(self._plan.rows_per_batch * self._length, padding, dtype=values.dtype)
        spread[places] = values
        return spread.reshape(self._plan.rows_per_batch, self._length)

    def _negatives(
        self,
        counters: tuple[int, int],
        users: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.int32]:
        """int32[negatives] for the batch, [rows, 1, negatives], or [rows, length, negatives].

        Args:
            counters: Epoch and batch.
            users: int64[targets], whose targets they are.
            places: int64[targets], of the targets in the flat rows.
            targets: int32[targets]; `in_batch` draws among them.
        """
        assert isinstance(self._loss, DrawnLossConfig)
        assert self._sampler is not None
        random = generator(self._seed, NEGATIVES_STREAM, *counters)
        count, rows = self._loss.negatives, self._plan.rows_per_batch
        pool = targets if self._loss.sampling == "in_batch" else None
        if self._loss.negatives_per == "batch":
            return self._sampler.draw(random, (count,), pool=pool)
        if self._loss.negatives_per == "row":
            return self._sampler.draw(random, (rows, 1, count), pool=pool)
        # 0 where there is no target.
        negatives = np.zeros((rows * self._length, count), dtype=np.int32)
        negatives[places] = self._sampler.draw(random, (len(users), count), users, pool)
        return negatives.reshape(rows, self._length, count)
