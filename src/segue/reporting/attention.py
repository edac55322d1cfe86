"""What the newest item of a history attends to in the model's last block."""

import numpy as np
import numpy.typing as npt

from segue.model.attention import SelfAttention
from segue.model.sasrec import SASRec
from segue.model.weights import to_array


def has_attention(model: SASRec) -> bool:
    """Whether the model's last block attends at all."""
    return isinstance(getattr(model.blocks[-1], "attention", None), SelfAttention)


def last_attention(model: SASRec, item_ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """How the newest item of one history spreads its attention over it, averaged over the heads.

    Args:
        model: One that attends.
        item_ids: int32[n], dense ids, oldest first; n from 1 to the model's `max_length`.

    Returns:
        float32[n], adding up to 1.
    """
    weights = to_array(model.last_attention({"item_ids": item_ids[None]}))
    spread: npt.NDArray[np.float32] = weights[:, 0].mean(axis=0)
    return spread
