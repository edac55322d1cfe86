import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import segue.fitting
from segue.cli import main
from segue.data import datasets
from segue.data.items import read_items
from segue.data.log import read_log
from segue.data.splits import global_time, no_split
from segue.data.vocabulary import Vocabulary
from segue.errors import DatasetError, Interrupted
from segue.recommender import Recommender
from segue.training.trainer import Session



TINY_SETTINGS = [
    *("--set", "width=16", "--set", "epochs=2"),
    *("--set", "max_length=20", "--set", "batch_size=32"),
]


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)

    @property
    def refusal(self) -> str:
        """The one line of a refused command, which says nothing else and shows no traceback."""
        assert (self.code, self.out) == (1, "")
        (line,) = self.err.splitlines()
        assert line.startswith("segue: ")
        return line.removeprefix("segue: ")


Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process."""

    def invoke(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, out, err)

    return invoke


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch, recommender: Recommender) -> list[dict[str, Any]]:
    """Training gives the small run at once; what it was asked to do is listed."""
    asked: list[dict[str, Any]] = []

    def fit(split: Any, **options: Any) -> Recommender:
        asked.append({"split": split, **options})
        return Recommender(replace(recommender.run, ranking=None, report={}))

    monkeypatch.setattr(segue.fitting, "fit", fit)
    return asked


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """A copy of the small run, to be spoilt."""
    return Path(shutil.copytree(run, tmp_path / "own"))


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()
    }


def items_of(log_file: Path, user_id: int) -> list[int]:
    """A user's items, oldest first, straight from the log."""
    log = pl.read_parquet(log_file).filter(pl.col("user_id") == user_id).sort("timestamp")
    return log["item_id"].to_list()
