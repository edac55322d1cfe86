"""What a store promises: see `segue.serving.stores.HistoryStore`."""

from collections.abc import Callable

from segue.serving.stores import Append, Erase, HistoryStore, StoredEvent, UserEvents


def check_store(open_again: Callable[[], HistoryStore]) -> None:
    """Holds a store to what every store promises.

    Args:
        open_again: Opens the store, empty at first, of integer times; and again, as it was left.

    Raises:
        AssertionError: A promise is broken; the line says which.
    """
    store = open_again()
    store.check()
    assert store.kind == "integer", f"kind must be what the store was made with, got {store.kind}"
    accepted = store.write([Append([_event("ann", "3", 30), _event("ann", "1", 10, "a")])])
    assert accepted == [2], f"two new events must count as 2, got {accepted}"
    _check_duplicates(store)
    store.write([Append([_event("bob", "7", 5), _event("ann", "2", 10)])])
    _check_ann(_one(store, "ann"))
    nobody, bob = store.read_many(["nobody", "bob"])
    assert not nobody.items, "somebody without events must have none"
    assert list(bob.items) == ["7"], "users read together must be as they are alone"
    arrived = [event.item_id for events in store.everything() for event in events]
    assert arrived == ["3", "1", "7", "2"], f"events must stay in order of arrival, got {arrived}"
    store.close()
    store = open_again()
    _check_ann(_one(store, "ann"))
    _check_erasure(store)
    store.close()
    store = open_again()
    assert _one(store, "ann").is_erased, "an erasure must be there when the store opens again"
    store.close()


def _check_duplicates(store: HistoryStore) -> None:
    same_id = store.write([Append([_event("ann", "9", 99, "a")])])
    assert same_id == [0], "an event whose id is known must not be kept"
    same_meeting = store.write([Append([_event("ann", "3", 30, "b")])])
    assert same_meeting == [0], "a user's second event of one item and time must not be kept"


def _check_ann(ann: UserEvents) -> None:
    assert list(ann.items) == ["1", "2", "3"], (
        f"events must come in order of time, then of arrival, got {list(ann.items)}"
    )
    assert list(ann.times) == [10, 10, 30], f"times must be as they were sent, got {ann.times}"


def _check_erasure(store: HistoryStore) -> None:
    erased, added = store.write([Erase("ann"), Append([_event("ann", "4", 40)])])
    assert (erased, added) == (3, 1), f"erasing must tell how many events went, got {erased}"
    ann = _one(store, "ann")
    assert ann.is_erased, "an erased user must be known as such"
    assert list(ann.items) == ["4"], "what comes after an erasure must be kept"
    assert store.has_erased(["bob", "ann"]) == [False, True], "has_erased must tell them apart"


def _one(store: HistoryStore, user_id: str) -> UserEvents:
    (events,) = store.read_many([user_id])
    return events


def _event(user_id: str, item_id: str, timestamp: int, event_id: str | None = None) -> StoredEvent:
    return StoredEvent(event_id, user_id, item_id, timestamp, None)
