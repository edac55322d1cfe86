import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import segue.fitting
from segue.data import sources
from segue.data.vocabulary import Vocabulary
from segue.errors import Interrupted
from segue.machine import THREAD_VARIABLES
from segue.recommender import Recommender


def raising(error: BaseException) -> Callable[..., None]:
    def raise_it(*arguments: Any, **options: Any) -> None:
        raise error

    return raise_it


def segue_process(
    *arguments: str, stdout: Any, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, whose output is buffered as it is by default."""
    command = [sys.executable, "-m", "segue", *arguments]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    env.update(variables)
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=env, text=True)


@pytest.mark.parametrize(
    "arguments",
    [["fly"], ["--fly"], ["fit", "--fly"], ["data", "fly"], ["similar", "a", "b", "c"]],
)
def test_an_unknown_command_or_option_exits_with_2(arguments, command):
    outcome = command(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert "--help" in line


def test_a_missing_argument_is_told_in_one_line(command):
    assert "'--out'" in command("fit", "log.csv").refusal


def test_the_version_and_the_help_exit_with_0(command):
    assert command("--version") == (0, f"segue {segue.__version__}\n", "")
    for arguments in ([], ["--help"], ["fit", "--help"]):
        outcome = command(*arguments)
        assert outcome.code == 0
        assert outcome.out.startswith("Usage: segue")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Interrupted("stopped; --resume goes on"), "segue: stopped; --resume goes on\n"),
        (KeyboardInterrupt(), "segue: stopped\n"),
    ],
)
def test_ctrl_c_exits_with_130_and_says_how_to_go_on(error, told, command, monkeypatch):
    monkeypatch.setattr(sources, "fetch", raising(error))
    assert command("data", "fetch", "ml-1m") == (130, "", told)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "/x: No space left on device"),
        (OSError("odd"), "odd"),
        (
            ValueError("two\nlines"),
            "a defect of segue, please report it: ValueError: two lines",
        ),
    ],
)
def test_an_unexpected_error_is_one_line(error, told, command, monkeypatch):
    monkeypatch.setattr(sources, "fetch", raising(error))
    assert command("data", "fetch", "ml-1m").refusal.startswith(told)


@pytest.mark.parametrize(
    "arguments", [["--debug", "data", "fetch", "x"], ["data", "fetch", "x", "--debug"]]
)
def test_debug_shows_the_traceback_wherever_it_stands(arguments, command):
    outcome = command(*arguments)
    assert outcome.code == 1
    assert outcome.err.startswith("Traceback")
    assert "DatasetError: dataset must be one of ml-1m, " in outcome.err


def test_a_reader_that_goes_away_ends_the_command_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    ended = segue_process("data", "list", stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_told_in_one_line():
    with open("/dev/full", "w") as full:
        ended = segue_process("data", "list", stdout=full)
    assert ended.returncode == 1
    assert ended.stderr == "segue: No space left on device\n"


def test_letters_that_the_terminal_lacks_are_replaced(log_file, tmp_path):
    log = Path(shutil.copy(log_file, tmp_path / "Café.parquet"))
    ended = segue_process(
        "data", "inspect", str(log), stdout=subprocess.PIPE, PYTHONIOENCODING="ascii"
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Caf?.parquet" in ended.stdout


def test_titles_that_would_steer_the_terminal_are_shown_as_blanks(command, recommender, tmp_path):
    titles = pl.DataFrame({"title": ["\x1b[2J\nred"] * 30})
    Recommender(replace(recommender.run, catalogue=titles)).save(tmp_path / "steered")
    out = command("recommend", tmp_path / "steered", "--history", "1", "-k", "2").out
    assert len(out.splitlines()) == 3
    assert "\x1b" not in out
    assert "[2J red" in out


# Sets the clipboard and the title, turns text red (in eight bits) and around, and forges a line.
STEERING = "\x1b]52;c;ZXZpbA==\x07\x1b]0;title\x07\x9b31m\u202e\nsegue: done\r"


@pytest.fixture
def steering_run(recommender: Recommender, tmp_path: Path) -> Path:
    """A run whose ids, titles and place would steer a terminal."""
    run = recommender.run
    assert run.split is not None
    vocabulary = Vocabulary(pl.Series([f"{STEERING}{each}" for each in run.vocabulary.ids]))
    users = pl.Series([f"{STEERING}{each}" for each in run.split.histories.user_ids])
    histories = replace(run.split.histories, vocabulary=vocabulary, user_ids=users)
    path = tmp_path / f"run{STEERING}"
    catalogue = pl.DataFrame({"title": [f"{STEERING}{each}" for each in vocabulary.ids]})
    split = replace(run.split, histories=histories)
    ranking = replace(run.ranking, user_ids=users)  # type: ignore[type-var]
    Recommender(
        replace(run, vocabulary=vocabulary, catalogue=catalogue, split=split, ranking=ranking)
    ).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("recommend", ["--history", f"{STEERING}1,{STEERING}2"]),
        ("recommend", ["--user", f"{STEERING}7"]),
        ("recommend", ["--user", STEERING]),
        ("recommend", ["--user", STEERING, "--debug"]),
        ("similar", [f"{STEERING}1"]),
        ("similar", [STEERING]),
        ("explain", ["--history", f"{STEERING}1,{STEERING}2,{STEERING}", "--item", f"{STEERING}3"]),
        ("explain", ["--history", f"{STEERING}1", "--item", STEERING]),
        ("evaluate", []),
        ("report", []),
        ("run forget", [f"{STEERING}7"]),
        ("run forget", [STEERING]),
        ("evaluate", [STEERING]),
    ],
)
def test_whatever_is_printed_of_a_run_cannot_steer_the_terminal(
    command, steering_run, name, arguments, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # where the report is written
    refuse_steering(command(*name.split(), steering_run, *arguments))


def test_whatever_is_printed_of_a_log_cannot_steer_the_terminal(
    command, monkeypatch, steering_run, tmp_path
):
    monkeypatch.setattr(segue.fitting, "fit", lambda *_, **__: Recommender.load(steering_run))
    log, out = tmp_path / f"log{STEERING}.parquet", tmp_path / f"new{STEERING}"
    ids = [f"{STEERING}{each}" for each in range(5)]
    table = pl.DataFrame({"user_id": ids[:1] * 5, "item_id": ids, f"x{STEERING}": ids})
    table.with_columns(timestamp=pl.int_range(5)).write_parquet(log)
    fitted = command("fit", log, "--out", out, "--split", "none")
    assert fitted.code == 0, fitted.err
    assert "Next:" in fitted.out
    refuse_steering(fitted)
    refuse_steering(command("fit", log, "--out", out))
    refuse_steering(command("fit", log, "--out", out, "--force", "--user-col", STEERING))
    refuse_steering(command("data", "inspect", log))
    refuse_steering(command("data", "inspect", log, "--item-col", f"x{STEERING}"))
    refuse_steering(command("data", "inspect", tmp_path / STEERING))
    refuse_steering(command("data", "fetch", STEERING))
    refuse_steering(command(STEERING))


def refuse_steering(outcome: Any) -> None:
    for text in (outcome.out, outcome.err):
        assert all(letter.isprintable() or letter == "\n" for letter in text), text
        assert "segue: done" not in text.splitlines()


def test_threads_are_set_before_a_command_loads_what_computes(command, monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "9")  # put back afterwards
    assert command("--threads", "3", "data", "list").code == 0
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"3"}
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name)
    monkeypatch.setattr("segue.cli.app.usable_cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert command("data", "list").code == 0
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"2"}
    refusal = command("--threads", "0", "data", "list").refusal
    assert "the number of threads must be at least 1, got 0" in refusal
