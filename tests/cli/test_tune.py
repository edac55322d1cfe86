import shlex
import sqlite3
import sys
from contextlib import closing

import pytest

from segue.config import load_preset

TUNE = ("--trials", "2", "--minutes", "9")


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_a_search_writes_a_preset_that_fit_takes(command, log_file, tiny, tmp_path):
    outcome = command("tune", log_file, *TUNE, *tiny)
    assert outcome.code == 0, outcome.err
    assert "trial 1 of 2: NDCG@10 0." in outcome.err
    assert "2 trials finished and 0 were pruned." in outcome.out
    assert "the test part was not looked at" in outcome.out
    preset = load_preset(tmp_path / "tuned.toml")
    assert (preset.training.epochs, preset.model.max_length) == (2, 20)
    fit, go_on = (shlex.split(line)[1:] for line in outcome.out.splitlines()[-2:])
    assert fit == ["fit", str(log_file), "--preset", "tuned.toml", "--out", "RUN"]
    fitted = command(*fit)
    assert fitted.code == 0, fitted.err
    assert "test part of the split leave-one-out" in fitted.out
    assert go_on == ["tune", str(log_file), "--trials", "4", "--minutes", "9.0", *tiny, "--force"]


def test_the_same_command_goes_on_and_json_is_what_was_found(command, log_file, tiny):
    first = command("tune", log_file, *TUNE, *tiny, "--json").json
    assert (first["metric"], first["part"], first["preset"]) == (
        "ndcg@10",
        "validation",
        "tuned.toml",
    )
    assert first["best"] >= first["default"] > 0
    assert (first["finished"], first["pruned"], first["is_time_up"]) == (2, 0, False)
    refusal = command("tune", log_file, *TUNE, *tiny).refusal
    assert "tuned.toml exists" in refusal
    again = command("tune", log_file, *TUNE, *tiny, "--force", "--json")
    assert again.json == first
    assert "trial" not in again.err
    with closing(sqlite3.connect("tune.db")) as study:
        assert study.execute("select count(*) from trials").fetchone() == (2,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "trials=0"),
        (["--minutes", "0"], "minutes=0"),
        (["--minutes", "soon"], "'soon' is no number"),
        (["--split", "none"], "the split none holds nothing out for validation"),
        (["--out", "tuned.json"], "tuned.json is no preset file"),
        (["--out", "no/tuned.toml"], "no directory no"),
    ],
)
def test_what_makes_no_search_is_refused(command, log_file, arguments, message):
    refused = command("tune", log_file, *arguments)
    assert (refused.code, refused.out) == (1, "")
    assert message in refused.err.splitlines()[-1]


def test_the_preset_that_is_searched_is_not_replaced(command, log_file, tmp_path):
    (tmp_path / "own.toml").write_text("[training]\nepochs = 2\n")
    arguments = ("--preset", "own.toml", "--out", tmp_path / "own.toml", "--force")
    assert "is the preset searched" in command("tune", log_file, *arguments).refusal


def test_without_the_extra_it_says_how_to_install_it(command, log_file, monkeypatch):
    monkeypatch.delitem(sys.modules, "segue.tuning.search", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    refusal = command("tune", log_file).refusal
    assert refusal == "the search needs the module 'optuna'; pip install 'segue[tune]'"
