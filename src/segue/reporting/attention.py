"""What the newest item of a history attends to in the model's last block."""

import numpy as np
import numpy.typing as npt

from segue.data.columns import Columns
from segue.model.sequence_model import SequenceModel
from segue.model.weights import to_array


def last_attention(model: SequenceModel, columns: Columns) -> npt.NDArray[np.float32]:
    """How the newest item of one history spreads its attention over it, averaged over the heads.

    Args:
        model: One that attends: `model.is_attentive`.
        columns: One row, at least one item.

    Returns:
        float32[items], adding up to 1.
    """
    length = int(columns.lengths[0])
    inputs = {name: column[:, :length] for name, column in columns.inputs(model.wants).items()}
    weights = to_array(model.last_attention(inputs))
    spread: npt.NDArray[np.float32] = weights[0].mean(axis=0)
    return spread
