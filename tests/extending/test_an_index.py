"""An index in one file: from a log to recommendations."""

import numpy as np

import segue
from segue.config import Config, ModelConfig, TrainingConfig
from segue.data.synthetic import markov_log
from segue.retrieval.exact import ExactIndex
from segue.retrieval.index import INDEXES
from segue.retrieval.selection import TopK
from segue.testing.indexes import check_index

searches: list[int] = []


@INDEXES.register("half")
class HalfIndex:
    """Looks among the longer half of the vectors first, and elsewhere where that does not do."""

    recall = 0.5

    def __init__(self, item_table) -> None:
        self._exact = ExactIndex(item_table)
        norms = np.linalg.norm(item_table[1:], axis=1)
        longest = np.argsort(-norms, kind="stable")[: (len(norms) + 1) // 2]
        self._longer = np.sort(longest + 1).astype(np.int32)

    def search(self, queries, k, *, exclusions=None, allowed=None) -> TopK:
        searches.append(len(queries))
        if allowed is not None or k > len(self._longer):
            return self._exact.search(queries, k, exclusions=exclusions, allowed=allowed)
        top = self._exact.search(queries, k, exclusions=exclusions, allowed=self._longer)
        if (top.counts < k).any():
            return self._exact.search(queries, k, exclusions=exclusions)
        return top

    def vectors(self, item_ids):
        return self._exact.vectors(item_ids)


def test_the_index_keeps_what_indexes_promise():
    check_index("half", min_recall=0.3)


def test_a_run_is_answered_by_it(tmp_path):
    config = Config(
        model=ModelConfig(max_length=10, width=16, dropout=0.1),
        training=TrainingConfig(epochs=2, batch_size=64),
    )
    split = segue.leave_one_out(markov_log(100, 20, 8, certainty=1.0, seed=0))
    segue.fit(split, preset=config).save(tmp_path / "run")
    exact, half = segue.load(tmp_path / "run"), segue.load(tmp_path / "run", index="half")
    searches.clear()
    received = half.recommend([[1, 2], [3]], k=3)
    assert searches == [2]
    assert half.retriever.index.recall == 0.5
    assert len(received) == len(exact.recommend([[1, 2], [3]], k=3)) == 6
