"""Training end to end on small logs: what must be learned, kept, resumed and refused."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import polars as pl
import pytest

from segue.config import Config
from segue.data.splits import Split, leave_one_out
from segue.data.synthetic import markov_log
from segue.errors import ConfigError, Interrupted, OutputError, TrainingError
from segue.evaluation.metrics import hit_rate
from segue.evaluation.protocol import rank_full
from segue.fitting import Validation
from segue.model.sequence_model import build_model
from segue.model.weights import weights_of
from segue.retriever import ModelScorer
from segue.training import checkpoint, placement
from segue.training.loop import Curves, train
from segue.training.options import Session
from segue.training.placement import LAZY_ITEMS, placement_of
from segue.training.plan import Plan
from segue.training.steps.schedule import learning_rate
from segue.version import segue_version

SETTINGS = ["max_length=20", "width=32", "num_blocks=1", "batch_size=64", "learning_rate=0.01"]

PLAIN = Session()


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(markov_log(300, 40, 12, certainty=1.0, seed=0))


def configured(*settings: str) -> Config:
    return Config().with_settings([*SETTINGS, *settings])


def trained(split: Split, config: Config, session: Session = PLAIN, validated: bool = True):
    model = build_model(split.histories.vocabulary.num_items, config)
    validation = split.validation
    validate = Validation(model, validation, split.train, config) if validated else None
    also = [validation.histories, validation.targets]
    curves = train(model, split.train, config, validate, also=also, session=session)
    return model, curves


def assert_same_weights(first: keras.Model, second: keras.Model) -> None:
    """To the bit on JAX; elsewhere threads may add in another order."""
    tolerance = 0.0 if keras.backend.backend() == "jax" else 1e-5
    for name, array in weights_of(first).items():
        np.testing.assert_allclose(weights_of(second)[name], array, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "loss",
    [
        ["loss=softmax"],
        ["loss=sampled_softmax", "negatives=20", "sampling=popularity"],
        ["loss=sampled_softmax", "negatives=20", "negatives_per=batch"],
        ["loss=sampled_softmax", "negatives=40", "sampling=in_batch", "negatives_per=row"],
        ["loss=gbce", "negatives=16", "exclude_history=true"],
        ["loss=bce", "negatives=4", "exclude_history=true"],
        ["loss=softmax", "packed=false"],
    ],
    ids=" ".join,
)
def test_a_certain_next_item_is_learned(split, loss):
    model, _ = trained(
        split,
        configured("epochs=40", "dropout=0.1", "schedule=constant", "validate_every=10", *loss),
    )
    ranks = rank_full(ModelScorer(model), split.test).ranks
    assert hit_rate(ranks, 1).mean() >= 0.95


def test_averaging_validates_and_keeps_the_running_average_of_the_weights(split):
    def weights_at_each_step(*settings):
        config = configured("epochs=5", "batch_size=1000000", "validate_every=1", *settings)
        model = build_model(split.histories.vocabulary.num_items, config)
        seen = []

        def validate():
            seen.append(weights_of(model))
            return {"ndcg@10": float(len(seen))}

        train(model, split.train, config, validate)
        return seen, weights_of(model), config

    plain, _, _ = weights_at_each_step()  # an epoch is one step
    averaged, kept, config = weights_at_each_step("averaging=0.8")
    unvalidated = build_model(split.histories.vocabulary.num_items, config)
    train(unvalidated, split.train, config)
    for name, array in plain[0].items():
        if "seed" in name:
            continue
        average = array.astype("float64")
        for step in range(1, 5):
            average = 0.8 * average + 0.2 * plain[step][name]
            np.testing.assert_allclose(averaged[step][name], average, atol=1e-6)
        np.testing.assert_allclose(kept[name], average, atol=1e-6)
        np.testing.assert_allclose(weights_of(unvalidated)[name], average, atol=1e-6)


def test_each_epochs_measures_are_told_and_what_the_listener_raises_ends_the_training(split):
    told = []

    def listen(measures):
        told.append(dict(measures))
        if len(told) == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        trained(split, configured("epochs=5", "validate_every=2"), Session(on_epoch=listen))
    assert [each["epoch"] for each in told] == [1, 2, 3]
    assert ["ndcg@10" in each for each in told] == [False, True, False]
    assert ["val_loss" in each for each in told] == [False, True, False]
    assert all(each["loss"] > 0 for each in told)


def test_the_curves_hold_the_loss_of_every_epoch_and_validation_where_it_is_due(split):
    _, curves = trained(split, configured("epochs=4", "validate_every=2"))
    assert [each["epoch"] for each in curves.epochs] == [1, 2, 3, 4]
    assert all({"loss", "seconds"} <= each.keys() for each in curves.epochs)
    for measure in ("val_loss", "ndcg@10", "hr@10"):
        assert [measure in each for each in curves.epochs] == [False, True, False, True]
    assert curves.epochs[-1]["loss"] < curves.epochs[0]["loss"]


def scripted(
    scores: list[float], config: Config, split: Split, session: Session = PLAIN
) -> tuple[keras.Model, Curves, list]:
    """Trains against a validation that returns these scores, and keeps each epoch's weights."""
    model = build_model(split.histories.vocabulary.num_items, config)
    seen = []

    def validate() -> dict[str, float]:
        seen.append(weights_of(model))
        return {"val_loss": 1.0, "ndcg@10": scores[len(seen) - 1], "hr@10": 0.0}

    return model, train(model, split.train, config, validate, session=session), seen


def test_the_best_weights_by_ndcg_are_kept(split):
    config = configured("epochs=4", "validate_every=1")
    model, curves, seen = scripted([0.1, 0.3, 0.2, 0.25], config, split)
    assert curves.best_epoch == 2
    for name, array in weights_of(model).items():
        np.testing.assert_array_equal(array, seen[1][name])


def test_training_stops_after_patience_validations_without_a_better_score(split):
    config = configured("epochs=9", "validate_every=1", "patience=2")
    _, curves, seen = scripted([0.1, 0.3, 0.2, 0.25, 0.9, 0.9, 0.9, 0.9, 0.9], config, split)
    assert len(seen) == 4
    assert curves.stopped_early
    assert curves.best_epoch == 2


def test_the_same_seed_trains_the_same_weights_and_another_seed_others(split):
    first, again, other = (
        trained(split, configured("epochs=2", f"seed={seed}"))[0] for seed in (1, 1, 2)
    )
    assert_same_weights(first, again)
    table = "item_embedding/table"
    assert np.abs(weights_of(first)[table] - weights_of(other)[table]).max() > 1e-3


@pytest.fixture
def mixed_precision() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "lazy_items"),
    [
        (["loss=softmax", "positions=rotary"], LAZY_ITEMS),
        (["loss=bce", "encoder=sasrec-original"], LAZY_ITEMS),
        (["loss=sampled_softmax", "negatives=20", "negatives_per=batch", "encoder=esasrec"], 0),
        (["loss=softmax", "encoder=gru4rec"], LAZY_ITEMS),
    ],
)
def test_mixed_precision_learns_as_full_precision_does(
    split, monkeypatch, mixed_precision, settings, lazy_items
):
    monkeypatch.setattr(placement, "LAZY_ITEMS", lazy_items)
    config = configured("epochs=4", "validate_every=4", *settings)
    model, curves = trained(split, config)
    assert {str(each.dtype) for each in model.trainable_variables} == {"float32"}
    keras.config.set_dtype_policy("float32")
    _, expected = trained(split, config)
    for ours, theirs in zip(curves.epochs, expected.epochs, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.03)
    assert curves.epochs[-1]["val_loss"] == pytest.approx(expected.epochs[-1]["val_loss"], rel=0.1)


class _Power:
    """Cuts the power after so many batches, as `kill -9` would: nothing is saved any more."""

    def __init__(self, monkeypatch, saves: int) -> None:
        self.saves = saves
        self.real = checkpoint.save
        monkeypatch.setattr(checkpoint, "save", self.save)

    def save(self, *arguments) -> None:
        self.real(*arguments)
        self.saves -= 1
        if not self.saves:
            raise SystemExit(137)


@pytest.mark.parametrize("saves", [1, 5, 8, 10])
@pytest.mark.parametrize(
    "settings",
    [
        ["loss=softmax", "averaging=0.9"],
        ["loss=bce", "exclude_history=true", 'dropout_places=["inner"]'],
    ],
)
def test_a_resumed_training_ends_with_the_weights_of_one_never_stopped(
    split, tmp_path, monkeypatch, saves, settings
):
    # 5 batches an epoch and a checkpoint after every one: stops within epochs (1, 8), after the
    # first and the second (5, 10).
    config = configured("epochs=3", "validate_every=1", *settings)
    expected, expected_curves = trained(split, config)
    session = Session(checkpoint=tmp_path / "c", checkpoint_every_s=0.0)
    with monkeypatch.context() as patch:
        _Power(patch, saves)
        with pytest.raises(SystemExit):
            trained(split, config, session)
    resumed, curves = trained(
        split, config, Session(checkpoint=tmp_path / "c", checkpoint_every_s=0.0, resume=True)
    )
    assert_same_weights(expected, resumed)
    assert curves.best_epoch == expected_curves.best_epoch
    for ours, theirs in zip(curves.epochs, expected_curves.epochs, strict=True):
        for name in ("loss", "val_loss", "ndcg@10"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-6), name


def test_a_resumed_epochs_seconds_count_those_before_the_stop(split, tmp_path, monkeypatch):
    session = Session(checkpoint=tmp_path / "c", checkpoint_every_s=0.0)
    config = configured("epochs=2", "validate_every=1")
    with monkeypatch.context() as patch:
        _Power(patch, 3)
        with pytest.raises(SystemExit):
            trained(split, config, session)
    load = checkpoint.load

    def after_a_long_day(*arguments):
        progress = load(*arguments)
        assert progress.standing.seconds > 0
        progress.standing.seconds += 36_000
        return progress

    monkeypatch.setattr(checkpoint, "load", after_a_long_day)
    _, curves = trained(split, config, replace(session, resume=True))
    first, second = (each["seconds"] for each in curves.epochs)
    assert 36_000 < first < 37_000
    assert 0 < second < 1_000


@pytest.mark.parametrize("saves", [1, 2, 3])
def test_a_resumed_training_keeps_the_best_weights_and_the_patience(
    split, tmp_path, monkeypatch, saves
):
    config = configured("epochs=5", "validate_every=1", "patience=2")
    scores = [0.3, 0.2, 0.1, 0.9, 0.9]
    expected, _, seen = scripted(scores, config, split)
    assert len(seen) == 3
    session = Session(checkpoint=tmp_path / "c", checkpoint_every_s=1e6, checkpoint_every_epochs=1)
    with monkeypatch.context() as patch:
        _Power(patch, saves)
        with pytest.raises(SystemExit):
            scripted(scores, config, split, session)
    resumed, curves, _ = scripted(scores[saves:], config, split, replace(session, resume=True))
    assert len(curves.epochs) == 3
    assert curves.best_epoch == 1
    assert curves.stopped_early
    assert_same_weights(expected, resumed)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    # 100 steps, of which the warm-up takes a tenth though 50 were asked for: half way up, the top,
    # half way down between 1 and 0.02, the end.
    [("cosine", [0.005, 0.01, 0.0051, 0.0002]), ("constant", [0.005, 0.01, 0.01, 0.01])],
)
def test_the_rate_warms_up_and_then_stays_or_falls_by_a_cosine(schedule, rates):
    config = configured("epochs=20", f"schedule={schedule}", "warmup_steps=50")
    rate = learning_rate(config.training, num_steps=100)
    assert [float(rate(step)) for step in (5, 10, 55, 100)] == pytest.approx(rates, rel=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="others update the whole table")
@pytest.mark.parametrize(
    ("settings", "num_items", "is_lazy"),
    [
        (["loss=bce"], LAZY_ITEMS, True),
        (["loss=bce"], LAZY_ITEMS - 1, False),
        (["loss=bce", "l2=0.1"], LAZY_ITEMS, False),
        (["loss=softmax"], LAZY_ITEMS, False),
        (["loss=bce", "averaging=0.9"], LAZY_ITEMS, False),
    ],
)
def test_a_large_catalogue_is_updated_row_by_row_where_the_loss_leaves_rows_alone(
    split, settings, num_items, is_lazy
):
    config = configured(*settings)
    plan = Plan.of(split.train, config)
    assert placement_of(config, num_items, plan).touches_rows == is_lazy


def test_a_loss_that_diverges_is_told(split, monkeypatch):
    config = configured("epochs=1")
    model = build_model(40, config)
    table = weights_of(model)["item_embedding/table"]
    table[3, 0] = np.nan
    model.tower.arrays()["table"].assign(table)
    with pytest.raises(TrainingError, match="the loss of epoch 1 is nan: the training diverged"):
        train(model, split.train, config)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
@pytest.mark.parametrize("name", ["val_loss", "ndcg@10"])
def test_what_validation_measures_and_no_run_can_hold_ends_the_training_at_its_epoch(
    split, tmp_path, name, value
):
    epochs = []
    measured = [{"ndcg@10": 0.1, "val_loss": 1.0}, {"ndcg@10": 0.2, "val_loss": 0.5, name: value}]
    config = configured("epochs=3", "validate_every=1")
    session = Session(checkpoint=tmp_path / "c", checkpoint_every_epochs=1, on_epoch=epochs.append)
    told = f"the {name} of epoch 2 is {value}: the training diverged; lower learning_rate"
    with pytest.raises(TrainingError, match=told):
        train(
            build_model(40, config), split.train, config, lambda: measured.pop(0), session=session
        )
    assert len(epochs) == 1
    resumed = replace(session, resume=True)
    train(build_model(40, config), split.train, config, lambda: {"ndcg@10": 0.2}, session=resumed)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]


def test_a_loss_that_diverges_within_an_epoch_leaves_the_checkpoint_before(split, tmp_path):
    config = configured("epochs=1")
    session = Session(checkpoint=tmp_path / "c", checkpoint_every_s=0.0)
    trained(split, config, session, validated=False)
    before = (tmp_path / "c" / checkpoint.FILE_NAME).read_bytes()
    model = build_model(40, config)
    table = weights_of(model)["item_embedding/table"]
    table[3, 0] = np.nan
    model.tower.arrays()["table"].assign(table)
    with pytest.raises(TrainingError, match="the loss of epoch 1 is nan: the training diverged"):
        train(model, split.train, config, session=session)
    assert (tmp_path / "c" / checkpoint.FILE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint_every_s": float("nan")}, "checkpoint_every_s=nan"),
        ({"checkpoint_every_s": -1.0}, "checkpoint_every_s=-1.0"),
        ({"checkpoint_every_epochs": 0}, "checkpoint_every_epochs=0"),
        ({"resume": True}, "resume=True needs a checkpoint directory"),
    ],
)
def test_a_session_that_means_nothing_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Session(**settings)


def test_resuming_refuses_another_configuration_or_log(split, tmp_path):
    session = Session(checkpoint=tmp_path / "c", checkpoint_every_s=0.0)
    trained(split, configured("epochs=1"), session)
    again = Session(checkpoint=tmp_path / "c", resume=True)
    changes = "another configuration: training.epochs was 1, is 2, training.seed was 0, is 4"
    with pytest.raises(TrainingError, match=changes):
        trained(split, configured("epochs=2", "seed=4"), again)
    other = leave_one_out(markov_log(300, 40, 12, certainty=1.0, seed=1))
    with pytest.raises(TrainingError, match="another log, or to other"):
        trained(other, configured("epochs=1"), again)
    targets = np.random.default_rng(0).permutation(split.validation.targets)
    moved = replace(split.validation, targets=targets)
    with pytest.raises(TrainingError, match="another log, or to other"):
        train(
            build_model(40, configured("epochs=1")),
            split.train,
            configured("epochs=1"),
            also=[moved.histories, moved.targets],
            session=again,
        )


def test_going_on_from_another_versions_checkpoint_is_noted(split, tmp_path, monkeypatch, caplog):
    session = Session(checkpoint=tmp_path / "c")
    trained(split, configured("epochs=1"), session)
    resumed = replace(session, resume=True)
    trained(split, configured("epochs=1"), resumed)
    assert not caplog.records
    monkeypatch.setattr(checkpoint, "segue_version", lambda: "9.8.7")
    trained(split, configured("epochs=1"), resumed)
    assert f"{tmp_path}/c/state.safetensors was saved by segue {segue_version()}" in caplog.text
    assert "segue 9.8.7 goes on from it" in caplog.text


def test_a_checkpoint_of_another_format_is_refused_with_the_version_that_wrote_it(
    split, tmp_path, monkeypatch
):
    session = Session(checkpoint=tmp_path / "c")
    trained(split, configured("epochs=1"), session)
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", checkpoint.FORMAT_VERSION + 1)
    told = f"has format 3, of segue {segue_version()}, this segue reads 4; start anew with --force"
    with pytest.raises(TrainingError, match=told):
        trained(split, configured("epochs=1"), replace(session, resume=True))


def test_resuming_without_a_checkpoint_is_refused(split, tmp_path):
    session = Session(checkpoint=tmp_path / "c", resume=True)
    with pytest.raises(TrainingError, match=r"no checkpoint at .* start without --resume"):
        trained(split, configured("epochs=1"), session)


def test_a_damaged_checkpoint_is_refused(split, tmp_path):
    session = Session(checkpoint=tmp_path / "c", checkpoint_every_s=0.0)
    trained(split, configured("epochs=1"), session)
    path = tmp_path / "c" / checkpoint.FILE_NAME
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="damaged"):
        trained(split, configured("epochs=1"), Session(checkpoint=tmp_path / "c", resume=True))


def test_a_full_disk_leaves_the_old_checkpoint(split, tmp_path, monkeypatch):
    session = Session(checkpoint=tmp_path / "c", checkpoint_every_s=0.0)
    trained(split, configured("epochs=1"), session)
    before = (tmp_path / "c" / checkpoint.FILE_NAME).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segue.files.sync", full)
    with pytest.raises(Exception, match=r"cannot write the checkpoint .*No space left"):
        trained(split, configured("epochs=1"), session)
    assert [each.name for each in (tmp_path / "c").iterdir()] == [checkpoint.FILE_NAME]
    assert (tmp_path / "c" / checkpoint.FILE_NAME).read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_checkpoint_and_the_directories_made_for_it_are_on_the_disk(split, tmp_path, not_on_disk):
    session = Session(checkpoint=tmp_path / "runs" / "films" / "c")
    trained(split, configured("epochs=1"), session, validated=False)
    assert not_on_disk == set()


@pytest.mark.parametrize("place", ["checkpoint", "csv_log"])
def test_what_another_training_writes_is_refused_before_the_first_step(
    split, tmp_path, other_writer, place
):
    session = Session(**{place: tmp_path / "c"})
    with other_writer(tmp_path / "c") as process:
        told = f"c is being written by process {process.pid} on"
        with pytest.raises(OutputError, match=told):
            trained(split, configured("epochs=1"), session, validated=False)
        assert len(os.listdir(tmp_path)) == 2
    trained(split, configured("epochs=1"), session, validated=False)
    assert os.listdir(tmp_path) == ["c"]


def test_a_training_keeps_its_checkpoint_and_its_log_until_it_ends(split, tmp_path):
    held = []
    session = Session(
        checkpoint=tmp_path / "runs" / "c",
        csv_log=tmp_path / "log.csv",
        on_epoch=lambda _: held.extend(tmp_path.rglob(".*.lock")),
    )
    trained(split, configured("epochs=1"), session, validated=False)
    assert {each.name for each in held} == {".c.lock", ".log.csv.lock"}
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(split, tmp_path, number):
    config = configured("epochs=3")
    directory = tmp_path / "c"
    model = build_model(split.histories.vocabulary.num_items, config)
    handler = signal.getsignal(number)  # ignored, where a shell started this in background

    def interrupting() -> dict[str, float]:
        os.kill(os.getpid(), number)
        return {"ndcg@10": 0.0}

    with pytest.raises(Interrupted, match=r"stopped after epoch 1 .* --resume") as stopped:
        train(
            model,
            split.train,
            config.with_settings(["validate_every=1"]),
            interrupting,
            session=Session(checkpoint=directory),
        )
    assert (directory / checkpoint.FILE_NAME).exists()
    assert stopped.value.signal == number
    assert signal.getsignal(number) is handler


KILLED = """
import os, sys
from segue.config import Config
from segue.data.splits import leave_one_out
from segue.data.synthetic import markov_log
from segue.training import checkpoint
from segue.model.sequence_model import build_model
from segue.training.loop import train
from segue.training.options import Session
from pathlib import Path

split = leave_one_out(markov_log(300, 40, 12, certainty=1.0, seed=0))
config = Config().with_settings(sys.argv[2:])
real, left = checkpoint.save, [4]
def save(*arguments):
    real(*arguments)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), 9)
checkpoint.save = save
train(build_model(40, config), split.train, config,
      session=Session(checkpoint=Path(sys.argv[1]), checkpoint_every_s=0.0))
"""


@pytest.mark.slow
def test_kill_9_loses_nothing_that_a_checkpoint_holds(split, tmp_path):
    settings = [*SETTINGS, "epochs=2"]
    command = [sys.executable, "-c", KILLED, str(tmp_path / "c"), *settings]
    source = Path(checkpoint.__file__).parents[2]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(source)}, check=False)
    assert done.returncode == -signal.SIGKILL
    config = Config().with_settings(settings)
    expected, _ = trained(split, config, validated=False)
    model = build_model(40, config)
    train(model, split.train, config, session=Session(checkpoint=tmp_path / "c", resume=True))
    assert_same_weights(expected, model)


def test_a_csv_log_has_a_line_for_every_epoch_whatever_it_measured(split, tmp_path):
    path = tmp_path / "log.csv"
    _, curves = trained(split, configured("epochs=3", "validate_every=2"), Session(csv_log=path))
    log = pl.read_csv(path)
    assert log["epoch"].to_list() == [1, 2, 3]
    assert log["ndcg@10"].is_null().to_list() == [True, False, False]
    np.testing.assert_allclose(log["loss"], [each["loss"] for each in curves.epochs])


def test_tensorboards_events_are_written_or_the_missing_package_is_told(split, tmp_path):
    session = Session(tensorboard=tmp_path / "events")
    if importlib.util.find_spec("tensorboardX") is None:
        with pytest.raises(ConfigError, match=r"install segue\[tensorboard\]"):
            trained(split, configured("epochs=1"), session)
        return
    trained(split, configured("epochs=1"), session)
    assert any(path.stat().st_size for path in (tmp_path / "events").iterdir())


def test_a_step_is_compiled_once_for_the_whole_training(split):
    if keras.backend.backend() != "jax":
        pytest.skip("counts JAX's compilations")
    config = configured("epochs=3")
    compiled = []

    def counting(*arguments, **keywords):
        compiled.append(1)
        return original(*arguments, **keywords)

    model = build_model(40, config)
    original = model.loss_of
    model.loss_of = counting
    train(model, split.train, config)
    assert len(compiled) == 1


def test_progress_lines_tell_loss_speed_and_time_left(split, capsys):
    trained(split, configured("epochs=2", "validate_every=1"), Session(show_progress=True))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 2
    assert all(
        word in lines[1] for word in ("epoch 2/2", "loss", "ndcg@10", "targets/s", "0:00 left")
    )
