"""Item towers: what makes an item's vector; one file each, registered by name."""

from segue.model.items import content, ids
from segue.model.items.protocol import ItemTower

__all__ = ["ItemTower", "content", "ids"]
