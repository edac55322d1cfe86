"""Events on disk: once each, and gone when erased."""

import errno
import os
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from segue.errors import ConfigError
from segue.serving.stores import (
    Append,
    Erase,
    HistoryStore,
    StoredEvent,
    StoreError,
    UserEvents,
    open_store,
)
from segue.serving.stores.sql import POSTGRES_LIMITS
from segue.testing.stores import check_store

KEY = "a key that nobody guesses"


def event(user: str = "ann", item: str = "1", at: float = 1, event_id: str | None = None):
    return StoredEvent(event_id, user, item, at, None)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'events.sqlite'}"
        return
    import psycopg

    server = request.getfixturevalue("postgres")
    name = f"test_{tmp_path.name}".lower()[:50]
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        admin.execute(f'CREATE DATABASE "{name}"')
    yield f"{server}/{name}"


def read(store: HistoryStore, user_id: str) -> UserEvents:
    """What the store has of one user."""
    (events,) = store.read_many([user_id])
    return events


def everything(store: HistoryStore) -> list[StoredEvent]:
    with store.snapshot() as moment:
        return [event for rows in moment.everything() for event in rows]


def has_erased(store: HistoryStore, user_ids: list[str]) -> list[bool]:
    with store.snapshot() as moment:
        return moment.has_erased(user_ids)


@pytest.fixture
def store(url: str) -> Iterator[HistoryStore]:
    opened = open_store(url, "integer", erasure_key=KEY)
    yield opened
    opened.close()


def test_the_store_keeps_what_stores_promise(url):
    check_store(lambda: open_store(url, "integer", erasure_key=KEY))


def test_everything_is_of_one_moment_however_many_rows_are_read_at_once(store, monkeypatch):
    monkeypatch.setattr("segue.serving.stores.sql.ROWS_AT_ONCE", 2)
    store.write([Append([event(item=str(number)) for number in range(7)])])
    with store.snapshot() as moment:
        reading = moment.everything()
        first = list(next(reading))
        assert len(first) == 2
        store.write([Append([event(item="new")]), Append([event(user="bob")]), Erase("ann")])
        items = [each.item_id for rows in [first, *reading] for each in rows]
        assert moment.has_erased(["ann"]) == [False]
    assert has_erased(store, ["ann"]) == [True]
    assert items == ["0", "1", "2", "3", "4", "5", "6"]


def test_many_users_are_read_in_as_many_queries_as_one(store):
    users = [str(number) for number in range(64)]
    store.write([Append([event(user=user, item=user) for user in users])])
    queries: list[str] = []
    sa.event.listen(
        store._engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, *_: queries.append(statement),
    )
    store.read_many(users[:1])
    for_one, queries[:] = len(queries), []
    assert [list(events.items) for events in store.read_many(users)] == [[user] for user in users]
    assert len(queries) == for_one


def test_events_come_back_by_time_and_then_by_arrival(store):
    wanted = [("late", 9), ("early", 1), ("tie one", 5), ("tie two", 5)]
    store.write([Append([event(item=item, at=at) for item, at in wanted])])
    store.write([Append([event(user="bob", item="other")])])
    ann = read(store, "ann")
    assert list(ann.items) == ["early", "tie one", "tie two", "late"]
    assert list(ann.times) == [1, 5, 5, 9]
    assert not ann.is_erased
    assert list(read(store, "nobody").items) == []


def test_an_event_is_kept_once_by_its_id_and_by_user_item_and_time(store):
    twice = [event(item="1", event_id="a"), event(item="2", event_id="a"), event(item="1")]
    assert store.write([Append(twice), Append([event(item="3", event_id="b")])]) == [1, 1]
    assert store.write([Append([event(item="9", at=4, event_id="a"), event(item="4")])]) == [1]
    assert sorted(read(store, "ann").items) == ["1", "3", "4"]


def test_odd_ids_come_back_as_they_were(store):
    odd = ["O'Brien; DROP TABLE segue_events", '"quoted"', "🎬 née", "%_\\", "x" * 256, "🎬" * 256]
    store.write([Append([event(user=odd[-1], item=each) for each in odd])])
    assert list(read(store, odd[-1]).items) == odd


def test_erasure_leaves_a_keyed_hash_only(store, url, tmp_path):
    store.write([Append([event(user="zoe-the-user", item="rare-item", event_id="rare-event")])])
    store.write([Append([event(user="ann")])])
    assert store.write([Erase("zoe-the-user")]) == [1]
    erased = read(store, "zoe-the-user")
    assert (list(erased.items), erased.is_erased) == ([], True)
    assert has_erased(store, ["ann", "zoe-the-user"]) == [False, True]
    assert not read(store, "ann").is_erased
    if url.startswith("sqlite"):
        for path in tmp_path.iterdir():
            content = path.read_bytes()
            assert not any(word in content for word in (b"zoe", b"rare-item", b"rare-event"))
    store.write([Append([event(user="zoe-the-user", item="new")])])
    again = read(store, "zoe-the-user")
    assert (list(again.items), again.is_erased) == (["new"], True)


def test_what_was_erased_leaves_the_log_of_changes_once_nobody_reads(tmp_path, monkeypatch):
    monkeypatch.setattr("segue.serving.stores.sql.WIPE_AGAIN_S", 0.01)
    file = tmp_path / "events.sqlite"
    store = open_store(f"sqlite:///{file}", "integer")
    store.write([Append([event(user="zoe-the-user")])])

    def files() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    with closing(sqlite3.connect(file)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM segue_events").fetchall()
        assert store.write([Erase("zoe-the-user")]) == [1]
        assert store.has_remains()
        assert b"zoe-the-user" in files()
        assert store.write([Append([event()])]) == [1]
    while store.has_remains():
        time.sleep(0.01)
    assert b"zoe-the-user" not in files()
    store.close()


def test_what_a_killed_process_left_of_the_erased_goes_at_the_next_start(tmp_path, monkeypatch):
    url, file = f"sqlite:///{tmp_path / 'events.sqlite'}", tmp_path / "events.sqlite"
    store = open_store(url, "integer")
    store.write([Append([event(user="zoe-the-user")])])
    monkeypatch.setattr("segue.serving.stores.sql.SQLStore._wipe", lambda store: None)
    store.write([Erase("zoe-the-user")])
    monkeypatch.undo()
    assert b"zoe-the-user" in file.with_name("events.sqlite-wal").read_bytes()
    again = open_store(url, "integer")
    assert b"zoe-the-user" not in file.read_bytes()
    assert b"zoe-the-user" not in file.with_name("events.sqlite-wal").read_bytes()
    again.close()
    store.close()


def test_another_key_is_refused_once_somebody_is_erased(store, url):
    other = open_store(url, "integer", erasure_key=KEY[::-1])
    other.write([Append([event(user="ann")])])
    store.write([Erase("zoe")])
    for use in (
        lambda: open_store(url, "integer", erasure_key=KEY[::-1]),
        lambda: read(other, "zoe"),
        lambda: has_erased(other, ["zoe"]),
        lambda: other.write([Erase("ann")]),
    ):
        with pytest.raises(StoreError, match="by another key than that of SEGUE_ERASURE_KEY"):
            use()
    other.close()
    assert has_erased(store, ["ann", "zoe"]) == [False, True]
    assert list(read(store, "ann").items) == ["1"]  # nothing of the refused erasure was done


def test_the_key_of_erasures_of_before_is_noted_when_they_are_opened(store, url):
    store.write([Erase("zoe")])
    with store._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM segue_meta WHERE name = 'erasure_key'")
    open_store(url, "integer", erasure_key=KEY).close()
    with pytest.raises(StoreError, match="by another key"):
        open_store(url, "integer", erasure_key=KEY[::-1])


def test_a_key_file_that_is_missing_where_users_were_erased_is_not_made_anew(tmp_path):
    url, key = f"sqlite:///{tmp_path / 'events.sqlite'}", tmp_path / "events.sqlite.key"
    store = open_store(url, "integer")
    first = key.read_bytes()
    key.unlink()
    open_store(url, "integer").close()  # nobody was erased: a new key does no harm
    key.write_bytes(first)
    store.write([Erase("zoe")])
    store.close()
    key.unlink()
    with pytest.raises(StoreError, match=r"the key .*events.sqlite.key is missing"):
        open_store(url, "integer")
    assert not key.exists()
    with pytest.raises(StoreError, match="by another key than that of SEGUE_ERASURE_KEY"):
        open_store(url, "integer", erasure_key=KEY)
    key.write_bytes(first)
    assert read(open_store(url, "integer"), "zoe").is_erased


def test_a_database_of_other_times_is_refused(store, url):
    with pytest.raises(StoreError, match="holds events with integer times"):
        open_store(url, "float", erasure_key=KEY)


def test_events_are_there_after_opening_again(store, url):
    store.write([Append([event()])])
    again = open_store(url, "integer", erasure_key=KEY)
    assert list(read(again, "ann").items) == ["1"]
    assert [each.item_id for each in everything(again)] == ["1"]
    again.close()


def test_many_servers_write_the_same_events_at_once(url):
    stores = [open_store(url, "integer", erasure_key=KEY) for _ in range(4)]
    events = [event(item=str(each), event_id=str(each)) for each in range(200)]
    counts: list[int] = []

    def write(store: HistoryStore, order: int) -> None:
        for at in range(0, 200, 20):
            counts.extend(store.write([Append(events[::order][at : at + 20])]))

    threads = [
        threading.Thread(target=write, args=(each, (-1) ** at)) for at, each in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 200
    assert len(read(stores[0], "ann").items) == 200
    for each in stores:
        each.close()


def test_sqlite_keeps_its_promises_to_the_disk(tmp_path):
    file = tmp_path / "events.sqlite"
    store = open_store(f"sqlite:///{file}", "integer")
    with store._engine.connect() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "secure_delete")
        ]
    assert pragmas == ["wal", 2, 1]  # 2 is FULL: https://sqlite.org/pragma.html#pragma_synchronous
    key = file.with_name("events.sqlite.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_text()) == 64
    store.write([Append([event()])])
    for path in tmp_path.iterdir():  # the log of changes too
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    store.write([Erase("ann")])
    store.close()
    assert read(open_store(f"sqlite:///{file}", "integer"), "ann").is_erased


@pytest.mark.parametrize("default", ["off", "remote_apply"])
def test_postgresql_waits_for_the_disk_whatever_its_settings_are(url, default):
    if url.startswith("sqlite"):
        pytest.skip("see the test before")
    import psycopg

    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{admin.info.dbname}" SET synchronous_commit = {default}')
    store = open_store(url, "integer", erasure_key=KEY)
    at_commit: list[str] = []

    def note(connection: sa.Connection) -> None:
        at_commit.append(connection.exec_driver_sql("SHOW synchronous_commit").scalar_one())

    sa.event.listen(store._engine, "commit", note)
    assert store.write([Append([event()]), Erase("ann")]) == [1, 1]
    assert at_commit == ["on" if default == "off" else default]
    with store._engine.connect() as connection:
        shown = connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()
    assert shown == default  # others who share the connection are let alone
    store.close()


def test_a_locked_database_is_told_and_works_again_later(tmp_path, monkeypatch):
    monkeypatch.setattr("segue.serving.stores.sql.BUSY_TIMEOUT_S", 0.05)
    file = tmp_path / "events.sqlite"
    store = open_store(f"sqlite:///{file}", "integer")
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.write([Append([event()])])
        other.execute("ROLLBACK")
    other.close()
    assert store.write([Append([event()])]) == [1]
    store.close()


def test_a_full_disk_is_told_and_nothing_half_written(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", "integer")
    store.write([Append([event(item="before")])])
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        store.write([Append([event(item=f"{each:0256}") for each in range(200)])])
    assert list(read(store, "ann").items) == ["before"]
    store.close()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_place_that_cannot_be_written_is_told_with_what_to_do(tmp_path, monkeypatch, is_there):
    file = tmp_path / "events.sqlite"
    if is_there:
        open_store(f"sqlite:///{file}", "integer").close()
    opened = os.open

    def read_only(path, flags, *rest):  # as on a read-only file system, for root too
        if flags & os.O_RDWR and not (is_there and flags & os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StoreError, match=r"Read-only file system; give another .*--database, or"):
        open_store(f"sqlite:///{file}", "integer")


def test_a_directory_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StoreError, match="No such file or directory; give another place with --da"):
        open_store(f"sqlite:///{tmp_path / 'none' / 'events.sqlite'}", "integer")


def test_a_corrupt_database_is_told(tmp_path):
    file = tmp_path / "events.sqlite"
    file.write_bytes(b"no database at all, " * 100)
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite:///{file}", "integer")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "in memory"),
        ("mysql://host/name", "mysql"),
        ("nonsense", "cannot be read"),
        ("postgresql://127.0.0.1:1/none", "set SEGUE_ERASURE_KEY|failed"),
    ],
)
def test_an_unusable_url_is_refused_without_its_password(url, message):
    with pytest.raises((ConfigError, StoreError), match=message):
        open_store(url, "integer")


def test_a_database_that_accepts_and_says_nothing_is_given_up(monkeypatch):
    pytest.importorskip("psycopg")
    limits = {**POSTGRES_LIMITS, "connect_timeout": 2}  # the least that libpq takes
    monkeypatch.setattr("segue.serving.stores.sql.POSTGRES_LIMITS", limits)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/none"
        with pytest.raises(StoreError, match="timeout"):
            open_store(url, "integer", erasure_key=KEY)


def test_postgresql_ends_a_statement_that_takes_too_long(url):
    if url.startswith("sqlite"):
        pytest.skip("SQLite has no statements of others to wait for")
    url += "?options=-c%20statement_timeout%3D1000"  # the URL's own wins
    store = open_store(url, "integer", erasure_key=KEY)
    with (
        pytest.raises(StoreError, match="statement timeout"),
        store._failures(),
        store._engine.connect() as connection,
    ):
        connection.exec_driver_sql("SELECT pg_sleep(600)")
    store.check()
    store.close()


def test_a_password_is_never_told(tmp_path):
    with pytest.raises(StoreError) as told:
        open_store("postgresql://me:hush@127.0.0.1:1/none", "integer", erasure_key=KEY)
    assert "hush" not in str(told.value)
