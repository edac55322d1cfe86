"""Logs of a training for other programs: a CSV file, TensorBoard's events."""

from pathlib import Path
from typing import Any

import keras

from segue.errors import ConfigError


def log_callbacks(
    csv_log: Path | None, tensorboard: Path | None, append: bool
) -> list[keras.callbacks.Callback]:
    """The callbacks that write the logs asked for.

    Raises:
        ConfigError: TensorBoard's writer is not installed.
    """
    callbacks: list[keras.callbacks.Callback] = []
    if csv_log:
        callbacks.append(keras.callbacks.CSVLogger(str(csv_log), append=append))
    if tensorboard:
        callbacks.append(_TensorBoardLog(tensorboard))
    return callbacks


class _TensorBoardLog(keras.callbacks.Callback):
    """Every measure of every epoch, without TensorFlow: Keras' own callback needs it."""

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

    def on_train_end(self, logs: Any = None) -> None:
        self.writer.flush()
