"""From a log or a split to a recommender, and what validation measures on the way."""

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import segue
from segue.config import Config
from segue.data.histories import Histories
from segue.data.items import Catalogue
from segue.data.splits import Split, leave_one_out, no_split
from segue.data.synthetic import markov_log
from segue.errors import ConfigError, DataError, TrainingError
from segue.evaluation.metrics import summarize
from segue.evaluation.protocol import rank_full
from segue.fitting import Validation, fit
from segue.model.sequence_model import SequenceModel, build_model
from segue.retrieval.exact import ExactIndex
from segue.retriever import ModelScorer
from segue.training import plan

SMALL = Config().with_settings(["max_length=10", "width=8", "num_blocks=1", "epochs=1"])


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(markov_log(100, 30, 8, seed=0))


def validation_of(split: Split, config: Config, **limits) -> tuple[Validation, ModelScorer]:
    model = build_model(30, config)
    assert split.validation is not None
    validation = Validation(model, split.validation, split.train, config, **limits)
    return validation, ModelScorer(model)


@pytest.mark.parametrize("max_length", [10, 3])
def test_the_validation_loss_is_the_cross_entropy_of_the_held_out_targets(split, max_length):
    # Histories of 6 items: with 3 positions they are longer than the window, and count as fully.
    config = SMALL.with_settings([f"max_length={max_length}"])
    validation, scorer = validation_of(split, config)
    held_out = split.validation
    logits = scorer.score(held_out.histories, slice(None))[:, 1:].astype("float64")
    surprise = np.log(np.exp(logits).sum(1)) - logits[np.arange(100), held_out.targets - 1]
    assert validation()["val_loss"] == pytest.approx(surprise.mean(), rel=1e-5)


def test_the_validation_ranks_the_whole_catalogue(split):
    validation, scorer = validation_of(split, SMALL)
    expected = summarize(rank_full(scorer, split.validation).ranks)
    measured = validation()
    assert measured["ndcg@10"] == pytest.approx(expected["ndcg@10"])
    assert measured["hr@10"] == pytest.approx(expected["hr@10"])


def test_the_validation_ranks_for_users_without_a_history_as_the_evaluation_does(split):
    histories = [split.validation.histories.items_of(user) for user in range(99)]
    empty = Histories.from_lists(split.histories.vocabulary, [*histories, np.zeros(0, np.int32)])
    held_out = replace(split.validation, histories=empty)
    model = build_model(30, SMALL)
    evaluated = ModelScorer(model, split.train.item_counts())
    expected = summarize(rank_full(evaluated, held_out).ranks)
    measured = Validation(model, held_out, split.train, SMALL)()
    assert measured["ndcg@10"] == pytest.approx(expected["ndcg@10"])


def test_the_validations_negatives_are_always_the_same_and_never_the_users(split):
    config = SMALL.with_settings(["loss=bce", "exclude_history=true", "negatives=5"])
    (first, _), (second, _) = validation_of(split, config), validation_of(split, config)
    negatives = first._targets["negative_sequence"]
    np.testing.assert_array_equal(negatives, second._targets["negative_sequence"])
    for user in range(100):
        known = {*split.validation.histories.items_of(user), split.validation.targets[user]}
        assert not set(negatives[user].ravel()) & known


@pytest.mark.parametrize(
    ("limit", "value"),
    # 528 entries are the 2 vectors of 8 that 33 users' losses read.
    [("users_at_once", 33), ("numbers_at_once", 528)],
)
def test_the_validation_loss_of_many_users_is_taken_in_blocks(split, monkeypatch, limit, value):
    config = SMALL.with_settings(["loss=bce", "negatives=2"])
    validation, scorer = validation_of(split, config, **{limit: value})
    sizes = []
    loss = validation._loss
    monkeypatch.setattr(
        validation,
        "_loss",
        lambda queries, *rest: sizes.append(len(queries)) or loss(queries, *rest),
    )
    in_blocks = validation()["val_loss"]
    assert sizes == [33] * 4
    scores = scorer.score(split.validation.histories, slice(None)).astype("float64")
    users = np.arange(100)
    positive = scores[users, split.validation.targets]
    negative = scores[users[:, None], validation._targets["negative_sequence"][:, 0]]
    surprise = np.log1p(np.exp(-positive)) + np.log1p(np.exp(negative)).sum(1)
    assert in_blocks == pytest.approx(surprise.mean() / 3, rel=1e-5)


def test_targets_never_trained_on_have_no_part_in_the_validation_loss(split):
    validation, _ = validation_of(split, SMALL)
    unseen = replace(split.validation, targets=np.full(100, 7, dtype=np.int32))
    train = split.train.select(split.train.item_ids != 7)
    untrained = Validation(build_model(30, SMALL), unseen, train, SMALL)
    assert untrained() == {"val_loss": 0.0, "ndcg@10": 0.0, "hr@10": 0.0}
    assert validation()["val_loss"] > 1


def test_a_validation_part_of_another_log_is_refused(split):
    other = leave_one_out(markov_log(100, 29, 8, seed=0))
    with pytest.raises(DataError, match="by another vocabulary"):
        fit(split, validation=other.validation, preset=SMALL)


def test_a_whole_log_trains_without_validation_and_keeps_every_interaction():
    log = markov_log(50, 20, 8, seed=0)
    recommender = fit(log, preset=SMALL)
    assert recommender.run.split.kind == "none"
    assert recommender.run.item_counts.sum() == len(log)
    assert "val_loss" not in recommender.run.training["epochs"][0]


def test_fit_makes_each_thing_once(split, monkeypatch):
    made: Counter[str] = Counter()

    def count(owner, name, what, is_counted=lambda *arguments: True):
        original = getattr(owner, name)

        def counting(*arguments, **keywords):
            made[what] += is_counted(*arguments)
            return original(*arguments, **keywords)

        monkeypatch.setattr(owner, name, counting)

    count(SequenceModel, "build", "models")
    count(plan, "newest_windows", "cuts")
    count(plan, "pack", "packings")
    # The popularity of items has an index of its own, of one column.
    count(ExactIndex, "__init__", "indexes", lambda index, table, *rest: table.shape[1] > 1)
    fit(split, preset=SMALL)  # one epoch
    assert made == {"models": 1, "cuts": 1, "packings": 1, "indexes": 1}


def test_fit_ends_with_the_report_of_the_test_part(split):
    recommender = fit(split, preset=SMALL)
    assert recommender.run.report == recommender.evaluate()
    assert fit(no_split(split.histories), preset=SMALL).run.report == {}


def test_training_sees_neither_validation_nor_test(split):
    recommender = fit(split, preset=SMALL)
    assert recommender.run.item_counts.sum() == split.histories.num_interactions - 2 * 100


def test_a_catalogue_that_no_run_can_hold_is_refused_before_training(split, monkeypatch):
    monkeypatch.setattr("segue.fitting.train", lambda *_: pytest.fail("it trained"))
    items = Catalogue(pl.DataFrame({"item_id": [1], "dense_id": [5]}))
    with pytest.raises(DataError, match="dense_id"):
        fit(split, items=items, preset=SMALL)


def test_an_unknown_preset_is_refused_with_the_known_ones(split):
    with pytest.raises(ConfigError, match=r"unknown preset 'sassy'; the presets are .*sasrec"):
        segue.fit(split, preset="sassy")


def test_every_example_of_the_api_is_a_public_name():
    assert {"fit", "load", "read_log", "read_items", "leave_one_out", "SASRec"} <= set(
        segue.__all__
    )


def test_a_batch_larger_than_the_log_is_no_reason_to_refuse_for_memory(split):
    recommender = fit(split, preset=SMALL.with_settings(["batch_size=1000000"]))
    assert len(recommender.run.training["epochs"]) == 1


def test_a_training_that_cannot_fit_into_memory_is_refused(split, monkeypatch):
    monkeypatch.setattr("segue.training.memory.available_bytes", lambda: 1_000_000)
    with pytest.raises(TrainingError, match=r"30 items at width 8 needs about 0\.6 GB"):
        fit(split, preset=SMALL)
