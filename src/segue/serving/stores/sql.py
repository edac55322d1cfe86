"""The store in SQLite or PostgreSQL, by SQLAlchemy Core."""

import errno
import hashlib
import hmac
import logging
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from segue.errors import ConfigError, SegueError
from segue.files import sync_directory
from segue.serving.limits import MAX_HISTORY
from segue.serving.settings import ERASURE_KEY
from segue.serving.stores.protocol import (
    STORES,
    Erase,
    Hide,
    Snapshot,
    StoredEvent,
    StoreError,
    UserEvents,
    Write,
)
from segue.serving.times import Kind, Stored

log = logging.getLogger("segue.serving")

# Less than the usual deadline of a request, so that its answer can say what failed.
TIMEOUT_S = 4
BUSY_TIMEOUT_S = TIMEOUT_S
# libpq's parameters, unless the URL has its own. Whoever is gone is told by TCP; whoever is there
# but stands still ends no statement, and is waited for by a thread that nothing else needs.
POSTGRES_LIMITS: dict[str, Any] = {
    "connect_timeout": TIMEOUT_S,
    "options": f"-c statement_timeout={TIMEOUT_S * 1_000}",
    "tcp_user_timeout": TIMEOUT_S * 1_000,
    "keepalives_idle": TIMEOUT_S,
    "keepalives_interval": 1,
    "keepalives_count": TIMEOUT_S,
}
WIPE_AGAIN_S = 0.5
TIME_KIND = "time_kind"
KEY_PRINT = "erasure_key"
# Hashed with the erasure key, it tells whether a key is the one of before, and nothing of the key.
PRINTED = b"segue erasure key"
# Any number will do, as long as all servers use the same.
CREATION_LOCK = 7_364_778
# PostgreSQL ends one of two transactions that wait for each other, or read what the other wrote.
TRY_AGAIN = {"40001", "40P01"}
MAX_TRIES = 5
ROWS_AT_ONCE = 50_000
# For this transaction; what waits for more than this server's disk stays as the server has it.
WAIT_FOR_DISK = (
    "SELECT set_config('synchronous_commit', 'on', true) "
    "WHERE current_setting('synchronous_commit') = 'off'"
)


@STORES.register("sqlite")
@STORES.register("postgresql")
class SQLStore:
    """A `HistoryStore` in a database."""

    def __init__(self, url: str, kind: Kind, *, erasure_key: str | None = None) -> None:
        """Open the database, or make it.

        Args:
            url: An SQLAlchemy URL, of SQLite or PostgreSQL.
            kind: What the times are; a database keeps the kind that it was made with.
            erasure_key: What erased users are hashed with; for SQLite, by default, a file beside
                the database, made when there is none.

        Raises:
            ConfigError: The URL is of another database, or a key is missing.
            StoreError: The database cannot be opened, holds times of another kind, or has users
                erased by another key.
        """
        self._engine = _engine(url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._insert = sqlite.insert if self._is_sqlite else postgresql.insert
        self.kind = kind
        self._is_closing = threading.Event()
        self._wiping: threading.Thread | None = None
        self._wipe_lock = threading.Lock()
        self._define_tables(kind)
        try:
            if self._is_sqlite:
                _make_file(Path(str(self._engine.url.database)))
            with self._failures():
                self._create(kind, erasure_key)
        except SegueError:
            self.close()
            raise

    def read_many(self, user_ids: Sequence[str]) -> list[UserEvents]:
        """As `HistoryStore.read_many`, in two queries however many users there are."""
        events, erased = self._events.c, self._erased.c
        newest_first = (events.timestamp.desc(), events.id.desc())
        place = sa.func.row_number().over(partition_by=events.user_id, order_by=newest_first)
        numbered = (
            sa.select(events.user_id, events.item_id, events.timestamp, place.label("place"))
            .where(events.user_id.in_(set(user_ids)))
            .subquery()
            .c
        )
        newest = (
            sa.select(numbered.user_id, numbered.item_id, numbered.timestamp)
            .where(numbered.place <= MAX_HISTORY)
            .order_by(numbered.place.desc())
        )
        hashes = {user_id: self._hash(user_id) for user_id in user_ids}
        is_asked = erased.user_hash.in_(set(hashes.values()))
        items: dict[str, list[str]] = {user_id: [] for user_id in user_ids}
        times: dict[str, list[Stored]] = {user_id: [] for user_id in user_ids}
        with self._failures(), self._engine.connect() as connection:
            for user_id, item_id, timestamp in connection.execute(newest):
                items[user_id].append(item_id)
                times[user_id].append(timestamp)
            erased_hashes = self._erased_hashes(connection, is_asked)
        return [
            UserEvents(items[user_id], times[user_id], hashes[user_id] in erased_hashes)
            for user_id in user_ids
        ]

    def write(self, writes: Sequence[Write]) -> list[int]:
        """As `HistoryStore.write`, in one transaction."""
        with self._failures():
            counts = self._written(writes)
        if self._is_sqlite and any(isinstance(write, Erase) for write in writes):
            self._wipe()
        return counts

    def has_remains(self) -> bool:
        """As `HistoryStore.has_remains`; what PostgreSQL deletes is its vacuum's affair."""
        return self._wiping is not None

    def clashing(self, events: Sequence[StoredEvent]) -> list[int]:
        """As `HistoryStore.clashing`."""
        columns = self._events.c
        ids = {event.event_id for event in events} - {None}
        known = sa.select(*(columns[name.name] for name in fields(StoredEvent))).where(
            columns.event_id.in_(ids)
        )
        with self._failures(), self._engine.connect() as connection:
            kept = {row.event_id: StoredEvent(*row) for row in connection.execute(known)}
        return [
            place
            for place, event in enumerate(events)
            if event.event_id in kept and event != kept[event.event_id]
        ]

    def noted(self, name: str, value: str) -> str:
        """As `HistoryStore.noted`."""
        with self._failures(), self._engine.begin() as connection:
            return self._note(connection, name, value)

    def check(self) -> None:
        """As `HistoryStore.check`: asks the database for its kind of times."""
        with self._failures(), self._engine.connect() as connection:
            connection.execute(sa.select(self._meta.c.value)).first()

    def hidden(self) -> frozenset[str]:
        """As `HistoryStore.hidden`."""
        with self._failures(), self._engine.connect() as connection:
            return frozenset(connection.execute(sa.select(self._hidden.c.item_id)).scalars())

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """As `HistoryStore.snapshot`, in one transaction."""
        with self._failures(), self._engine.connect() as connection:
            if self._is_sqlite:
                connection.exec_driver_sql("BEGIN")  # the driver does so for writing only
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            # SQLite takes the snapshot at the first read.
            connection.execute(sa.select(self._meta.c.value)).first()
            yield _SQLSnapshot(self, connection)

    def events_in(self, connection: sa.Connection) -> Iterator[Sequence[StoredEvent]]:
        """All events that a connection sees."""
        events = self._events.c
        wanted = sa.select(
            events.event_id, events.user_id, events.item_id, events.timestamp, events.weight
        ).order_by(events.id)
        streamed = connection.execute(wanted, execution_options={"yield_per": ROWS_AT_ONCE})
        for rows in streamed.partitions():
            yield [StoredEvent(*row) for row in rows]

    def erased_in(self, connection: sa.Connection, user_ids: Sequence[str]) -> list[bool]:
        """Which of these users were erased, as a connection sees it."""
        erased = self._erased_hashes(connection, sa.true())
        return [bool(erased) and self._hash(user_id) in erased for user_id in user_ids]

    def close(self) -> None:
        """Give the connections back."""
        self._is_closing.set()
        wiping = self._wiping
        if wiping:
            wiping.join()
        self._engine.dispose()

    def _wipe(self) -> None:
        """Empty SQLite's log of changes, which still holds what was erased.

        That waits for whoever reads the database, such as a backup, and so not here.
        """
        with self._wipe_lock:
            if not self._is_wiped() and self._wiping is None:
                self._wiping = threading.Thread(target=self._wipe_later, daemon=True)
                self._wiping.start()

    def _wipe_later(self) -> None:
        while not self._is_closing.wait(WIPE_AGAIN_S):
            with self._wipe_lock:
                if self._is_wiped():
                    self._wiping = None
                    return

    def _is_wiped(self) -> bool:
        try:
            with self._failures(), self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout = 0")
                try:
                    wiped = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
                finally:
                    again_ms = round(BUSY_TIMEOUT_S * 1_000)
                    connection.exec_driver_sql(f"PRAGMA busy_timeout = {again_ms}")
        except StoreError:
            log.exception("what was erased is still in the log of changes")
            return False
        is_busy: int = wiped[0]
        return not is_busy

    def _define_tables(self, kind: Kind) -> None:
        tables = sa.MetaData()
        self._meta = sa.Table(
            "segue_meta",
            tables,
            sa.Column("name", sa.String, primary_key=True),
            sa.Column("value", sa.String, nullable=False),
        )
        self._events = sa.Table(
            "segue_events",
            tables,
            # SQLite counts by itself only in a column of exactly this type.
            sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
            sa.Column("event_id", sa.String, unique=True),
            sa.Column("user_id", sa.String, nullable=False),
            sa.Column("item_id", sa.String, nullable=False),
            sa.Column("timestamp", sa.Double if kind == "float" else sa.BigInteger, nullable=False),
            sa.Column("weight", sa.Double),
            sa.UniqueConstraint("user_id", "timestamp", "item_id"),
        )
        self._erased = sa.Table(
            "segue_erased", tables, sa.Column("user_hash", sa.String(64), primary_key=True)
        )
        self._hidden = sa.Table(
            "segue_hidden", tables, sa.Column("item_id", sa.String, primary_key=True)
        )
        self._tables = tables

    def _create(self, kind: Kind, erasure_key: str | None) -> None:
        """Make what is missing, and find the key; several servers may do so at once."""
        with self._engine.begin() as connection:
            if not self._is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATION_LOCK)))
            self._tables.create_all(connection)
            held = self._note(connection, TIME_KIND, kind)
            if held != kind:
                raise StoreError(
                    f"{self._place} holds events with {held} times, but the run's log has {kind} "
                    f"times; give another --database"
                )
            any_erased = sa.select(self._erased.c.user_hash).limit(1)
            has_erased = connection.execute(any_erased).first() is not None
            self._erasure_key, self._key_place = self._key(erasure_key, may_make=not has_erased)
            if has_erased:
                self._check_key(connection)
        if has_erased and self._is_sqlite:
            self._wipe()  # the process may have been killed before it had

    def _note(self, connection: sa.Connection, name: str, value: str) -> str:
        row = {"name": name, "value": value}
        connection.execute(self._insert(self._meta).values(row).on_conflict_do_nothing())
        is_named = self._meta.c.name == name
        held: str = connection.execute(sa.select(self._meta.c.value).where(is_named)).scalar_one()
        return held

    def _written(self, writes: Sequence[Write]) -> list[int]:
        for tries in range(1, MAX_TRIES + 1):
            try:
                with self._engine.begin() as connection:
                    if not self._is_sqlite:
                        connection.exec_driver_sql(WAIT_FOR_DISK)
                    return [self._write_one(connection, write) for write in writes]
            except DBAPIError as error:
                if tries == MAX_TRIES or getattr(error.orig, "sqlstate", None) not in TRY_AGAIN:
                    raise
        raise AssertionError("unreachable")

    def _write_one(self, connection: sa.Connection, write: Write) -> int:
        if isinstance(write, Erase):
            deleted = connection.execute(
                sa.delete(self._events).where(self._events.c.user_id == write.user_id)
            )
            self._check_key(connection)
            row = {"user_hash": self._hash(write.user_id)}
            connection.execute(self._insert(self._erased).values(row).on_conflict_do_nothing())
            return deleted.rowcount
        if isinstance(write, Hide):
            return self._hide(connection, write)
        if not write.events:
            return 0
        insert = self._insert(self._events).on_conflict_do_nothing().returning(self._events.c.id)
        return len(connection.execute(insert, [vars(event) for event in write.events]).all())

    def _hide(self, connection: sa.Connection, write: Hide) -> int:
        if not write.is_hidden:
            is_it = self._hidden.c.item_id == write.item_id
            return connection.execute(sa.delete(self._hidden).where(is_it)).rowcount
        insert = self._insert(self._hidden).values(item_id=write.item_id).on_conflict_do_nothing()
        return len(connection.execute(insert.returning(self._hidden.c.item_id)).all())

    def _hash(self, user_id: str) -> str:
        return hmac.new(self._erasure_key, user_id.encode(), hashlib.sha256).hexdigest()

    def _print(self) -> str:
        return hmac.new(self._erasure_key, PRINTED, hashlib.sha256).hexdigest()

    def _check_key(self, connection: sa.Connection) -> None:
        """Note the key with the first user that is erased; raises `StoreError` if it is another."""
        self._note(connection, KEY_PRINT, self._print())
        self._erased_hashes(connection, sa.false())

    def _erased_hashes(
        self, connection: sa.Connection, condition: sa.ColumnElement[bool]
    ) -> set[str]:
        """The hashes of erased users for which the condition holds.

        The key's own hash is read with them, as another server may have erased the first user.

        Raises:
            StoreError: They are of another key, so that nobody would be found among them.
        """
        hashes = sa.select(sa.literal(False), self._erased.c.user_hash).where(condition)
        prints = sa.select(sa.literal(True), self._meta.c.value).where(
            self._meta.c.name == KEY_PRINT
        )
        rows = connection.execute(sa.union_all(hashes, prints)).all()
        if any(is_print and value != self._print() for is_print, value in rows):
            raise StoreError(
                f"users were erased from {self._place} by another key than that of "
                f"{self._key_place}, without which they would come back; give the same "
                f"{ERASURE_KEY} or key file to all that opens it"
            )
        return {value for is_print, value in rows if not is_print}

    def _key(self, given: str | None, *, may_make: bool) -> tuple[bytes, str]:
        """The key and where it is from."""
        if given is not None:
            return given.encode(), ERASURE_KEY
        file = self._engine.url.database
        if not self._is_sqlite or not file:
            raise ConfigError(
                f"users erased from {self._place} are hashed with a key that all its servers "
                f"share; set {ERASURE_KEY} to a secret of your own"
            )
        path = Path(f"{file}.key")
        if not may_make and not path.exists():
            raise StoreError(
                f"users were erased from {self._place}, but the key {path} is missing, without "
                f"which they would come back; restore it, or set {ERASURE_KEY} if that was used"
            )
        return _key_in(path), str(path)

    @property
    def _place(self) -> str:
        return self._engine.url.render_as_string(hide_password=True)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            reason = " ".join(str(error.orig).split())
            raise StoreError(f"the database {self._place} failed: {reason}") from error
        except SQLAlchemyError as error:
            raise StoreError(f"the database {self._place} failed: {error}") from error


@dataclass(frozen=True)
class _SQLSnapshot:
    """A `Snapshot`: what a transaction sees."""

    _store: SQLStore
    _connection: sa.Connection

    def everything(self) -> Iterator[Sequence[StoredEvent]]:
        return self._store.events_in(self._connection)

    def has_erased(self, user_ids: Sequence[str]) -> list[bool]:
        return self._store.erased_in(self._connection, user_ids)


def _engine(text: str) -> sa.Engine:
    """Connections of a database that can be shared by threads.

    Raises:
        ConfigError: The URL is none, or of another database than SQLite and PostgreSQL.
    """
    try:
        url = sa.make_url(text)
    except ArgumentError:
        raise ConfigError(
            "the database URL cannot be read; give sqlite:///FILE or postgresql://HOST/NAME"
        ) from None
    name = url.get_backend_name()
    if name == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigError("a database in memory forgets; give a file: sqlite:///FILE")
        engine = sa.create_engine(
            url,
            hide_parameters=True,
            pool_timeout=TIMEOUT_S,
            connect_args={"timeout": BUSY_TIMEOUT_S},
        )
        sa.event.listen(engine, "connect", _prepare_sqlite)
        return engine
    if name != "postgresql":
        raise ConfigError(f"the database {name!r} is not known; give sqlite or postgresql")
    try:
        return sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            hide_parameters=True,
            pool_pre_ping=True,
            pool_timeout=TIMEOUT_S,
            connect_args={k: v for k, v in POSTGRES_LIMITS.items() if k not in url.query},
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"PostgreSQL needs the module {error.name!r}; install psycopg[binary]"
        ) from None


def _make_file(path: Path) -> None:
    """An empty database for the owner's eyes only, where there is none; and writable if there is.

    SQLite gives its other files the same rights.

    Raises:
        StoreError: It cannot be made or written.
    """
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            sync_directory(path.parent)
        os.close(os.open(path, os.O_RDWR))
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))
    except OSError as error:
        raise StoreError(
            f"the database {path} cannot be made or written: {error.strerror}; give another place "
            f"with --database, or serve without a memory with --no-events"
        ) from None


def _prepare_sqlite(connection: Any, _: object) -> None:
    """A commit returns when the disk has it; readers go on meanwhile; deleted rows are zeros."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _key_in(path: Path) -> bytes:
    """The key in a file, which is made if there is none, for the owner's eyes only.

    Raises:
        StoreError: It cannot be read or made, or is empty.
    """
    try:
        if not path.exists():
            draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)  # never replaces a key that another server made meanwhile
            except FileExistsError:
                pass
            finally:
                draft.unlink()
            sync_directory(path.parent)
        key = path.read_bytes().strip()
    except OSError as error:
        raise StoreError(f"the erasure key {path} cannot be read or made: {error}") from None
    if not key:
        raise StoreError(f"the erasure key {path} is empty; restore it from a backup")
    return key
