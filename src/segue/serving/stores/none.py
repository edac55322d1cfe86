"""No store: a service without a memory, for where nothing can be written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from segue.serving.stores.protocol import (
    STORES,
    NoMemoryError,
    Snapshot,
    StoredEvent,
    UserEvents,
    Write,
)
from segue.serving.times import Kind


@STORES.register("none")
class NoStore:
    """A `HistoryStore` that knows nobody and refuses to be told."""

    def __init__(self, url: str, kind: Kind, *, erasure_key: str | None = None) -> None:
        """Takes what every store takes."""
        self.kind = kind

    def read_many(self, user_ids: Sequence[str]) -> list[UserEvents]:
        """Nothing of anybody."""
        return [UserEvents() for _ in user_ids]

    def write(self, writes: Sequence[Write]) -> list[int]:
        """Raises: NoMemoryError: Always."""
        raise NoMemoryError("the service keeps nothing: it was started with --no-events")

    def has_remains(self) -> bool:
        """Nothing was written."""
        return False

    def clashing(self, events: Sequence[StoredEvent]) -> list[int]:
        """No event is known."""
        return []

    def hidden(self) -> frozenset[str]:
        """No item is hidden."""
        return frozenset()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Nothing."""
        yield _Nothing()

    def noted(self, name: str, value: str) -> str:
        """Nothing was noted before."""
        return value

    def check(self) -> None:
        """Nothing can fail."""

    def close(self) -> None:
        """Nothing is open."""


class _Nothing:
    """A `Snapshot` of nothing."""

    def everything(self) -> Iterator[Sequence[StoredEvent]]:
        return iter(())

    def has_erased(self, user_ids: Sequence[str]) -> list[bool]:
        return [False] * len(user_ids)
