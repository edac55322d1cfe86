"""`tune`: trials of a preset with other values, kept in a study that outlives the process.

Only the validation part is measured; nothing here reads the test part.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from optuna import Study, Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from segue.config import Config
from segue.data.items import Catalogue
from segue.data.splits import HeldOut, Split
from segue.errors import Interrupted, RequestError, TrainingError
from segue.fitting import fit
from segue.training.checkpoint import Inputs
from segue.training.loop import SCORE
from segue.training.options import Session
from segue.tuning.space import Choice, Range, Value, space_of, values_of, with_values
from segue.tuning.study import open_study

# Random ones, before the density estimate has something to go by.
RANDOM_TRIALS = 5
# No trial is pruned before so many are finished, nor in the first part of its epochs, when the
# rate has hardly begun to fall.
UNPRUNED_TRIALS, UNPRUNED_PART = 4, 1 / 3

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
IS_PRESET, EPOCHS, SECONDS, ERROR = "is_preset", "epochs", "seconds", "error"


@dataclass(frozen=True)
class Budget:
    """How long to search.

    Attributes:
        trials: Finished and pruned ones, those of earlier searches in the study among them.
        minutes: Of this search; looked at after every epoch.

    Raises:
        RequestError: There is nothing to spend.
    """

    trials: int
    minutes: float

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise RequestError(f"trials={self.trials} tries nothing; give at least 1")
        if not self.minutes > 0:
            raise RequestError(f"minutes={self.minutes} is no time; give a number above 0")


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        config: The configuration that validated best.
        default: The preset's NDCG@10 on the validation part.
        best: That of `config`; never below `default`.
        changes: For each field that differs, the preset's value and the one found.
        finished: Trials that went on to their last epoch.
        pruned: Trials that were given up.
        is_time_up: Whether the time ended before the trials did.
    """

    config: Config
    default: float
    best: float
    changes: Mapping[str, tuple[Value, Value]]
    finished: int
    pruned: int
    is_time_up: bool


class _CutOffError(Exception):
    """A trial ends before its last epoch.

    Attributes:
        state: What it is in the study from then on.
        why: In words.
    """

    def __init__(self, state: TrialState, why: str) -> None:
        super().__init__(why)
        self.state = state
        self.why = why


def tune(
    split: Split,
    *,
    preset: Config,
    budget: Budget,
    study: Path,
    validation: HeldOut | None = None,
    items: Catalogue | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Found:
    """Search for the values of a preset's few important fields that validate best by NDCG@10.

    The preset itself is the first trial. The others are proposed by a tree-structured Parzen
    estimator and given up where their best so far falls behind the median of the trials before them
    at the same epoch. A trial that was cut off, by a kill or by the time, is made again with the
    same values.

    Sources: Bergstra, Bardenet, Bengio and Kégl, "Algorithms for hyper-parameter optimization",
    NeurIPS 2011; Golovin et al., "Google Vizier: a service for black-box optimization", KDD 2017,
    section 3.2.2, for the median rule, which there compares averages so far.

    Args:
        split: What trains and what validates; its test part is not looked at.
        preset: Where the search begins.
        budget: How long it goes on.
        study: A SQLite file, made where it is missing, else gone on with.
        validation: Who validates; by default the split's whole validation part.
        items: Titles and other columns of the items.
        tell: Called with one line for every trial.

    Raises:
        RequestError: Nothing is held out for validation, or the time ended before the preset's own
            trial did.
        DataError: The study is of another log, split or preset.
        OutputError: The study cannot be written, or is no study.
        TrainingError: The preset itself cannot be trained.
        Interrupted: Ctrl-C; what was finished is in the study.
    """
    held_out = validation or split.validation
    if held_out is None:
        raise RequestError(
            f"the split {split.kind} holds nothing out for validation, which a search goes by; "
            f"choose leave-one-out or global-time"
        )
    inputs = Inputs.of(
        preset,
        [
            split.histories,
            split.parts,
            held_out.histories,
            held_out.targets,
            np.array([split.repeats]),
        ],
        preset.model.wants,
    )

    def train(config: Config, session: Session) -> None:
        fit(split.train, validation=held_out, items=items, preset=config, session=session)

    with open_study(study, inputs) as opened:
        search = _Search(opened, preset, budget, tell)
        try:
            while search.is_open:
                search.attempt(train)
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped; {search.done} trials are in {study}, and the same command goes on"
            ) from None
        return search.found()


class _Search:
    """Trials of one preset in one study, until the budget is spent."""

    def __init__(
        self,
        study: Study,
        preset: Config,
        budget: Budget,
        tell: Callable[[str], None],
    ) -> None:
        self._study = study
        self._preset = preset
        self._space = space_of(preset)
        self._budget = budget
        self._tell = tell
        self._deadline = time.monotonic() + budget.minutes * 60
        study.pruner = MedianPruner(
            n_startup_trials=UNPRUNED_TRIALS,
            n_warmup_steps=int(preset.training.epochs * UNPRUNED_PART),
        )

    @property
    def done(self) -> int:
        """Trials that need not be made again."""
        return len(self._trials(*DONE))

    @property
    def is_open(self) -> bool:
        """Whether trials and time are left."""
        return self.done < self._budget.trials and not self._is_time_up()

    def attempt(self, train: Callable[[Config, Session], None]) -> None:
        """One trial, whose outcome is always recorded in the study."""
        place, trial = self.done, self._proposed()
        started = time.monotonic()
        watch = _Watch(trial, self._preset.training.epochs, self._is_time_up)
        try:
            train(with_values(self._preset, trial.params), Session(on_epoch=watch))
        except _CutOffError as cut:
            state, what = cut.state, cut.why
        except TrainingError as error:
            if place == 0:
                self._end(trial, TrialState.FAIL)
                raise
            state, what = TrialState.PRUNED, f"pruned: {error}"
            trial.set_user_attr(ERROR, str(error))
        except Exception:
            # It would fail again; but the search cannot do without the preset's own trial.
            self._end(trial, TrialState.PRUNED if place else TrialState.FAIL)
            raise
        except BaseException:
            self._end(trial, TrialState.FAIL)
            raise
        else:
            state, what = TrialState.COMPLETE, "finished"
        seconds = time.monotonic() - started
        trial.set_user_attr(EPOCHS, watch.epochs)
        trial.set_user_attr(SECONDS, seconds)
        self._study.tell(trial, watch.best if state is TrialState.COMPLETE else None, state)
        score = "no NDCG@10" if watch.best is None else f"NDCG@10 {watch.best:.4f}"
        self._tell(f"trial {place + 1} of {self._budget.trials}: {score}, {what} ({seconds:.0f} s)")

    def found(self) -> Found:
        """The best of the trials that were finished.

        Raises:
            RequestError: Not even the preset's own was.
        """
        finished = self._trials(TrialState.COMPLETE)
        if not finished:
            raise RequestError(
                f"{self._budget.minutes:g} minutes were not enough for one trial; give more minutes"
            )
        (default,) = (each for each in finished if each.user_attrs.get(IS_PRESET))
        best = max(finished, key=lambda each: (_score(each), -each.number))
        own = values_of(self._preset, self._space)
        return Found(
            config=with_values(self._preset, best.params),
            default=_score(default),
            best=_score(best),
            changes={
                name: (own[name], value)
                for name, value in best.params.items()
                if value != own[name]
            },
            finished=len(finished),
            pruned=len(self._trials(TrialState.PRUNED)),
            is_time_up=self.done < self._budget.trials,
        )

    def _proposed(self) -> Trial:
        """The next trial; the same again where one was cut off, because the seed is its place's."""
        place = self.done
        seed = self._preset.training.seed + place
        self._study.sampler = TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)
        if place == 0 and not self._trials(TrialState.WAITING):
            own = values_of(self._preset, self._space)
            self._study.enqueue_trial(own, user_attrs={IS_PRESET: True})
        return self._study.ask({name: _distribution(of) for name, of in self._space.items()})

    def _end(self, trial: Trial, state: TrialState) -> None:
        self._study.tell(trial, state=state, skip_if_finished=True)

    def _is_time_up(self) -> bool:
        return time.monotonic() >= self._deadline

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)


class _Watch:
    """Follows a training epoch by epoch, and ends it where it falls behind or the time is up."""

    def __init__(self, trial: Trial, epochs: int, is_time_up: Callable[[], bool]) -> None:
        self._trial = trial
        self._last_epoch = epochs
        self._is_time_up = is_time_up
        self.best: float | None = None
        self.epochs = 0

    def __call__(self, measures: Mapping[str, float]) -> None:
        self.epochs = int(measures["epoch"])
        if SCORE in measures:
            self.best = max(measures[SCORE], self.best or 0.0)
            self._trial.report(measures[SCORE], self.epochs)
        if self.epochs == self._last_epoch:
            return  # nothing is left to save
        if SCORE in measures and self._trial.should_prune():
            raise _CutOffError(TrialState.PRUNED, f"pruned after epoch {self.epochs}")
        if self._is_time_up():
            raise _CutOffError(TrialState.FAIL, "cut off: the time is up")


def _score(trial: FrozenTrial) -> float:
    assert trial.value is not None  # it was finished
    return trial.value


def _distribution(of: Range | Choice) -> BaseDistribution:
    if isinstance(of, Range):
        return FloatDistribution(of.low, of.high, log=of.is_log)
    return CategoricalDistribution(of.values)
