"""Two small runs with genres: one held out by user, one in time, with times that are moments."""

import numpy as np
import polars as pl
import pytest

import segue
from segue.config import Config, ModelConfig, TrainingConfig
from segue.data.synthetic import markov_log

NUM_ITEMS = 30
CONFIG = Config(
    name="tiny",
    model=ModelConfig(max_length=20, width=16, num_heads=2),
    training=TrainingConfig(epochs=2, batch_size=32),
)
DAY_S = 86_400
START_S = 10**9


@pytest.fixture(scope="session")
def genre_of():
    return lambda item_id: (["Drama", "War"], ["Comedy"], ["War"])[item_id % 3]


@pytest.fixture(scope="session")
def catalogue(genre_of):
    """Titles that a page must escape."""
    item_ids = range(1, NUM_ITEMS + 1)
    return segue.read_items(
        pl.DataFrame(
            {
                "item_id": item_ids,
                "title": [f"<b>Café & {item_id}</b>" for item_id in item_ids],
                "genres": [genre_of(item_id) for item_id in item_ids],
            }
        )
    )


@pytest.fixture(scope="session")
def by_user(catalogue, tmp_path_factory):
    log = markov_log(120, NUM_ITEMS, 14, certainty=0.8, seed=1)
    path = tmp_path_factory.mktemp("runs") / "by-user"
    segue.fit(segue.leave_one_out(log), items=catalogue, preset=CONFIG).with_report().save(path)
    return path


@pytest.fixture(scope="session")
def in_time(catalogue, tmp_path_factory):
    frame = markov_log(120, NUM_ITEMS, 14, certainty=0.8, seed=1).frame
    days = np.random.default_rng(0).integers(0, 200, len(frame))
    frame = frame.with_columns(timestamp=pl.Series(START_S + days * DAY_S))
    path = tmp_path_factory.mktemp("runs") / "in-time"
    split = segue.global_time(segue.read_log(frame))
    segue.fit(split, items=catalogue, preset=CONFIG).with_report().save(path)
    return path
