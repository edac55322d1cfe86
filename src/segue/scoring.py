"""A model as the evaluation sees it: histories in, a score for every item out."""

import numpy as np
import numpy.typing as npt

from segue.data.histories import Histories
from segue.model.encoder import Encoder
from segue.model.sasrec import SASRec
from segue.model.weights import to_numpy


class ModelScorer:
    """Scores as `query . item`, from the newest `max_length` items of each history."""

    def __init__(self, model: SASRec) -> None:
        self.encoder = Encoder(model)
        self._table_of = model.item_embedding

    @property
    def item_table(self) -> npt.NDArray[np.float32]:
        """float32[num_items + 1, width], as it is now."""
        return to_numpy(self._table_of.table)

    def queries(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, width] of those users; zeros where a history is empty."""
        return self.encoder(histories.windows(self.encoder.max_length, users))

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, num_items + 1]; column 0, padding, means nothing."""
        scores: npt.NDArray[np.float32] = self.queries(histories, users) @ self.item_table.T
        return scores
