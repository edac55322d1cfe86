"""What the newest item of a history attends to in the model's last block."""

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from segue.model.layers import SelfAttention
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
    segment_ids = np.ones((1, len(item_ids)), np.int32)
    states = model.embed({"item_ids": item_ids[None]}, segment_ids)
    for block in model.blocks[:-1]:
        states = block(states, segment_ids)
    block = model.blocks[-1]
    attention = block.attention
    projected = to_array(attention.projection(block.attention_norm(states)))[0]
    query, key, _ = np.split(projected, 3, axis=-1)
    shape = (len(item_ids), attention.num_heads, -1)
    keys, newest = key.reshape(shape), query.reshape(shape)[-1]
    logits = np.einsum("nhd,hd->nh", keys, newest) * newest.shape[-1] ** -0.5
    weights: npt.NDArray[np.float32] = softmax(logits, axis=0).mean(axis=-1)
    return weights
