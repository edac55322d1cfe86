"""Logs of a training for other programs: a CSV file, TensorBoard's events."""

import os
from pathlib import Path
from typing import Any

import keras
import polars as pl

from segue.errors import ConfigError, OutputError
from segue.training.checkpoint import Standing


class CSVLog(keras.callbacks.Callback):
    """One line an epoch, epochs from 1; rewritten whole, so that a resumed training continues it.

    A measure that an epoch lacks, as between two rankings, is empty there.
    """

    def __init__(self, path: Path, standing: Standing) -> None:
        super().__init__()
        self.path = path
        self.standing = standing

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            pl.DataFrame(self.standing.curves, infer_schema_length=None).with_columns(
                pl.col("epoch").cast(pl.Int64)
            ).write_csv(temporary)
            os.replace(temporary, self.path)
        except OSError as error:
            raise OutputError(
                f"cannot write the CSV log {self.path}: {error.strerror or error}"
            ) from error


class TensorBoardLog(keras.callbacks.Callback):
    """Every measure of every epoch, without TensorFlow: Keras' own callback needs it.

    Raises:
        ConfigError: TensorBoard's writer is not installed.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError:
            raise ConfigError(
                "TensorBoard logs need the package tensorboardX, which is not installed; "
                "install segue[tensorboard]"
            ) from None
        self.writer = SummaryWriter(str(directory))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.writer.add_scalar(name, value, epoch + 1)
        self.writer.flush()
