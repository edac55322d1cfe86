"""Runs of format 2 that stand in `format2/` as segue wrote them at commit 290abc8.

Each was trained for three epochs on `markov_log(48, 24, 9, certainty=0.9)`: over several encoders,
positions, losses and splits, with ids that are numbers and words, and times that are an order,
seconds and datetimes. NAME.top10.parquet holds what `recommend` answered there for the histories of
the run's test part, and last for an empty one, with the items of the history excluded and not.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import segue
from segue.recommender import Recommender

FOLDER = Path(__file__).with_name("format2")
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
K = 10
CLOSE = 1e-4


def expected(name: str) -> pl.DataFrame:
    """exclude_seen, history (its place), rank, item_id, score, strategy."""
    return pl.read_parquet(FOLDER / f"{name}.top10.parquet")


def answers(recommender: Recommender, num_histories: int, exclude_seen: bool) -> pl.DataFrame:
    """What it recommends for the first histories of the test part and for an empty one."""
    assert recommender.run.split is not None
    test = recommender.run.split.test
    assert test is not None
    known = [test.histories.items_of(user) for user in range(num_histories - 1)]
    histories = [recommender.vocabulary.decode(items).to_list() for items in known]
    return recommender.recommend([*histories, []], K, exclude_seen=exclude_seen)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_format_2_answers_as_before(name: str, exclude_seen: bool) -> None:
    before = expected(name).filter(pl.col("exclude_seen") == exclude_seen)
    after = answers(segue.load(FOLDER / name), before["history"].n_unique(), exclude_seen)

    assert after["user_id"].to_list() == before["history"].to_list()
    assert after["rank"].to_list() == before["rank"].to_list()
    assert after["strategy"].to_list() == before["strategy"].to_list()
    np.testing.assert_allclose(after["score"], before["score"], rtol=0, atol=CLOSE)
    # Items whose scores lie closer may change places, also with the first that is not recommended.
    places = ["history", "item_id"]
    moved = after.rename({"user_id": "history"}).join(
        before, on=places, how="full", suffix="_before", coalesce=True
    )
    last = before.group_by("history").agg(last=pl.col("score").min())
    moved = moved.join(last, on="history").with_columns(
        pl.col("score", "score_before").fill_null(pl.col("last"))
    )
    np.testing.assert_allclose(moved["score"], moved["score_before"], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_format_2_is_evaluated_as_before(name: str) -> None:
    recommender = segue.load(FOLDER / name)

    metrics = recommender.evaluate()["metrics"]

    for metric, value in recommender.run.report["metrics"].items():
        assert metrics[metric] == pytest.approx(value, abs=CLOSE), metric


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_format_2_is_saved_with_what_it_held(name: str, tmp_path: Path) -> None:
    segue.load(FOLDER / name).save(tmp_path / "run")

    back, before = segue.load(tmp_path / "run").run, segue.load(FOLDER / name).run
    assert back.config == before.config
    assert back.weights.keys() == before.weights.keys()
    for weight, values in before.weights.items():
        np.testing.assert_array_equal(back.weights[weight], values)
    assert back.report == before.report
