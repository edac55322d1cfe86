"""The retriever: dense ids in and out. What `Recommender`, bulk and the service rank by."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from segue.arrays import offsets_of, ranges
from segue.data.columns import Columns
from segue.data.histories import Histories
from segue.model.inference import QueryEncoder
from segue.model.sequence_model import SequenceModel
from segue.model.weights import to_array
from segue.retrieval.exact import ExactIndex
from segue.retrieval.index import INDEXES, Exclusions, Index, ItemIds, Scores
from segue.retrieval.selection import TopK

# Windows encoded together where somebody waits: more take longer for each, on a CPU. A service
# compiles the shapes up to this one.
ONLINE_ROWS = 32


@dataclass(frozen=True, eq=False)
class Retrieved:
    """The best items after each history.

    Attributes:
        top: The items.
        is_popular: bool[rows], True where the history has no item, so that the most popular items
            were taken and not the model's.
    """

    top: TopK
    is_popular: npt.NDArray[np.bool_]


class Retriever:
    """A trained model and its indexes.

    The item table is not copied: the index reads the model's own.

    Attributes:
        model: The model.
        index: Of the item table.
        max_length: How many of a history's newest items the model looks at.
    """

    def __init__(
        self, model: SequenceModel, item_counts: npt.NDArray[np.int64], *, index: str = "exact"
    ) -> None:
        """Takes a model that is trained no more.

        Args:
            model: The model.
            item_counts: int64[num_items + 1], by which items are popular.
            index: A registered index.

        Raises:
            ConfigError: No index of that name is registered.
            DataError: The item table is not finite.
        """
        self.model = model
        self.max_length = model.max_length
        self.encoder = QueryEncoder(model, is_final=True)
        self.index: Index = INDEXES[index](item_table_of(model))
        # Popularity is a product too: one column of counts against the query 1.
        self._popular = ExactIndex(item_counts[:, None].astype(np.float32))

    @property
    def num_items(self) -> int:
        return self.model.num_items

    @property
    def item_table(self) -> Scores:
        """float32[num_items + 1, width], to be read only."""
        return item_table_of(self.model)

    def queries(self, columns: Columns) -> Scores:
        """float32[rows, width]; zeros where a history is empty."""
        return self.encoder(columns)

    def top(
        self,
        columns: Columns,
        k: int,
        *,
        exclusions: Exclusions | None = None,
        allowed: ItemIds | None = None,
    ) -> Retrieved:
        """The best items after each history; fewer where fewer candidates are left.

        Args:
            columns: The histories.
            k: At least 1; cut to the number of items.
            exclusions, allowed: As `Index.search` takes them.

        Raises:
            RequestError: As `Index.search`.
        """
        k = min(k, self.num_items)
        is_empty = columns.lengths == 0
        top = TopK(
            np.zeros((columns.num_rows, k), np.int32),
            np.full((columns.num_rows, k), -np.inf, np.float32),
            np.zeros(columns.num_rows, np.int32),
        )
        for is_popular in (False, True):
            rows = np.flatnonzero(is_empty == is_popular)
            if not len(rows):
                continue
            index = self._popular if is_popular else self.index
            queries = np.ones((len(rows), 1), np.float32)
            if not is_popular:
                queries = self.queries(columns.take(rows))
            best = index.search(queries, k, exclusions=_of_rows(exclusions, rows), allowed=allowed)
            top.item_ids[rows] = best.item_ids
            top.scores[rows] = best.scores
            top.counts[rows] = best.counts
        return Retrieved(top, is_empty)

    def similar(
        self,
        dense_id: int,
        k: int,
        *,
        denied: ItemIds | None = None,
        allowed: ItemIds | None = None,
    ) -> TopK:
        """One row: the items of the highest cosine with an item, itself left out.

        Args:
            dense_id: 1..num_items.
            k: At least 1; cut to the number of items.
            denied: int32[n], what is not wanted either.
            allowed: int32[n], ascending: what may come; by default every item.
        """
        left_out = np.append(np.zeros(0, np.int32) if denied is None else denied, dense_id)
        exclusions = (np.array([0, len(left_out)], np.int64), left_out.astype(np.int32))
        query = self.index.vectors(np.array([dense_id])) * self._inverse_norms[dense_id]
        k = min(k, self.num_items)
        return self._by_cosine.search(query, k, exclusions=exclusions, allowed=allowed)

    def scores_of(self, columns: Columns, dense_id: int) -> Scores:
        """The score of one item after each history, float32[rows]; 0 after an empty one.

        Args:
            columns: The histories.
            dense_id: 1..num_items.
        """
        (vector,) = self.index.vectors(np.array([dense_id]))
        scores = [
            self.queries(columns.take(slice(start, start + ONLINE_ROWS))) @ vector
            for start in range(0, columns.num_rows, ONLINE_ROWS)
        ]
        return np.concatenate([np.zeros(0, np.float32), *scores])

    @cached_property
    def _inverse_norms(self) -> Scores:
        """float32[num_items + 1]: one over each vector's length; 0 for padding."""
        table = self.item_table
        norms = np.sqrt(np.einsum("ij,ij->i", table, table))  # squares would copy the table
        inverse: Scores = 1 / np.maximum(norms, np.finfo(np.float32).tiny)
        inverse[0] = 0
        return inverse

    @cached_property
    def _by_cosine(self) -> ExactIndex:
        return ExactIndex(self.item_table, self._inverse_norms)


class ModelScorer:
    """A model as the evaluation sees it: histories in, `query . item` for every item out.

    Follows the model's weights as they change, so that a training is validated by it. Where the
    training counts are given, a history without items scores by them, as such a history is served;
    else all its scores are 0.
    """

    def __init__(
        self, model: SequenceModel, item_counts: npt.NDArray[np.int64] | None = None
    ) -> None:
        """Scores with `model`, as it is at each call.

        Args:
            model: Trained, or in training.
            item_counts: int64[num_items + 1].
        """
        self.model = model
        self.encoder = QueryEncoder(model)
        self._item_counts = item_counts

    def queries(self, histories: Histories, users: slice) -> Scores:
        """float32[rows, width] of those users; zeros where a history is empty."""
        return self.encoder(histories.columns(self.encoder.max_length, users))

    def score(self, histories: Histories, users: slice) -> Scores:
        """float32[rows, num_items + 1]; column 0, padding, means nothing."""
        return self.scores_of(self.queries(histories, users), histories.lengths[users])

    def scores_of(self, queries: Scores, lengths: npt.NDArray[np.int64]) -> Scores:
        """float32[rows, num_items + 1]: the scores of those queries.

        Args:
            queries: float32[rows, width].
            lengths: int64[rows], of the histories that they are of.
        """
        scores: Scores = queries @ item_table_of(self.model).T
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

    def score(self, histories: Histories, users: slice) -> Scores:
        """float32[rows, num_items + 1], as `ModelScorer.score`."""
        return self._scorer.scores_of(self.queries[users], histories.lengths[users])


def item_table_of(model: SequenceModel) -> Scores:
    """The vectors of all items as they are now, float32[num_items + 1, width], to be read only.

    Nothing is copied where the tower keeps a table and the backend lets NumPy read it.
    """
    return to_array(model.tower.table())


def _of_rows(exclusions: Exclusions | None, rows: npt.NDArray[np.intp]) -> Exclusions | None:
    """What these rows, ascending, exclude."""
    if exclusions is None or len(rows) == len(exclusions[0]) - 1:
        return exclusions
    offsets, item_ids = exclusions
    lengths = np.diff(offsets)[rows]
    return offsets_of(lengths), item_ids[ranges(offsets[:-1][rows], lengths)]
