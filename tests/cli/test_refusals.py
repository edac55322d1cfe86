"""Bad input: one line on standard error, exit 1, nothing written."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import segue.fitting
from segue.cli.checkpoints import checkpoint_of


def save_log(path: Path, users: list[Any], items: list[Any], times: list[Any]) -> Path:
    pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times}).write_parquet(path)
    return path


@pytest.fixture
def nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("training started")

    monkeypatch.setattr(segue.fitting, "fit", fit)


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--preset", "finest"], "'finest'"),
        (["--preset", "missing.toml"], "missing.toml"),
        (["--set", "speed=9"], "'speed'"),
        (["--set", "epochs=0"], "epochs"),
        (["--set", "epochs"], "key=value"),
        (["--items", "missing.csv"], "missing.csv"),
        (["--no-header"], "no text file"),
        (["--encoding", "cp1252"], "no text file"),
        (["--items-id-col", "sku"], "--items-id-col needs --items"),
        (["--refuse-duplicate-items"], "--refuse-duplicate-items needs --items"),
        (["--time-col", "when"], "'user_id', 'item_id', 'timestamp'"),
        (["--min-weight", "3"], "weight"),
        (["--min-weight", "much"], "'much'"),
        (["--core", "0"], "0"),
        (["--core", "1000"], "1000"),
        (["--min-history", "1000"], "12"),
        (["--min-history", "1.5"], "'1.5'"),
        (["--split", "random"], "'random'"),
        (["--split", "none", "--validation-users", "5"], "none"),
        (["--validation-users", "0"], "0"),
        (["--validation-users", "missing.csv"], "missing.csv"),
    ],
)
def test_fit_refuses_a_bad_value_before_training(arguments, told, command, log_file, tmp_path):
    outcome = command("fit", log_file, "--out", tmp_path / "new", *arguments)
    assert told in outcome.refusal
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_trains")
def test_a_file_of_users_needs_a_header(command, log_file, tmp_path):
    users = tmp_path / "users.csv"
    users.write_text("1\n2\n")
    arguments = ("fit", log_file, "--validation-users", users, "--out", tmp_path / "new")
    line = command(*arguments).refusal
    assert f"{users} needs a column user_id" in line
    assert "line 1 looks like data" in line


def test_resuming_without_a_checkpoint_is_refused(command, log_file, tmp_path, tiny):
    outcome = command("fit", log_file, "--out", tmp_path / "new", "--resume", *tiny)
    assert outcome.code == 1
    assert "no checkpoint" in outcome.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_trains")
def test_fit_refuses_a_log_that_does_not_exist(command, tmp_path):
    line = command("fit", tmp_path / "log.csv", "--out", tmp_path / "new").refusal
    assert "no such file" in line
    assert "ml-100k" in line


@pytest.mark.usefixtures("nothing_trains")
def test_fit_refuses_an_empty_log(command, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\n")
    assert "no interactions" in command("fit", log, "--out", tmp_path / "new").refusal


@pytest.mark.usefixtures("nothing_trains")
def test_fit_lists_the_columns_where_one_is_misnamed(command, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("person,item_id,timestamp\n1,2,3\n")
    line = command("fit", log, "--out", tmp_path / "new").refusal
    assert "'person', 'item_id', 'timestamp'" in line
    assert "--user-col" in line


@pytest.mark.usefixtures("nothing_trains")
def test_fit_refuses_users_who_are_all_too_short(command, tmp_path):
    log = save_log(tmp_path / "log.parquet", [1, 1, 2, 2], [1, 2, 1, 2], [1, 2, 1, 2])
    assert "3 interactions" in command("fit", log, "--out", tmp_path / "new").refusal


@pytest.mark.usefixtures("nothing_trains")
def test_an_output_that_exists_asks_for_force(command, log_file, own_run, digests):
    before = digests(own_run)
    assert "--force" in command("fit", log_file, "--out", own_run).refusal
    assert digests(own_run) == before


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize("place", ["/", ".", "..", "", "../own"])
@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("name", ["fit", "demo", "items add"])
def test_a_place_that_no_run_can_have_is_refused_in_one_line(
    command, log_file, own_run, digests, monkeypatch, place, force, name
):
    monkeypatch.chdir(own_run)
    before = digests(own_run)
    source = {"fit": [log_file], "demo": [], "items add": [own_run, "--items", log_file]}[name]
    refusal = command(*name.split(), *source, "--out", place, *force).refusal
    assert "choose another place" in refusal
    assert "defect" not in refusal
    assert digests(own_run) == before


def test_the_checkpoint_lies_beside_the_run_whatever_the_run_is_called(tmp_path, monkeypatch):
    (tmp_path / "runs" / "one").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "runs" / "one")
    assert checkpoint_of(Path("two")) == Path("two.checkpoint")
    assert checkpoint_of(Path()) == tmp_path / "runs" / "one.checkpoint"
    assert checkpoint_of(Path("..")) == tmp_path / "runs.checkpoint"


def test_an_output_under_a_file_is_refused(command, log_file, tmp_path):
    (tmp_path / "file").write_text("")
    assert (
        str(tmp_path / "file")
        in command("fit", log_file, "--out", tmp_path / "file" / "new").refusal
    )


@pytest.mark.usefixtures("no_training")
def test_a_full_disk_leaves_no_run_behind(command, log_file, tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    outcome = command("fit", log_file, "--out", tmp_path / "new")
    assert (outcome.code, outcome.out) == (1, "")
    assert "No space left on device" in outcome.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("k", "told"),
    [
        ("0", "k must be at least 1, got 0"),
        ("-3", "k must be at least 1, got -3"),
        ("5000", "500"),
        ("abc", "'abc'"),
        ("1.5", "'1.5'"),
    ],
)
@pytest.mark.parametrize("question", [["recommend", "--history", "1"], ["similar", "1"]])
def test_a_bad_k_is_refused(question, k, told, command, run):
    name, *rest = question
    assert told in command(name, run, *rest, "-k", k).refusal


def test_a_bad_k_is_refused_for_a_file_of_users(command, run, log_file, tmp_path):
    files = ["--input", log_file, "--output", tmp_path / "answers.parquet"]
    assert "k must be at least 1, got 0" in command("recommend", run, *files, "-k", "0").refusal
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_no_run_is_refused(command, tmp_path):
    assert str(tmp_path) in command("evaluate", tmp_path).refusal
    assert "missing" in command("similar", tmp_path / "missing", "1").refusal


def test_a_run_with_a_changed_byte_is_refused(command, own_run):
    weights = own_run / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "weights.safetensors" in command("evaluate", own_run).refusal


def test_a_run_with_a_missing_file_is_refused(command, own_run):
    (own_run / "items.parquet").unlink()
    assert "items.parquet" in command("recommend", own_run, "--user", "1").refusal


def test_a_run_of_a_newer_format_is_refused(command, own_run):
    manifest = own_run / "manifest.json"
    document = json.loads(manifest.read_text())
    document["format_version"] += 1
    manifest.write_text(json.dumps(document))
    assert "newer" in command("evaluate", own_run).refusal
