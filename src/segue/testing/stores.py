"""What a store promises: see `segue.serving.stores.HistoryStore`."""

from collections.abc import Callable
from contextlib import closing
from functools import partial

from segue.serving.limits import MAX_HISTORY
from segue.serving.stores import Append, Erase, Hide, HistoryStore, StoredEvent, UserEvents


def check_store(open_again: Callable[[], HistoryStore]) -> None:
    """Holds a store to what every store promises.

    Args:
        open_again: Opens the store, empty at first, of integer times; and again, as it was left.

    Raises:
        AssertionError: A promise is broken; the line says which.
    """
    with closing(open_again()) as store:
        store.check()
        kind = store.kind
        assert store.noted("unit", "s") == "s", "what is noted must be told again"
        assert kind == "integer", f"kind must be what the store was made with, got {kind}"
        accepted = store.write([Append([_event("ann", "3", 30), _event("ann", "1", 10, "a")])])
        assert accepted == [2], f"two new events must count as 2, got {accepted}"
        _check_duplicates(store)
        store.write([Append([_event("bob", "7", 5), _event("ann", "2", 10)])])
        _check_ann(_one(store, "ann"))
        _check_together(store)
        _check_everything(store)
        _check_hiding(store)
    with closing(open_again()) as store:
        assert store.noted("unit", "ms") == "s", "what was noted first must stay"
        _check_ann(_one(store, "ann"))
        _check_duplicates(store)
        _check_newest(store)
        _check_erasure(store)
    with closing(open_again()) as store:
        assert store.hidden() == {"5"}, "what was hidden must be so when the store opens again"
        ann = _one(store, "ann")
        assert ann.is_erased, "an erasure must be there when the store opens again"
        assert list(ann.items) == ["4"], "what was erased must be gone when the store opens again"


def _check_duplicates(store: HistoryStore) -> None:
    same_id = store.write([Append([_event("ann", "9", 99, "a")])])
    assert same_id == [0], "an event whose id is known must not be kept"
    assert store.clashing([_event("ann", "9", 99, "a"), _event("ann", "1", 10, "a")]) == [0], (
        "an event whose id is another event's must be told apart from one that is repeated"
    )
    same_meeting = store.write([Append([_event("ann", "3", 30, "b")])])
    assert same_meeting == [0], "a user's second event of one item and time must not be kept"


def _check_ann(ann: UserEvents) -> None:
    assert list(ann.items) == ["1", "2", "3"], (
        f"events must come in order of time, then of arrival, got {list(ann.items)}"
    )
    assert list(ann.times) == [10, 10, 30], f"times must be as they were sent, got {ann.times}"


def _check_together(store: HistoryStore) -> None:
    assert store.read_many([]) == [], "to read nobody must give nothing"
    users = ["nobody", "bob", "ann", "bob"]
    together = [(list(events.items), list(events.times)) for events in store.read_many(users)]
    alone = [
        (list(events.items), list(events.times)) for events in map(partial(_one, store), users)
    ]
    assert together == alone, f"users read together must be as they are alone, got {together}"
    assert together[0] == ([], []), "somebody without events must have none"
    assert together[1] == (["7"], [5]), f"a user must have only their own, got {together[1]}"


def _check_everything(store: HistoryStore) -> None:
    with store.snapshot() as moment:
        reading = moment.everything()
        arrived = [event.item_id for event in next(reading)]
        store.write([Append([_event("carl", "8", 1)]), Erase("carl")])
        arrived += [event.item_id for events in reading for event in events]
        assert moment.has_erased(["carl"]) == [False], "a snapshot must be of one moment"
    assert arrived == ["3", "1", "7", "2"], (
        f"everything must be the events of one moment in order of arrival, got {arrived}"
    )


def _check_hiding(store: HistoryStore) -> None:
    hides = [Hide("5", True), Hide("6", True), Hide("5", True), Hide("6", False), Hide("7", False)]
    counts = store.write(hides)
    assert counts == [1, 1, 0, 1, 0], f"hiding must tell whether it changed anything, got {counts}"
    assert store.hidden() == {"5"}, f"what is hidden must be told, got {store.hidden()}"


def _check_newest(store: HistoryStore) -> None:
    times = range(MAX_HISTORY + 1)
    store.write([Append([_event("dora", str(time), time) for time in times])])
    kept = list(_one(store, "dora").times)
    assert kept == list(times)[1:], f"the newest {MAX_HISTORY:,} events must be read, oldest first"


def _check_erasure(store: HistoryStore) -> None:
    erased, added = store.write([Erase("ann"), Append([_event("ann", "4", 40)])])
    assert (erased, added) == (3, 1), f"erasing must tell how many events went, got {erased}"
    ann = _one(store, "ann")
    assert ann.is_erased, "an erased user must be known as such"
    assert list(ann.items) == ["4"], "what comes after an erasure must be kept"
    assert not store.has_remains(), "nothing may remain of what was erased where nobody reads"
    with store.snapshot() as moment:
        told = moment.has_erased(["bob", "ann"])
        assert told == [False, True], "has_erased must tell them apart"


def _one(store: HistoryStore, user_id: str) -> UserEvents:
    (events,) = store.read_many([user_id])
    return events


def _event(user_id: str, item_id: str, timestamp: int, event_id: str | None = None) -> StoredEvent:
    return StoredEvent(event_id, user_id, item_id, timestamp, None)
