"""`train`: compile, fit, validate, stop early, checkpoint and resume."""

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt

from segue.config import Config, TrainingConfig
from segue.data.histories import Histories
from segue.errors import ConfigError, Interrupted, TrainingError
from segue.model.sasrec import SASRec
from segue.model.sparse import LazyAdam
from segue.model.weights import load_weights, weights_of
from segue.training import checkpoint
from segue.training.averaging import AveragingAdam, averaged, take_averages
from segue.training.batches import PackedBatches
from segue.training.checkpoint import Progress
from segue.training.display import ProgressDisplay
from segue.training.logs import CSVLog, TensorBoardLog

# What early stopping and the choice of the best weights go by.
SCORE = "ndcg@10"
# The share of the learning rate that a cosine schedule ends with.
LAST_RATE = 0.02
# Items from which on only the rows of a batch are updated: by benchmarks/catalogue_growth.py that
# costs 15% more at 100,000 and 28% less at 1,000,000.
LAZY_ITEMS = 300_000

# Measures the model on the validation part: `ndcg@10`, and whatever else the curves are to hold.
Validate = Callable[[], Mapping[str, float]]


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
        on_epoch: told each epoch's measures, as the curves hold them; what it raises ends the
            training.

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


@dataclass(frozen=True)
class Curves:
    """What a training measured, epoch by epoch, and which epoch's weights were kept."""

    epochs: list[dict[str, float]]
    best_epoch: int | None
    stopped_early: bool


def build_model(num_items: int, config: Config) -> SASRec:
    """The configured encoder with fresh weights, which depend on the seed alone."""
    return SASRec(num_items, config.model, config.loss, seed=config.training.seed)


def train(
    model: SASRec,
    histories: Histories,
    config: Config,
    validate: Validate | None = None,
    *,
    also: Sequence[Histories | npt.NDArray[Any]] = (),
    session: Session = Session(),
) -> Curves:
    """Trains the model in place; it ends with the best weights by validation NDCG@10.

    Without validation it ends with the last weights, or with their running average.

    Args:
        model: from `build_model`.
        histories: the training histories, over the vocabulary of the model.
        config: loss, batches, optimizer and seed.
        validate: measures the model; its `ndcg@10` decides.
        also: whatever else must be the same when the training is resumed.
        session: checkpoints, progress and logs.

    Raises:
        TrainingError: nothing to train on, a checkpoint that does not fit, or a loss that diverged.
        OutputError: a checkpoint or log cannot be written.
        Interrupted: Ctrl-C, after a checkpoint was written.
    """
    batches = PackedBatches(histories, config)
    if model.log_expected is not None:
        model.log_expected.assign(batches.sampler.log_expected)
    model.compile(optimizer=_optimizer(config, batches.batches_per_epoch, model.num_items))
    model.optimizer.build(model.trainable_variables)
    inputs = checkpoint.Inputs.of(config, *((histories, *also) if session.checkpoint else ()))
    progress = Progress()
    if session.checkpoint and session.resume:
        progress = checkpoint.load(session.checkpoint, model, inputs)
    with ExitStack() as stack:
        callbacks: list[keras.callbacks.Callback] = [
            _Epochs(batches, config.training, progress, validate)
        ]
        if (tell := session.on_epoch) is not None:
            told = keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: tell(progress.standing.curves[-1])
            )
            callbacks.append(told)
        if session.csv_log:
            callbacks.append(CSVLog(session.csv_log, progress.standing))
        if session.tensorboard:
            callbacks.append(TensorBoardLog(session.tensorboard))
        if session.show_progress:
            display = ProgressDisplay(batches, config.training.epochs)
            callbacks.append(stack.enter_context(display))
        if session.checkpoint:
            interruption = stack.enter_context(_Interruption())
            saver = _Checkpoints(batches, progress, session, inputs, interruption)
            saver.set_model(model)  # it saves at the end even where no epoch is left
            callbacks.append(saver)
        _fit(model, batches, config.training, progress, callbacks)
        if session.checkpoint:
            saver.save()
    if progress.best_weights:
        load_weights(model, progress.best_weights)
    else:
        take_averages(model)
    standing = progress.standing
    return Curves(standing.curves, standing.best_epoch, standing.epoch < config.training.epochs)


def _fit(
    model: SASRec,
    batches: PackedBatches,
    config: TrainingConfig,
    progress: Progress,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """`model.fit`, epoch by epoch, from where the progress stands."""
    standing = progress.standing
    while standing.epoch < config.epochs and not _is_stale(progress, config):
        batches.start_at(standing.epoch, standing.batch)
        model.fit(
            batches,
            initial_epoch=standing.epoch,
            epochs=standing.epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )


def _is_stale(progress: Progress, config: TrainingConfig) -> bool:
    return config.patience is not None and progress.standing.stale >= config.patience


def touches_rows(config: Config, num_items: int) -> bool:
    """Whether a step updates only the item rows of its batch, as `LazyAdam` does on JAX.

    Full softmax, a penalty and averaged weights touch every row; in a small catalogue so does every
    batch.
    """
    is_jax = keras.backend.backend() == "jax"
    is_of_few = config.loss.is_of_few_items and not config.training.averaging
    return is_jax and is_of_few and num_items >= LAZY_ITEMS


def _optimizer(config: Config, steps_per_epoch: int, num_items: int) -> keras.optimizers.Optimizer:
    """Adam (Kingma & Ba, 2015); its rate rises over the warm-up, then stays or falls by a cosine.

    The warm-up takes a tenth of all steps at most, so that a short training has one in proportion.
    """
    training = config.training
    total = training.epochs * steps_per_epoch
    warmup = min(training.warmup_steps, total // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else training.learning_rate,
        decay_steps=max(1, total - warmup),
        alpha=LAST_RATE if training.schedule == "cosine" else 1.0,
        warmup_target=training.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    settings = {"learning_rate": rate, "beta_2": training.beta_2}
    if training.averaging:
        return AveragingAdam(**settings, use_ema=True, ema_momentum=training.averaging)
    adam = LazyAdam if touches_rows(config, num_items) else keras.optimizers.Adam
    return adam(**settings)


class _Epochs(keras.callbacks.Callback):
    """Restores the running loss, validates where that is due, and keeps the best weights."""

    def __init__(
        self,
        batches: PackedBatches,
        config: TrainingConfig,
        progress: Progress,
        validate: Validate | None,
    ) -> None:
        super().__init__()
        self.batches = batches
        self.config = config
        self.progress = progress
        self.validate = validate

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.progress.running_loss:
            running = checkpoint.running_loss(self.model)
            for variable, value in zip(running, self.progress.running_loss, strict=True):
                variable.assign(value)
            self.progress.running_loss = []
        self.progress.began_at = time.perf_counter() - self.progress.standing.seconds

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs if logs is not None else {}
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss of epoch {epoch + 1} is {logs['loss']}: the training diverged; lower "
                "learning_rate"
            )
        standing = self.progress.standing
        standing.epoch, standing.batch, standing.seconds = epoch + 1, 0, 0.0
        logs["seconds"] = time.perf_counter() - self.progress.began_at
        is_last = epoch + 1 == self.config.epochs
        if self.validate and (is_last or (epoch + 1) % self.config.validate_every == 0):
            with averaged(self.model):
                logs.update(self.validate())
                self._judge(epoch + 1, logs[SCORE])
        standing.curves.append({"epoch": epoch + 1, **{k: float(v) for k, v in logs.items()}})

    def _judge(self, epoch: int, score: float) -> None:
        standing = self.progress.standing
        if standing.best_score is None or score > standing.best_score:
            standing.best_score, standing.best_epoch, standing.stale = float(score), epoch, 0
            self.progress.best_weights = weights_of(self.model)
        else:
            standing.stale += 1


class _Interruption:
    """While it lasts, the first Ctrl-C asks for a stop after the batch; the second is immediate."""

    def __init__(self) -> None:
        self.is_asked = False
        self._is_installed = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "_Interruption":
        if self._is_installed:
            self._previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, self._previous)

    def _ask(self, number: int, frame: Any) -> None:
        self.is_asked = True
        signal.signal(number, self._previous)


class _Checkpoints(keras.callbacks.Callback):
    """Saves the training now and then, and when it is interrupted."""

    def __init__(
        self,
        batches: PackedBatches,
        progress: Progress,
        session: Session,
        inputs: checkpoint.Inputs,
        interruption: _Interruption,
    ) -> None:
        super().__init__()
        self.batches = batches
        self.progress = progress
        self.session = session
        self.inputs = inputs
        self.interruption = interruption
        self.saved_at = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = self.batches.first_batch + batch + 1
        if done == self.batches.batches_per_epoch:
            return  # the end of the epoch follows
        if self.interruption.is_asked or self._is_time():
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()
            standing = self.progress.standing
            standing.batch = done
            standing.seconds = time.perf_counter() - self.progress.began_at
            self.save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        every = self.session.checkpoint_every_epochs
        is_due = every is not None and (epoch + 1) % every == 0
        if self.interruption.is_asked or self._is_time() or is_due:
            self.save()

    def save(self) -> None:
        """Writes the checkpoint; ends the training where an interruption is asked for."""
        assert self.session.checkpoint is not None
        checkpoint.save(self.session.checkpoint, self.model, self.progress, self.inputs)
        self.saved_at = time.monotonic()
        if self.interruption.is_asked:
            standing = self.progress.standing
            where = (
                f"in epoch {standing.epoch + 1}"
                if standing.batch
                else (f"after epoch {standing.epoch}")
            )
            raise Interrupted(
                f"stopped {where} and saved to {self.session.checkpoint}; the same command with "
                "--resume goes on from there"
            )

    def _is_time(self) -> bool:
        return time.monotonic() - self.saved_at >= self.session.checkpoint_every_s
