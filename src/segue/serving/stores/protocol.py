"""What a store promises: the memory of a service, events of users and what was erased."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from segue.config.registry import Registry
from segue.errors import ConfigError, SegueError
from segue.serving.times import Clock, Kind, Stored


class StoreError(SegueError):
    """The database cannot be opened, read or written."""


class NoMemoryError(SegueError):
    """The service was started without a store."""


@dataclass(frozen=True)
class StoredEvent:
    """An event as it is kept; ids are text."""

    event_id: str | None
    user_id: str
    item_id: str
    timestamp: Stored
    weight: float | None


@dataclass(frozen=True)
class Append:
    """Events to be written; answered by how many of them were new."""

    events: Sequence[StoredEvent]


@dataclass(frozen=True)
class Erase:
    """A user to be erased; answered by how many events that were."""

    user_id: str


@dataclass(frozen=True)
class Hide:
    """An item to be hidden, or shown again; answered by 1 where that changed something, else 0."""

    item_id: str
    is_hidden: bool


Write = Append | Erase | Hide


@dataclass(frozen=True)
class UserEvents:
    """What the store has of a user, in time order, then in that of arrival.

    Attributes:
        items: Their ids.
        times: When they were met.
        is_erased: The user was erased once; the run's copy must be ignored.
    """

    items: Sequence[str] = ()
    times: Sequence[Stored] = ()
    is_erased: bool = False


class Snapshot(Protocol):
    """All that a store holds, as of one moment."""

    def everything(self) -> Iterator[Sequence[StoredEvent]]:
        """All events in the order of their arrival, many at a time."""
        ...

    def has_erased(self, user_ids: Sequence[str]) -> list[bool]:
        """Which of these users were erased."""
        ...


class HistoryStore(Protocol):
    """Events and erasures of users.

    What `write` was given is on disk, whole, when it returns, and no crash of the process or the
    machine undoes it; where it raises or is cut off, none of it is there.

    A store is made as `SomeStore(url, kind, erasure_key=...)` and registered with
    `STORES.register(scheme)` for the URLs that begin with `scheme:`. An event is a duplicate, and
    is not kept, if its event id is known or if the user has met that item at that time.
    `segue.testing.stores` tests what is promised here.

    Every method may be called from any thread, and raises `StoreError` where the store cannot be
    read or written.

    Attributes:
        kind: What the times are; a store keeps the kind that it was made with.
    """

    kind: Kind

    def read_many(self, user_ids: Sequence[str]) -> list[UserEvents]:
        """What there is of each of these users, at most the newest 10,000 events each.

        All are read at once, not one after another; a user may be among them twice.
        """
        ...

    def write(self, writes: Sequence[Write]) -> list[int]:
        """All of these, in their order, or none of them; the answer to each."""
        ...

    def has_remains(self) -> bool:
        """Whether the files still hold something that was erased, which goes once nobody reads."""
        ...

    def clashing(self, events: Sequence[StoredEvent]) -> list[int]:
        """The places of those whose event id is known of an event that is not the same."""
        ...

    def hidden(self) -> frozenset[str]:
        """The items that are hidden."""
        ...

    def snapshot(self) -> AbstractContextManager["Snapshot"]:
        """All that the store holds at one moment; what is written meanwhile is not in it."""
        ...

    def noted(self, name: str, value: str) -> str:
        """What is noted under that name, with the events: this value, if there was none before."""
        ...

    def check(self) -> None:
        """Raises `StoreError` where the store cannot be read."""
        ...

    def close(self) -> None:
        """Gives back what it holds open."""
        ...


TIME_UNIT = "time_unit"
STORES: Registry[Callable[..., HistoryStore]] = Registry("store", "segue.serving.stores")


def open_store(url: str, kind: Kind, *, erasure_key: str | None = None) -> HistoryStore:
    """The store at a URL, which is made where it is missing.

    Args:
        url: `sqlite:///FILE`, `postgresql://HOST/NAME`, or one of a registered scheme.
        kind: What the times are.
        erasure_key: What erased users are hashed with; what it is by default is the store's choice.

    Raises:
        ConfigError: No store of that scheme is registered, or the URL or the key does not do.
        StoreError: The store cannot be opened or holds times of another kind.
    """
    scheme, separator, _ = url.partition(":")
    if not separator:
        raise ConfigError(
            "the database URL cannot be read; give sqlite:///FILE or postgresql://HOST/NAME"
        )
    return STORES[scheme.partition("+")[0]](url, kind, erasure_key=erasure_key)


def open_store_of(clock: Clock, url: str, *, erasure_key: str | None = None) -> HistoryStore:
    """`open_store`, for events whose times are those of a log.

    Raises:
        ConfigError: See `open_store`.
        StoreError: See `open_store`, or the events have times of another unit.
    """
    store = open_store(url, clock.kind, erasure_key=erasure_key)
    try:
        check_unit(store, clock)
    except SegueError:
        store.close()
        raise
    return store


def check_unit(store: HistoryStore, clock: Clock) -> None:
    """Refuse to read seconds as milliseconds.

    Raises:
        StoreError: The stored events have times of another kind or unit than the log.
    """
    held = store.noted(TIME_UNIT, clock.unit)
    if (store.kind, held) != (clock.kind, clock.unit):
        raise StoreError(
            f"the stored events have times of the kind {store.kind} in the unit {held}, but the "
            f"run's log has {clock.kind} in {clock.unit}; train on a log in the same unit, or give "
            f"another --database"
        )
