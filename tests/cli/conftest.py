"""Commands run in this process, and what they leave."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

import segue.fitting
from segue.cli import main
from segue.recommender import Recommender


class Outcome(NamedTuple):
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
        if split.test is not None:
            return recommender
        return Recommender(replace(recommender.run, ranking=None, report={}))

    monkeypatch.setattr(segue.fitting, "fit", fit)
    return asked


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """A copy of the small run, to be spoilt."""
    return Path(shutil.copytree(run, tmp_path / "own"))


@pytest.fixture
def tiny() -> list[str]:
    """Options of a training that takes seconds, most of them to compile."""
    settings = ("width=16", "max_length=20", "epochs=2", "batch_size=32")
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture
def digests() -> Callable[[Path], dict[str, str]]:
    """The SHA-256 of every file in a directory."""
    return lambda directory: {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()
    }


@pytest.fixture
def items_of(log_file: Path) -> Callable[[int], list[int]]:
    """The items of a user of the small log, oldest first, straight from the file."""
    log = pl.read_parquet(log_file).sort("timestamp", maintain_order=True)
    return lambda user_id: log.filter(user_id=user_id)["item_id"].to_list()
