"""`train`: epoch after epoch of steps; validate, stop early, checkpoint and resume."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.config import Config, DrawnLossConfig
from segue.data.histories import Histories
from segue.errors import Interrupted, TrainingError
from segue.files import claimed
from segue.model.negatives import NegativeSampler
from segue.model.sequence_model import SequenceModel
from segue.model.weights import load_weights, named_variables, to_numpy, weights_of
from segue.training import checkpoint
from segue.training.batches import Batches
from segue.training.checkpoint import Inputs, Progress
from segue.training.display import ProgressDisplay
from segue.training.interruption import Interruption
from segue.training.observers import CSVLog, Listener, Observer, TensorBoardLog
from segue.training.options import Session
from segue.training.plan import Plan
from segue.training.steps import Step, make_step

# What early stopping and the choice of the best weights go by.
SCORE = "ndcg@10"

# Measures the model on the validation part: `ndcg@10`, and whatever else the curves are to hold.
Validate = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Curves:
    """What a training measured, epoch by epoch, and which epoch's weights were kept."""

    epochs: list[dict[str, float]]
    best_epoch: int | None
    stopped_early: bool


def train(
    model: SequenceModel,
    histories: Histories,
    config: Config,
    validate: Validate | None = None,
    *,
    plan: Plan | None = None,
    also: Sequence[Histories | npt.NDArray[Any]] = (),
    session: Session = Session(),  # noqa: B008 - frozen
) -> Curves:
    """Trains the model in place; it ends with the best weights by validation NDCG@10.

    Without validation it ends with the last weights, or with their running average.

    Args:
        model: from `build_model`.
        histories: the training histories, over the vocabulary of the model.
        config: loss, batches, optimizer and seed.
        validate: measures the model; its `ndcg@10` decides.
        plan: of these histories; made here where it is not given.
        also: whatever else must be the same when the training is resumed.
        session: checkpoints, progress and logs.

    Raises:
        TrainingError: nothing to train on, a checkpoint that does not fit, or a loss that diverged.
        OutputError: a checkpoint or log cannot be written, or another training writes it.
        Interrupted: Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    with _checkpoint_claimed(session.checkpoint):
        return _train(model, histories, config, validate, plan, also, session)


def _train(
    model: SequenceModel,
    histories: Histories,
    config: Config,
    validate: Validate | None,
    plan: Plan | None,
    also: Sequence[Histories | npt.NDArray[Any]],
    session: Session,
) -> Curves:
    """`train`, while no other training saves to the same checkpoint."""
    plan = plan or Plan.of(histories, config)
    sampler = None
    if isinstance(config.loss, DrawnLossConfig):
        sampler = NegativeSampler.of(config.loss, histories)
        if model.log_expected is not None:
            model.log_expected.assign(sampler.log_expected)
    batches = Batches(histories, config, plan, sampler, model.wants)
    step = make_step(model, config, plan)
    progress, inputs = Progress(), None
    if session.checkpoint:
        inputs = Inputs.of(config, [histories, *also, *_frozen_content(model)], model.wants)
        if session.resume:
            shapes = {name: tuple(each.shape) for name, each in named_variables(model).items()}
            progress = checkpoint.load(session.checkpoint, step, shapes, inputs)
    with ExitStack() as stack:
        observers = []
        for observer in _observers(session, plan, config):
            stack.callback(observer.close)
            observers.append(observer)
        interruption = stack.enter_context(Interruption() if inputs else nullcontext())
        saver = None
        if inputs is not None and interruption is not None:
            saver = _Saver(session, step, progress, inputs, interruption)
        loop = _Loop(model, step, batches, plan, validate, progress, observers, saver)
        loop.run()
        if saver:
            saver.save()
    if progress.best_weights:
        load_weights(model, progress.best_weights)
    else:
        step.to_model(averaged=True)
    standing = progress.standing
    return Curves(standing.curves, standing.best_epoch, standing.epoch < config.training.epochs)


@contextmanager
def _checkpoint_claimed(directory: Path | None) -> Iterator[None]:
    """Keep a checkpoint's directory, if there is one, for this training while the block runs."""
    with ExitStack() as stack:
        if directory is not None:
            try:
                stack.enter_context(claimed(directory))
            except OSError as error:
                raise checkpoint.cannot_write(directory, error) from error
        yield


def _observers(session: Session, plan: Plan, config: Config) -> Iterator[Observer]:
    """Those that the session asks for, each made when it is asked for."""
    if session.on_epoch is not None:
        yield Listener(session.on_epoch)
    if session.csv_log:
        yield CSVLog(session.csv_log)
    if session.tensorboard:
        yield TensorBoardLog(session.tensorboard)
    if session.show_progress:
        yield ProgressDisplay(plan, config.training.epochs)


def _frozen_content(model: SequenceModel) -> list[npt.NDArray[Any]]:
    """What the item tower took from the catalogue and does not train."""
    arrays = model.tower.arrays().values()
    return [to_numpy(variable) for variable in arrays if not variable.trainable]


class _Saver:
    """Saves the training now and then, and when it is interrupted."""

    def __init__(
        self,
        session: Session,
        step: Step,
        progress: Progress,
        inputs: Inputs,
        interruption: Interruption,
    ) -> None:
        self._session = session
        self._step = step
        self._progress = progress
        self._inputs = inputs
        self._interruption = interruption
        self._saved_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether a signal or the time asks for a checkpoint."""
        is_time = time.monotonic() - self._saved_at >= self._session.checkpoint_every_s
        return self._interruption.signal is not None or is_time

    def is_due_after(self, epoch: int) -> bool:
        """Whether a checkpoint is due after that epoch, counted from 1."""
        every = self._session.checkpoint_every_epochs
        return self.is_due or (every is not None and epoch % every == 0)

    def save(self) -> None:
        """Writes the checkpoint; ends the training where a signal asks for it.

        Raises:
            Interrupted: It does.
            OutputError: The checkpoint cannot be written.
        """
        directory = self._session.checkpoint
        assert directory is not None
        checkpoint.save(directory, self._step, self._progress, self._inputs)
        self._saved_at = time.monotonic()
        if self._interruption.signal is None:
            return
        standing = self._progress.standing
        where = (
            f"in epoch {standing.epoch + 1}" if standing.batch else f"after epoch {standing.epoch}"
        )
        raise Interrupted(
            f"stopped {where} and saved to {directory}; the same command with --resume goes on "
            "from there",
            self._interruption.signal,
        )


class _Loop:
    """Goes through the epochs that are left."""

    def __init__(
        self,
        model: SequenceModel,
        step: Step,
        batches: Batches,
        plan: Plan,
        validate: Validate | None,
        progress: Progress,
        observers: Sequence[Observer],
        saver: _Saver | None,
    ) -> None:
        self._model = model
        self._step = step
        self._batches = batches
        self._plan = plan
        self._config = plan.config.training
        self._validate = validate
        self._progress = progress
        self._standing = progress.standing
        self._observers = observers
        self._saver = saver

    def run(self) -> None:
        """Until the last epoch, or until validation has not got better for long enough."""
        while self._standing.epoch < self._config.epochs and not self._is_stale:
            self._run_epoch()
            self._judge_epoch()
            for observer in self._observers:
                observer.on_epoch_end(self._standing.curves)
            if self._saver and self._saver.is_due_after(self._standing.epoch):
                self._saver.save()

    @property
    def _is_stale(self) -> bool:
        patience = self._config.patience
        return patience is not None and self._standing.stale >= patience

    def _run_epoch(self) -> None:
        """The batches that the epoch has left."""
        standing = self._standing
        first = standing.batch
        began_at = time.perf_counter() - standing.seconds
        for observer in self._observers:
            observer.on_epoch_start(standing.epoch + 1, first)
        total: Any = np.float32(standing.loss)
        epoch_batches = self._batches.of_epoch(standing.epoch, first)
        for done, batch in enumerate(epoch_batches, start=first + 1):
            total = total + self._step.run(batch)
            for observer in self._observers:
                observer.on_step(done, partial(_average, total, done))
            is_last = done == self._plan.batches_per_epoch  # the epoch's end follows
            if self._saver and not is_last and self._saver.is_due:
                self._refuse_divergence(standing.epoch + 1, {"loss": float(total)})
                standing.batch, standing.loss = done, float(total)
                standing.seconds = time.perf_counter() - began_at
                self._saver.save()
        loss = _average(total, self._plan.batches_per_epoch)
        seconds = time.perf_counter() - began_at
        standing.epoch, standing.batch = standing.epoch + 1, 0
        standing.seconds, standing.loss = 0.0, 0.0
        standing.curves.append({"epoch": standing.epoch, "loss": loss, "seconds": seconds})

    def _judge_epoch(self) -> None:
        """Refuses an epoch that diverged; validates, and keeps the best weights.

        Raises:
            TrainingError: The loss, or what validation measured, is not finite.
        """
        standing = self._standing
        measures = standing.curves[-1]
        self._refuse_divergence(standing.epoch, measures)
        is_last = standing.epoch == self._config.epochs
        if not (self._validate and (is_last or standing.epoch % self._config.validate_every == 0)):
            return
        self._step.to_model(averaged=True)
        measured = {name: float(value) for name, value in self._validate().items()}
        self._refuse_divergence(standing.epoch, measured)
        measures.update(measured)
        score = measured[SCORE]
        if standing.best_score is None or score > standing.best_score:
            standing.best_score, standing.best_epoch = score, standing.epoch
            standing.stale = 0
            self._progress.best_weights = weights_of(self._model)
        else:
            standing.stale += 1

    @staticmethod
    def _refuse_divergence(epoch: int, measures: Mapping[str, float]) -> None:
        """Refuses what no checkpoint and no run can hold, and no training recovers from."""
        for name, value in measures.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"the {name} of epoch {epoch} is {value}: the training diverged; lower "
                    "learning_rate"
                )


def _average(total: Any, count: int) -> float:
    """The average of `count` losses; waits for the last."""
    return float(total) / count
