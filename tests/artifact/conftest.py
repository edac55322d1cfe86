from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from segue.artifact import Run, read_run
from segue.artifact.manifest import MANIFEST, write_manifest
from segue.config import PRESETS
from segue.data.histories import Histories
from segue.data.splits import TEST, TRAIN, VALIDATION, Split
from segue.data.vocabulary import Vocabulary
from segue.evaluation.protocol import Ranking


@pytest.fixture
def make_run() -> Callable[..., Run]:
    """Builds a whole run of two users and four items, which its report names."""

    def make(name: str = "old") -> Run:
        vocabulary = Vocabulary(pl.Series(["tea", "rum", "ale", "gin"]))
        histories = Histories(
            vocabulary=vocabulary,
            user_ids=pl.Series([7, 9]),
            offsets=np.array([0, 3, 5]),
            item_ids=np.array([1, 3, 2, 1, 3], np.int32),
            timestamps=np.array([10, 10, 20, 5, 6]),
            weights=np.array([1, np.nan, 3, 0.5, 2], np.float32),
        )
        parts = np.array([TRAIN, VALIDATION, TEST, TRAIN, TRAIN], np.uint8)
        return Run(
            config=PRESETS["sasrec-paper"],
            weights={"items/table": np.arange(10, dtype=np.float32).reshape(5, 2)},
            vocabulary=vocabulary,
            catalogue=pl.DataFrame({"title": ["Tea", "Rum", None, "Gin"], "year": [1, 2, 3, 4]}),
            item_counts=np.array([0, 2, 0, 1, 0]),
            split=Split("leave-one-out", histories, parts, ("two users", "ties — kept")),
            training={"loss": [0.5, 0.25], "ndcg@10": [None, 0.125]},
            ranking=Ranking(
                ranks=np.array([2], np.int32),
                candidates=np.array([3], np.int32),
                targets=np.array([2], np.int32),
                user_ids=pl.Series([7]),
            ),
            report={"name": name, "metrics": {"ndcg@10": 0.1}},
        )

    return make


@pytest.fixture
def sign() -> Callable[[Path], None]:
    """Makes the manifest of a run anew, as whoever tampers with the run would."""

    def make(path: Path) -> None:
        (path / MANIFEST).unlink(missing_ok=True)
        write_manifest(path)

    return make


@pytest.fixture
def name_of() -> Callable[[Path], str]:
    """The name that `make_run` gave to the run at a path."""
    return lambda path: str(read_run(path).report["name"])
