"""`train`: compile, fit, validate, stop early, checkpoint and resume."""

import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from segue.config import Config, TrainingConfig
from segue.data.histories import Histories
from segue.errors import Interrupted
from segue.model.sasrec import SASRec
from segue.model.weights import load_weights, weights_of
from segue.training import checkpoint
from segue.training.batches import PackedBatches
from segue.training.checkpoint import Progress
from segue.training.display import ProgressDisplay
from segue.training.logs import log_callbacks

# What early stopping and the choice of the best weights go by.
SCORE = "ndcg@10"

# Measures the model on the validation part; told whether to rank or only to take the loss.
Validate = Callable[[bool], Mapping[str, float]]


@dataclass(frozen=True)
class Session:
    """How to run a training, apart from what it learns.

    Attributes:
        checkpoint: the directory of the checkpoint; None writes none.
        checkpoint_every_s: seconds between checkpoints.
        checkpoint_every_epochs: also after every so many epochs; None: by time alone.
        resume: go on from the checkpoint.
        show_progress: a bar on a terminal, lines elsewhere, on standard error.
        csv_log: a file for one line an epoch.
        tensorboard: a directory for TensorBoard's events.
    """

    checkpoint: Path | None = None
    checkpoint_every_s: float = 120.0
    checkpoint_every_epochs: int | None = None
    resume: bool = False
    show_progress: bool = False
    csv_log: Path | None = None
    tensorboard: Path | None = None


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
    validation: Histories | None = None,
    session: Session = Session(),
) -> Curves:
    """Trains the model in place; it ends with the best weights by validation NDCG@10.

    Without validation it ends with the last weights.

    Args:
        model: from `build_model`.
        histories: the training histories, over the vocabulary of the model.
        config: loss, batches, optimizer and seed.
        validate: measures the model; its `ndcg@10` decides.
        validation: what `validate` measures on, for the checkpoint's fingerprint.
        session: checkpoints, progress and logs.

    Raises:
        TrainingError: nothing to train on, or a checkpoint that does not fit.
        Interrupted: Ctrl-C, after a checkpoint was written.
    """
    batches = PackedBatches(histories, config, config.model.max_length)
    if model.log_expected is not None:
        model.log_expected.assign(batches.sampler.log_expected)
    model.compile(optimizer=_optimizer(config.training, batches.batches_per_epoch))
    model.optimizer.build(model.trainable_variables)
    progress, inputs = Progress(), ""
    if session.checkpoint:
        inputs = checkpoint.fingerprint(config, histories, validation)
        if session.resume:
            progress = checkpoint.load(session.checkpoint, model, inputs)
    callbacks = _callbacks(batches, config, progress, validate, session, inputs)
    with _Interruption(enabled=session.checkpoint is not None) as interruption:
        for callback in callbacks:
            if isinstance(callback, _Checkpoints):
                callback.interruption = interruption
        _fit(model, batches, config.training.epochs, progress, callbacks)
    if progress.best_weights:
        load_weights(model, progress.best_weights)
    stopped_early = progress.epoch < config.training.epochs
    return Curves(progress.curves, progress.best_epoch, stopped_early)


def _fit(
    model: SASRec,
    batches: PackedBatches,
    epochs: int,
    progress: Progress,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """`model.fit` from where the progress stands: the rest of an epoch, then whole epochs."""
    stages = [(progress.epoch, epochs)]
    if progress.batch:
        stages = [(progress.epoch, progress.epoch + 1), (progress.epoch + 1, epochs)]
    for first, stop in stages:
        if first < stop and not model.stop_training:
            batches.start_at(first, progress.batch)
            model.fit(
                batches,
                initial_epoch=first,
                epochs=stop,
                shuffle=False,
                verbose=0,
                callbacks=callbacks,
            )


def _optimizer(config: TrainingConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Adam (Kingma & Ba, 2015), its rate constant or warmed up and decayed to 2% by a cosine."""
    rate: Any = config.learning_rate
    total = config.epochs * steps_per_epoch
    warmup = min(config.warmup_steps, total // 10)
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            decay_steps=max(1, total - warmup),
            alpha=0.02,
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    return keras.optimizers.Adam(learning_rate=rate, beta_2=config.beta_2)


def _callbacks(
    batches: PackedBatches,
    config: Config,
    progress: Progress,
    validate: Validate | None,
    session: Session,
    inputs: str,
) -> list[keras.callbacks.Callback]:
    """In the order in which they must see the end of an epoch."""
    callbacks = [_Epochs(batches, config.training, progress, validate)]
    callbacks += log_callbacks(session.csv_log, session.tensorboard, append=session.resume)
    if session.show_progress:
        callbacks.append(ProgressDisplay(batches, config.training.epochs))
    if session.checkpoint:
        callbacks.append(_Checkpoints(batches, progress, session, inputs))
    return callbacks


class _Epochs(keras.callbacks.Callback):
    """Orders the batches of each epoch, validates after it, and keeps the best weights."""

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
        self.started = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.batches.epoch != epoch:
            self.batches.start_at(epoch, 0)
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs if logs is not None else {}
        progress = self.progress
        progress.epoch, progress.batch = epoch + 1, 0
        logs["seconds"] = time.perf_counter() - self.started
        if self.validate:
            is_last = epoch + 1 == self.config.epochs
            is_due = (epoch + 1) % self.config.validate_every == 0 or is_last
            logs.update(self.validate(is_due))
            if is_due:
                self._judge(epoch + 1, logs[SCORE])
        progress.curves.append({"epoch": epoch + 1, **{k: float(v) for k, v in logs.items()}})

    def _judge(self, epoch: int, score: float) -> None:
        progress = self.progress
        if progress.best_score is None or score > progress.best_score:
            progress.best_score, progress.best_epoch, progress.stale = score, epoch, 0
            progress.best_weights = weights_of(self.model)
            return
        progress.stale += 1
        if self.config.patience and progress.stale >= self.config.patience:
            self.model.stop_training = True


class _Checkpoints(keras.callbacks.Callback):
    """Saves the training now and then, and when it is interrupted."""

    def __init__(
        self, batches: PackedBatches, progress: Progress, session: Session, inputs: str
    ) -> None:
        super().__init__()
        self.batches = batches
        self.progress = progress
        self.session = session
        self.inputs = inputs
        self.interruption: _Interruption | None = None
        self.saved_at = time.monotonic()
        self.resumed_at = progress.batch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not self.resumed_at:
            return
        # Keras has just reset the running loss; the checkpoint's goes on where it stood.
        assert self.session.checkpoint is not None
        checkpoint.load(self.session.checkpoint, self.model, self.inputs)
        self.resumed_at = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = self.batches.first_batch + batch + 1
        if done == self.batches.batches_per_epoch:
            return  # the end of the epoch follows
        if self._is_interrupted() or self._is_time():
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()
            self.progress.epoch, self.progress.batch = self.batches.epoch, done
            self._save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        every = self.session.checkpoint_every_epochs
        if self._is_interrupted() or self._is_time() or (every and (epoch + 1) % every == 0):
            self._save()

    def _is_time(self) -> bool:
        return time.monotonic() - self.saved_at >= self.session.checkpoint_every_s

    def _is_interrupted(self) -> bool:
        return self.interruption is not None and self.interruption.is_asked

    def _save(self) -> None:
        assert self.session.checkpoint is not None
        checkpoint.save(self.session.checkpoint, self.model, self.progress, self.inputs)
        self.saved_at = time.monotonic()
        if self._is_interrupted():
            raise Interrupted(
                f"stopped in epoch {self.progress.epoch + 1} and saved to "
                f"{self.session.checkpoint}; the same command with --resume goes on from there"
            )


class _Interruption:
    """While it lasts, the first Ctrl-C asks for a stop after the batch; the second is immediate."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled and threading.current_thread() is threading.main_thread()
        self.is_asked = False

    def __enter__(self) -> "_Interruption":
        if self.enabled:
            self.previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        if self.enabled:
            signal.signal(signal.SIGINT, self.previous)

    def _ask(self, number: int, frame: Any) -> None:
        self.is_asked = True
        signal.signal(number, self.previous)
