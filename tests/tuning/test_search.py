"""Searches whose trainings are stand-ins with known curves, and one whose are real."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import segue
from segue.config import Config, ModelConfig, TrainingConfig
from segue.data.splits import Split
from segue.errors import DataError, Interrupted, OutputError, RequestError, TrainingError
from segue.tuning import search
from segue.tuning.search import Budget, tune

EPOCHS = 6
PRESET = Config(
    model=ModelConfig(max_length=20, width=16),
    training=TrainingConfig(epochs=EPOCHS, batch_size=32, validate_every=1),
)
LONG = 60.0


@pytest.fixture(scope="module")
def split(log_file: Path) -> Split:
    return segue.leave_one_out(segue.read_log(log_file))


class Trainings:
    """Trainings that take no time; the best ones have a dropout near 0.5."""

    def __init__(self) -> None:
        self.asked: list[Config] = []
        self.epochs: list[int] = []
        self.at: Callable[[int, int], None] = lambda training, epoch: None

    def __call__(self, split: Split, *, preset: Config, session: Any, **options: Any) -> None:
        self.asked.append(preset)
        self.epochs.append(0)
        height = 1 - abs(preset.model.dropout - 0.5)
        for epoch in range(1, EPOCHS + 1):
            self.at(len(self.asked), epoch)
            self.epochs[-1] = epoch
            session.on_epoch({"epoch": epoch, "ndcg@10": height * epoch / EPOCHS})


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    made = Trainings()
    monkeypatch.setattr(search, "fit", made)
    return made


def states(path: Path) -> list[TrialState]:
    study = optuna.load_study(study_name="segue", storage=f"sqlite:///{path}")
    return [trial.state for trial in study.get_trials()]


def test_the_preset_is_tried_first_and_the_best_is_never_worse(
    split: Split, trainings: Trainings, tmp_path: Path
) -> None:
    found = tune(split, preset=PRESET, budget=Budget(15, LONG), study=tmp_path / "s.db")
    assert trainings.asked[0] == PRESET
    assert found.default == pytest.approx(1 - abs(0.3 - 0.5))
    assert found.best == max(1 - abs(each.model.dropout - 0.5) for each in trainings.asked)
    assert found.best > found.default
    assert found.config in trainings.asked
    assert found.changes["dropout"] == (0.3, found.config.model.dropout)
    assert (found.finished + found.pruned, found.is_time_up) == (15, False)


def test_trials_behind_the_median_are_pruned_and_never_the_first(
    split: Split, trainings: Trainings, tmp_path: Path
) -> None:
    told: list[str] = []
    budget = Budget(15, LONG)
    found = tune(split, preset=PRESET, budget=budget, study=tmp_path / "s.db", tell=told.append)
    pruned = [epochs for epochs in trainings.epochs if epochs < EPOCHS]
    assert found.pruned == len(pruned) > 0
    assert trainings.epochs[:4] == [EPOCHS] * 4
    assert min(pruned) >= EPOCHS // 3
    assert sum("pruned after epoch" in line for line in told) == found.pruned
    assert told[0].startswith("trial 1 of 15: NDCG@10 0.8000, finished")


def test_a_search_goes_on_where_it_ended(
    split: Split, trainings: Trainings, tmp_path: Path
) -> None:
    whole = tune(split, preset=PRESET, budget=Budget(9, LONG), study=tmp_path / "whole.db")
    at_once = trainings.asked.copy()
    trainings.asked.clear()
    path = tmp_path / "parts.db"
    for trials in (2, 5, 9, 9):
        found = tune(split, preset=PRESET, budget=Budget(trials, LONG), study=path)
    assert trainings.asked == at_once
    assert found == whole


@pytest.mark.parametrize("killed", [1, 3])
def test_a_trial_that_was_cut_off_has_failed_and_is_made_again(
    split: Split, trainings: Trainings, tmp_path: Path, killed: int
) -> None:
    def stop(training: int, epoch: int) -> None:
        if (training, epoch) == (killed, 2):
            raise KeyboardInterrupt

    trainings.at = stop
    path = tmp_path / "s.db"
    with pytest.raises(Interrupted, match=f"{killed - 1} trials are in .*the same command goes on"):
        tune(split, preset=PRESET, budget=Budget(4, LONG), study=path)
    found = tune(split, preset=PRESET, budget=Budget(4, LONG), study=path)
    assert trainings.asked[killed - 1] == trainings.asked[killed]
    assert len(trainings.asked) == 5
    assert found.finished + found.pruned == 4
    assert states(path).count(TrialState.FAIL) == 1
    assert found.default == pytest.approx(0.8)


@pytest.mark.slow
def test_a_search_that_was_killed_loses_nothing_that_was_finished(
    split: Split, trainings: Trainings, log_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.db"
    program = f"""
        import time, segue
        from pathlib import Path
        from segue.tuning import search
        from tests_search import PRESET, Trainings
        made = Trainings()
        def at(training, epoch):
            if training == 3:
                Path({str(tmp_path / "third")!r}).touch()
                time.sleep(600)
        made.at = at
        search.fit = made
        split = segue.leave_one_out(segue.read_log({str(log_file)!r}))
        search.tune(
            split, preset=PRESET, budget=search.Budget(4, 60.0), study=Path({str(path)!r})
        )
    """
    (tmp_path / "tests_search.py").write_text(Path(__file__).read_text())
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "third").exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert states(path) == [TrialState.COMPLETE] * 2 + [TrialState.RUNNING]
    tune(split, preset=PRESET, budget=Budget(4, LONG), study=path)
    assert len(trainings.asked) == 2
    assert states(path)[:3] == [TrialState.COMPLETE] * 2 + [TrialState.FAIL]
    assert len(states(path)) == 5


def test_the_time_ends_a_trial_after_its_epoch(
    split: Split, trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def pass_time(training: int, epoch: int) -> None:
        nonlocal now
        now += 10.0

    trainings.at = pass_time
    monkeypatch.setattr(search, "time", SimpleNamespace(monotonic=lambda: now))
    path = tmp_path / "s.db"
    found = tune(split, preset=PRESET, budget=Budget(9, 75 / 60), study=path)
    assert (now, trainings.epochs) == (80.0, [EPOCHS, 2])
    assert found.is_time_up
    assert states(path) == [TrialState.COMPLETE, TrialState.FAIL]
    with pytest.raises(RequestError, match=r"0\.5 minutes were not enough for one trial"):
        tune(split, preset=PRESET, budget=Budget(9, 1 / 2), study=tmp_path / "other.db")


def test_values_that_cannot_be_trained_are_pruned_but_not_the_preset(
    split: Split, trainings: Trainings, tmp_path: Path
) -> None:
    def diverge(training: int, epoch: int) -> None:
        if training == 2:
            raise TrainingError("the training diverged")

    trainings.at = diverge
    told: list[str] = []
    budget = Budget(3, LONG)
    found = tune(split, preset=PRESET, budget=budget, study=tmp_path / "s.db", tell=told.append)
    assert (found.finished, found.pruned, len(trainings.asked)) == (2, 1, 3)
    assert "trial 2 of 3: no NDCG@10, pruned: the training diverged" in told[1]

    def always(training: int, epoch: int) -> None:
        raise TrainingError("the training diverged")

    trainings.at = always
    with pytest.raises(TrainingError, match="diverged"):
        tune(split, preset=PRESET, budget=budget, study=tmp_path / "other.db")


def test_what_crashed_is_not_made_again_but_for_the_preset(
    split: Split, trainings: Trainings, tmp_path: Path
) -> None:
    crashes = {1, 3}

    def crash(training: int, epoch: int) -> None:
        if training in crashes:
            raise RuntimeError("out of the device's memory")

    trainings.at = crash
    path = tmp_path / "s.db"
    for _ in crashes:
        with pytest.raises(RuntimeError, match="the device's memory"):
            tune(split, preset=PRESET, budget=Budget(3, LONG), study=path)
    found = tune(split, preset=PRESET, budget=Budget(3, LONG), study=path)
    assert (found.finished, found.pruned) == (2, 1)
    assert trainings.asked[0] == trainings.asked[1] == PRESET
    assert trainings.asked[2] != trainings.asked[3]


def test_a_trial_that_reached_its_last_epoch_is_finished_though_the_time_is_up(
    split: Split, trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def pass_time(training: int, epoch: int) -> None:
        nonlocal now
        now += 61.0 if epoch == EPOCHS else 0.0

    trainings.at = pass_time
    monkeypatch.setattr(search, "time", SimpleNamespace(monotonic=lambda: now))
    found = tune(split, preset=PRESET, budget=Budget(9, 1.0), study=tmp_path / "s.db")
    assert (found.finished, found.pruned, found.is_time_up) == (1, 0, True)


def test_a_study_of_something_else_is_refused(
    split: Split, trainings: Trainings, tmp_path: Path
) -> None:
    path = tmp_path / "s.db"
    tune(split, preset=PRESET, budget=Budget(1, LONG), study=path)
    with pytest.raises(DataError, match="is of another preset or other settings"):
        tune(split, preset=PRESET.with_settings(["epochs=7"]), budget=Budget(1, LONG), study=path)
    later = segue.global_time(split.histories)
    with pytest.raises(DataError, match="is of another log, split or validation part"):
        tune(later, preset=PRESET, budget=Budget(1, LONG), study=path)
    some = split.validation.sample(9, seed=0) if split.validation else None
    with pytest.raises(DataError, match="is of another log, split or validation part"):
        tune(split, preset=PRESET, budget=Budget(1, LONG), study=path, validation=some)


def test_a_file_that_is_no_study_is_left_alone(
    split: Split, trainings: Trainings, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt is no study of segue tune"):
        tune(split, preset=PRESET, budget=Budget(1, LONG), study=path)
    assert path.read_text() == "mine"
    other = tmp_path / "other.db"
    optuna.create_study(study_name="mine", storage=f"sqlite:///{other}")
    with pytest.raises(OutputError, match=r"other\.db is no study of segue tune"):
        tune(split, preset=PRESET, budget=Budget(1, LONG), study=other)
    with pytest.raises(OutputError, match="cannot write the study"):
        tune(split, preset=PRESET, budget=Budget(1, LONG), study=tmp_path / "no" / "s.db")


def test_a_second_search_of_the_same_study_ends_the_first(
    split: Split, trainings: Trainings, tmp_path: Path
) -> None:
    path = tmp_path / "s.db"

    def begin_another(training: int, epoch: int) -> None:
        if (training, epoch) == (1, 2):
            tune(split, preset=PRESET, budget=Budget(1, LONG), study=path)

    trainings.at = begin_another
    with pytest.raises(OutputError, match="another search has taken over"):
        tune(split, preset=PRESET, budget=Budget(2, LONG), study=path)


@pytest.mark.parametrize(
    ("trials", "minutes", "message"),
    [(0, 1.0, "trials=0"), (-3, 1.0, "trials=-3"), (1, 0.0, "minutes=0"), (1, float("nan"), "nan")],
)
def test_a_search_needs_trials_and_minutes(trials: int, minutes: float, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Budget(trials, minutes)


def test_a_split_without_a_validation_part_is_refused(split: Split, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the split none holds nothing out for validation"):
        tune(
            segue.no_split(split.histories),
            preset=PRESET,
            budget=Budget(1, LONG),
            study=tmp_path / "s.db",
        )


@pytest.mark.slow
def test_real_trainings_give_the_figures_that_fit_gives_and_leave_the_test_part_alone(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untouchable(split: Split) -> None:
        raise AssertionError("the test part was looked at")

    preset = PRESET.with_settings(["epochs=2"])
    with monkeypatch.context() as patch:
        patch.setattr(Split, "test", property(untouchable))
        found = tune(split, preset=preset, budget=Budget(2, LONG), study=tmp_path / "s.db")
    for config, figure in ((preset, found.default), (found.config, found.best)):
        curves = segue.fit(split, preset=config).run.training["epochs"]
        assert max(each["ndcg@10"] for each in curves) == pytest.approx(figure)
    assert found.best >= found.default
