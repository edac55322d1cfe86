"""A named dataset in one file: listed, read by its name, and trained on."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

import segue
from segue.cli import main
from segue.config import Config, ModelConfig, TrainingConfig
from segue.data.items import Catalogue
from segue.data.log import InteractionLog
from segue.data.sources import SOURCES
from segue.data.synthetic import markov_log


@dataclass(frozen=True)
class Walks:
    """A dataset that needs no download: walks over 20 items."""

    name: str = "walks"
    description: str = "Made walks: 800 interactions with 20 items by 100 users"
    size_mb: float = 0.0

    def fetch(self, *, progress: bool = False) -> Path:
        return Path(__file__).parent

    def read(self, folder: Path) -> tuple[InteractionLog, Catalogue | None]:
        ids = list(range(1, 21))
        titles = [f"Step {item}" for item in ids]
        items = Catalogue(pl.DataFrame({"item_id": ids, "title": titles}))
        return markov_log(100, 20, 8, certainty=1.0, seed=0), items


SOURCES.register("walks")(Walks())


def test_it_is_listed_with_those_that_come_along(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["data", "list"])
    assert ended.value.code == 0
    listed = capsys.readouterr().out
    assert "ml-1m" in listed
    assert "Made walks" in listed


def test_a_run_is_trained_on_it_by_its_name(tmp_path):
    log, items = segue.load_dataset("walks")
    config = Config(
        model=ModelConfig(max_length=10, width=16),
        training=TrainingConfig(epochs=1, batch_size=64),
    )
    segue.fit(segue.leave_one_out(log), items=items, preset=config).save(tmp_path / "run")
    answer = segue.load(tmp_path / "run").recommend([[1, 2]], k=3)
    assert all(title.startswith("Step ") for title in answer["title"])


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(segue.SegueError, match=r"dataset must be one of ml-1m, .*got 'ml-2m'"):
        segue.load_dataset("ml-2m")
