"""Observers of a training; their order does not matter."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import polars as pl

from segue.errors import ConfigError, OutputError
from segue.files import claimed, replaced

Measures = Mapping[str, float]


class Observer(Protocol):
    """Is called as a training goes on. What it raises ends the training."""

    def on_epoch_start(self, epoch: int, first_batch: int) -> None:
        """An epoch, counted from 1, begins at that batch: not at 0 where it was interrupted."""
        ...

    def on_step(self, done: int, loss: Callable[[], float]) -> None:
        """So many batches of the epoch are done; `loss` waits for their average loss."""
        ...

    def on_epoch_end(self, curves: Sequence[Measures]) -> None:
        """An epoch is over: the measures of every epoch so far, its own last."""
        ...

    def close(self) -> None:
        """The training is over, whichever way."""
        ...


class EpochObserver:
    """An `Observer` of whole epochs; what it does at their end is for others to say."""

    def on_epoch_start(self, epoch: int, first_batch: int) -> None:
        """Nothing."""

    def on_step(self, done: int, loss: Callable[[], float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Listener(EpochObserver):
    """Hands each epoch's measures to a function."""

    def __init__(self, listen: Callable[[Measures], None]) -> None:
        self._listen = listen

    def on_epoch_end(self, curves: Sequence[Measures]) -> None:
        """As `Observer.on_epoch_end`."""
        self._listen(curves[-1])


class CSVLog(EpochObserver):
    """One line an epoch, epochs from 1; rewritten whole, so that a resumed training continues it.

    A measure that an epoch lacks, as between two rankings, is empty there.
    """

    def __init__(self, path: Path) -> None:
        """Keeps the file for this training.

        Raises:
            OutputError: Another training writes it, or it cannot be written.
        """
        self._path = path
        self._lock = ExitStack()
        try:
            self._lock.enter_context(claimed(path))
        except OSError as error:
            raise self._cannot_write(error) from error

    def on_epoch_end(self, curves: Sequence[Measures]) -> None:
        """As `Observer.on_epoch_end`.

        Raises:
            OutputError: The file cannot be written.
        """
        table = pl.DataFrame(list(curves), infer_schema_length=None).with_columns(
            pl.col("epoch").cast(pl.Int64)
        )
        try:
            with replaced(self._path) as draft:
                table.write_csv(draft)
        except OSError as error:
            raise self._cannot_write(error) from error

    def close(self) -> None:
        """Gives the file back."""
        self._lock.close()

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write the CSV log {self._path}: {error.strerror or error}")


class TensorBoardLog(EpochObserver):
    """Every measure of every epoch, without TensorFlow: Keras' own callback needs it."""

    def __init__(self, directory: Path) -> None:
        """Opens the directory's events.

        Raises:
            ConfigError: TensorBoard's writer is not installed.
        """
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError:
            raise ConfigError(
                "TensorBoard logs need the package tensorboardX, which is not installed; "
                "install segue[tensorboard]"
            ) from None
        self._writer = SummaryWriter(os.fspath(directory))

    def on_epoch_end(self, curves: Sequence[Measures]) -> None:
        """As `Observer.on_epoch_end`."""
        measures = dict(curves[-1])
        epoch = int(measures.pop("epoch"))
        for name, value in measures.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Closes the events' file."""
        self._writer.close()
