"""How to run a training, apart from what it learns."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from segue.errors import ConfigError


@dataclass(frozen=True)
class Session:
    """How to run a training, apart from what it learns.

    Attributes:
        checkpoint: the directory of the checkpoint; None writes none.
        checkpoint_every_s: seconds between checkpoints; one more is written at the end.
        checkpoint_every_epochs: also after every so many epochs; None: by time alone.
        resume: go on from the checkpoint.
        show_progress: a bar on a terminal, lines elsewhere, on standard error.
        csv_log: a file for one line an epoch.
        tensorboard: a directory for TensorBoard's events.
        on_epoch: called with each epoch's measures, as the curves hold them; what it raises ends
            the training.

    Raises:
        ConfigError: a value is out of range, or there is nothing to resume from.
    """

    checkpoint: Path | None = None
    checkpoint_every_s: float = 120.0
    checkpoint_every_epochs: int | None = None
    resume: bool = False
    show_progress: bool = False
    csv_log: Path | None = None
    tensorboard: Path | None = None
    on_epoch: Callable[[Mapping[str, float]], None] | None = None

    def __post_init__(self) -> None:
        if not (self.checkpoint_every_s >= 0 and math.isfinite(self.checkpoint_every_s)):
            raise ConfigError(
                f"checkpoint_every_s={self.checkpoint_every_s} (--checkpoint-every) is not a "
                "number of seconds; give 0 or more"
            )
        if self.checkpoint_every_epochs is not None and self.checkpoint_every_epochs < 1:
            raise ConfigError(
                f"checkpoint_every_epochs={self.checkpoint_every_epochs} (--checkpoint-epochs) is "
                "not a number of epochs; give at least 1"
            )
        if self.resume and self.checkpoint is None:
            raise ConfigError("resume=True needs a checkpoint directory to go on from; name one")
