"""The service's events as the log of the next model."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.exceptions import ComputeError

import segue
from segue.cli import main
from segue.serving.stores import Append, Erase, StoredEvent, open_store
from segue.serving.stores.sql import SQLStore


@pytest.fixture
def database(tmp_path):
    url = f"sqlite:///{tmp_path / 'events.sqlite'}"
    store = open_store(url, "integer")
    events = [
        StoredEvent("a", "7", "3", 20, 4.5),
        StoredEvent("b", "500", "31", 21, None),
        StoredEvent("c", "8", "3", 22, None),
    ]
    store.write([Append(events)])
    yield url, store
    store.close()


def export(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["events", "export", *map(str, arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_events_are_a_log_with_ids_of_the_runs_types(database, served_run, tmp_path, capsys):
    url, _ = database
    assert export(served_run, tmp_path / "log.parquet", "--database", url) == 0
    assert "3 interactions" in capsys.readouterr().out
    log = segue.read_log(tmp_path / "log.parquet")
    assert log.frame.rows() == [(7, 3, 20, 4.5), (500, 31, 21, None), (8, 3, 22, None)]
    assert log.frame.schema["user_id"] == pl.Int64


def test_every_weight_that_is_taken_comes_through_the_next_run(client, tmp_path):
    largest = float(np.finfo(np.float32).max)
    events = [
        {"user_id": f"heavy {place}", "item_id": 1, "timestamp": 1, "weight": weight}
        for place, weight in enumerate([largest, -largest, 1e39, -1e300])
    ]
    answer = client.post("/v1/events", json={"events": events}).json()
    assert answer["accepted"] == 2
    assert [each["index"] for each in answer["rejected"]] == [2, 3]
    frame = pl.DataFrame(events[:2])
    log = segue.read_log(frame, weight_col="weight")
    kept = log.frame["weight"].cast(pl.Float32).cast(pl.Float64)  # as a run keeps them
    assert kept.to_list() == [largest, -largest]


def test_an_id_that_is_no_integer_makes_all_of_them_text(database, served_run, tmp_path):
    url, store = database
    store.write([Append([StoredEvent(None, "ann", "3", 23, None)])])
    export(served_run, tmp_path / "log.parquet", "--database", url)
    frame = pl.read_parquet(tmp_path / "log.parquet")
    assert frame["user_id"].to_list() == ["7", "500", "8", "ann"]
    assert frame["item_id"].to_list() == [3, 31, 3, 3]


def test_the_whole_log_begins_with_the_runs_but_for_those_who_were_erased(
    database, served_run, served, tmp_path
):
    url, store = database
    store.write([Erase("8"), Append([StoredEvent(None, "7", str(served.history_of(7)[2]), 2, 1)])])
    export(served_run, tmp_path / "log.parquet", "--database", url, "--whole")
    log = segue.read_log(tmp_path / "log.parquet").frame
    assert log.height == 119 * 12 + 2  # user 8 is gone; what user 7 repeats counts once
    assert 8 not in log["user_id"]
    assert log.filter(user_id=7).sort("timestamp")["item_id"].to_list() == [
        *served.history_of(7),
        3,
    ]


def test_who_is_erased_while_a_log_is_written_is_in_it_whole_or_not_at_all(
    database, served_run, tmp_path, monkeypatch
):
    url, store = database
    read = SQLStore.events_in

    def read_and_erase(self, connection):
        yield from read(self, connection)
        store.write([Erase("7")])

    monkeypatch.setattr(SQLStore, "events_in", read_and_erase)
    assert export(served_run, tmp_path / "log.parquet", "--database", url, "--whole") == 0
    log = segue.read_log(tmp_path / "log.parquet").frame
    assert log.filter(user_id=7).height == 13  # twelve of the run's own, and the event


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ComputeError("full")])
def test_a_log_that_cannot_be_written_leaves_nothing_and_says_so(
    database, served_run, tmp_path, monkeypatch, capsys, error
):
    url, _ = database
    place = tmp_path / "logs"
    place.mkdir()

    write = pl.DataFrame.write_parquet

    def fail(frame: pl.DataFrame, file: object, **options: object) -> None:
        if not isinstance(file, Path):  # a run, read by way of the memory
            return write(frame, file, **options)
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    (place / "log.parquet").write_text("of before")
    assert export(served_run, place / "log.parquet", "--database", url, "--force") == 1
    assert "choose another place" in capsys.readouterr().err
    assert [each.name for each in place.iterdir()] == ["log.parquet"]
    assert (place / "log.parquet").read_text() == "of before"


def test_a_database_and_no_events_are_not_both_taken(served_run, capsys):
    with pytest.raises(SystemExit):
        main(["serve", str(served_run), "--no-events", "--database", "sqlite:///x.sqlite"])
    assert "leave out one of the two" in capsys.readouterr().err


def test_a_file_that_exists_and_an_empty_store_are_refused(served_run, tmp_path, database, capsys):
    url, _ = database
    (tmp_path / "taken").write_text("mine")
    assert export(served_run, tmp_path / "taken", "--database", url) == 1
    assert (tmp_path / "taken").read_text() == "mine"
    empty = f"sqlite:///{tmp_path / 'empty.sqlite'}"
    assert export(served_run, tmp_path / "none", "--database", empty) == 1
    assert "there are no events yet" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
