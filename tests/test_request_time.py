"""Request time as an input: from a log with a clock to answers, with and without the moment."""

import polars as pl
import pytest

import segue
from segue.bulk import recommend_file
from segue.config import Config, ModelConfig, TrainingConfig
from segue.data.synthetic import FIRST_SECOND, paced_log
from segue.errors import DataError

MINUTE, DAY = 60, 86_400
CONFIG = Config(
    model=ModelConfig(request_time="gap", positions="rotary", max_length=10, width=32, dropout=0.1),
    training=TrainingConfig(epochs=20, batch_size=16, learning_rate=0.005, validate_every=10),
)


@pytest.fixture(scope="module")
def recommender() -> segue.Recommender:
    return segue.fit(segue.leave_one_out(paced_log(300, 60, 10)), preset=CONFIG)


def next_item(recommender: segue.Recommender, gap: int | None) -> int:
    """What comes after item 3, so many seconds later."""
    times = [[FIRST_SECOND - DAY, FIRST_SECOND]]
    at = None if gap is None else FIRST_SECOND + gap
    return int(recommender.recommend([[58, 3]], k=1, times=times, at=at)["item_id"][0])


def test_what_comes_next_depends_on_when_it_is_asked(recommender):
    assert next_item(recommender, 10 * MINUTE) == 4
    assert next_item(recommender, 4 * DAY) == 8
    assert next_item(recommender, 400 * DAY) == 8  # longer than any wait in the log
    assert next_item(recommender, None) in (4, 8)


def test_the_moment_is_worth_half_of_the_targets(recommender):
    known = recommender.evaluate()
    unknown = recommender.evaluate(request_time=False)
    assert known["request_time"]
    assert not unknown["request_time"]
    assert known["metrics"]["hr@1"] > 0.85
    assert unknown["metrics"]["hr@1"] < 0.65 < unknown["metrics"]["hr@5"]


def test_figures_with_the_moment_are_marked(recommender):
    assert any("when each target was asked" in note for note in recommender.run.report["notes"])
    notes = recommender.evaluate(request_time=False)["notes"]
    assert not any("when each target was asked" in note for note in notes)


def test_each_user_of_a_file_may_be_asked_about_at_a_moment_of_their_own(recommender, tmp_path):
    log = pl.DataFrame(
        {
            "user_id": ["soon", "soon", "late", "late"],
            "item_id": [58, 3, 58, 3],
            "timestamp": [FIRST_SECOND - DAY, FIRST_SECOND] * 2,
            "now": [FIRST_SECOND + 10 * MINUTE] * 2 + [FIRST_SECOND + 4 * DAY] * 2,
        }
    )
    log.write_parquet(tmp_path / "log.parquet")
    out = tmp_path / "out.parquet"
    recommend_file(recommender, tmp_path / "log.parquet", out, 1, at=pl.col("now"))
    assert dict(pl.read_parquet(out).select("user_id", "item_id").iter_rows()) == {
        "soon": 4,
        "late": 8,
    }


def test_a_user_with_two_moments_is_refused_by_name(recommender, tmp_path):
    log = pl.DataFrame(
        {"user_id": ["a", "a"], "item_id": [1, 2], "timestamp": [5, 6], "now": [7, 8]}
    )
    log.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"1 of 1 users have several moments .* such as user 'a'"):
        recommend_file(
            recommender, tmp_path / "log.parquet", tmp_path / "out.parquet", at=pl.col("now")
        )
    with pytest.raises(DataError, match="has no column 'then' for the users' moments"):
        recommend_file(
            recommender, tmp_path / "log.parquet", tmp_path / "out.parquet", at=pl.col("then")
        )
