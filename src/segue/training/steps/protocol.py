"""What a step promises."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy.typing as npt

from segue.training.batches import Batch

Array = npt.NDArray[Any]


class Step(Protocol):
    """Parameters and optimizer state, and how a batch changes them."""

    def run(self, batch: Batch) -> Any:
        """Learns from a batch; its loss, as a scalar of the backend that is perhaps not there yet.

        `float` waits for it.
        """
        ...

    def to_model(self, *, averaged: bool) -> None:
        """Puts the parameters into the model's variables, or their running averages if kept.

        They are to be read before the next `run`, which may use their memory.
        """
        ...

    def state(self) -> Mapping[str, Array]:
        """All that the next step depends on, by name; to be read before the next `run`."""
        ...

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of `state`."""
        ...

    def restore(self, read: Callable[[str], Array]) -> None:
        """Goes back to a `state`, of which `read` gives one array after the other."""
        ...
