"""A model as the evaluation sees it: histories in, a score for every item out."""

import numpy as np
import numpy.typing as npt

from segue.data.histories import Histories
from segue.model.encoder import Encoder
from segue.model.sasrec import SASRec
from segue.model.weights import as_numpy, to_numpy


class ModelScorer:
    """Scores as `query . item`, from the newest `max_length` items of each history.

    Where the training counts are given, a history without items scores by them, as such a history
    is served; else all its scores are 0.
    """

    def __init__(
        self,
        model: SASRec,
        item_counts: npt.NDArray[np.int64] | None = None,
        *,
        is_final: bool = False,
    ) -> None:
        """Scores with `model`, as it is at each call.

        Args:
            model: trained, or in training.
            item_counts: int64[num_items + 1].
            is_final: see `Encoder`.
        """
        self.encoder = Encoder(model, is_final=is_final)
        self._item_embedding = model.item_embedding
        self._item_counts = item_counts

    @property
    def item_table(self) -> npt.NDArray[np.float32]:
        """float32[num_items + 1, width], as it is now."""
        return to_numpy(self._item_embedding.table)

    def queries(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, width] of those users; zeros where a history is empty."""
        return self.encoder(histories.windows(self.encoder.max_length, users))

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, num_items + 1]; column 0, padding, means nothing."""
        return self.scores_of(self.queries(histories, users), histories.lengths[users])

    def scores_of(
        self, queries: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """float32[rows, num_items + 1]: the scores of those queries.

        Args:
            queries: float32[rows, width].
            lengths: int64[rows], of the histories that they are of.
        """
        # A block of users may be small and the table large: it is read where it lies.
        item_table = as_numpy(self._item_embedding.table)
        scores: npt.NDArray[np.float32] = queries @ item_table.T
        if self._item_counts is not None:
            scores[lengths == 0] = self._item_counts
        return scores


class EncodedScorer:
    """A `ModelScorer` of certain users, encoded once however often they are scored.

    Attributes:
        queries: float32[users, width].
    """

    def __init__(self, scorer: ModelScorer, histories: Histories) -> None:
        """Encodes the users of `histories`, the only ones that it will be asked about."""
        self._scorer = scorer
        self.queries = scorer.queries(histories, slice(None))

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, num_items + 1], as `ModelScorer.score`."""
        return self._scorer.scores_of(self.queries[users], histories.lengths[users])
