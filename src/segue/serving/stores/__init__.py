"""Stores: the memory of a service; one file each, registered by the scheme of their URLs."""

from segue.serving.stores import none, sql
from segue.serving.stores.protocol import (
    STORES,
    Append,
    Erase,
    Hide,
    HistoryStore,
    NoMemoryError,
    Snapshot,
    StoredEvent,
    StoreError,
    UserEvents,
    Write,
    check_unit,
    open_store,
    open_store_of,
)

__all__ = [
    "STORES",
    "Append",
    "Erase",
    "Hide",
    "HistoryStore",
    "NoMemoryError",
    "Snapshot",
    "StoreError",
    "StoredEvent",
    "UserEvents",
    "Write",
    "check_unit",
    "none",
    "open_store",
    "open_store_of",
    "sql",
]
