"""What an item tower promises."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from segue.config import TowerConfig
from segue.model.kernels.tensors import Tensor


class ItemTower(Protocol):
    """The vectors of items, at the input of the encoder and as candidates.

    A tower is a `keras.layers.Layer`, made as `SomeTower(settings, num_items, width, catalogue,
    seed)` and registered with `TOWERS.register(name)`; `catalogue` is a DataFrame with a row for
    each dense id 1..num_items, or None. What it needs of the catalogue it keeps as weights, trained
    or not, so that a run holds it. `segue.testing.towers` tests what is promised here.

    Attributes:
        Settings: The class of its settings; `tower` in it defaults to the registered name.
    """

    Settings: ClassVar[type[TowerConfig]]

    def build(self, input_shape: Any = None) -> None:
        """Creates every variable."""
        ...

    def arrays(self) -> Mapping[str, Any]:
        """Its variables that have a row for each dense id, [num_items + 1, ...], by name.

        Row 0 is padding. A training step on a large catalogue reads and updates only the rows that
        it touches.
        """
        ...

    def vectors(self, item_ids: Tensor, arrays: Mapping[str, Tensor] | None = None) -> Tensor:
        """The vectors of items, float[..., width].

        Args:
            item_ids: int32[...], dense ids; 0 is padding, whose vector means nothing.
            arrays: Rows to read in place of its own `arrays()`; the ids then count these.
        """
        ...

    def table(self, arrays: Mapping[str, Tensor] | None = None) -> Tensor:
        """The vectors of all items, float[num_items + 1, width], or of the rows of `arrays`."""
        ...
