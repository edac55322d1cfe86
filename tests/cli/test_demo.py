from pathlib import Path
from typing import Any

import pytest

from segue.cli.demo import PRESET
from segue.config import PRESETS
from segue.data import sources
from segue.data.items import read_items
from segue.data.log import read_log
from segue.errors import DatasetError
from segue.recommender import Recommender

TINY_PRESET = "[model]\nwidth = 16\nmax_length = 20\n[training]\nepochs = 1\n"


@pytest.fixture
def only_ml_100k(
    log_file: Path, items_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The large dataset cannot be had, the small one is the small log; the place is empty."""

    def load(name: str, *, progress: bool) -> Any:
        if name != "ml-100k":
            raise DatasetError("ml-1m: no connection")
        return read_log(log_file), read_items(items_file)

    monkeypatch.setattr(sources, "load", load)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("only_ml_100k")
def test_demo_trains_tests_shows_and_saves(command, tmp_path, monkeypatch, items_of):
    (tmp_path / "tiny.toml").write_text(TINY_PRESET)
    monkeypatch.setattr("segue.cli.demo.PRESET", "tiny.toml")
    monkeypatch.setattr("segue.cli.demo.INTERACTIONS_SEEN", 1)
    outcome = command("demo")
    assert outcome.code == 0, outcome.err
    assert "training on ml-100k, because ml-1m: no connection" in outcome.err
    lines = outcome.out.splitlines()
    for name in ("model", "popularity", "item_knn"):
        assert any(line.startswith(name) for line in lines)
    history = items_of(1)
    start = lines.index("The last films of user 1, the newest at the end:") + 1
    assert [line.strip() for line in lines[start : start + 10]] == [
        f"Café {item}" for item in history[-10:]
    ]
    start = lines.index("Recommended next:") + 1
    numbered = [line.split(maxsplit=1) for line in lines[start : start + 10]]
    assert [int(number) for number, _ in numbered] == list(range(1, 11))
    made = Recommender.load("runs/demo")
    expected = made.answer(history, 10).items["title"].to_list()
    assert [title for _, title in numbered] == expected
    assert "  segue recommend runs/demo --user 1" in lines


@pytest.mark.usefixtures("only_ml_100k", "no_training")
def test_an_earlier_demo_is_replaced_but_no_other_run(command, own_run, digests):
    assert command("demo").code == 0
    assert command("demo").code == 0
    before = digests(own_run)
    assert "--force" in command("demo", "--out", own_run).refusal
    assert digests(own_run) == before


def test_the_demos_preset_exists():
    assert PRESET in PRESETS
