"""Ctrl-C and SIGTERM while a training runs: it stops between two batches, so that it can save."""

import signal
import threading
from typing import Any


class Interruption:
    """While it lasts, the first signal asks for a stop after the batch; the second is immediate.

    In another thread than the main one nothing changes: Python hands signals to that alone.

    Attributes:
        signal: The number of the signal that asked for a stop; None if none did.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()

    def _ask(self, number: int, frame: Any) -> None:
        self.signal = number
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
