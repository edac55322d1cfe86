import numpy as np
import polars as pl
import pytest

from segue.config import ModelConfig
from segue.data.histories import Histories
from segue.data.vocabulary import Vocabulary
from segue.model.inference import QueryEncoder
from segue.model.keras_model import SASRec
from segue.retriever import EncodedScorer, ModelScorer


@pytest.fixture
def histories() -> Histories:
    vocabulary = Vocabulary.from_ids(pl.Series(range(1, 21)))
    random = np.random.default_rng(0)
    lengths = [0, *random.integers(1, 12, 40)]
    users = [random.integers(1, 21, length).astype(np.int32) for length in lengths]
    return Histories.from_lists(vocabulary, users)


def test_users_encoded_once_score_as_they_do_each_time(histories, monkeypatch):
    model = SASRec(20, ModelConfig(max_length=8, width=16, num_blocks=1), seed=2)
    counts = np.arange(21)
    each_time = ModelScorer(model, counts)
    once = EncodedScorer(each_time, histories)
    blocks = [slice(0, 7), slice(7, 41)]
    expected = [each_time.score(histories, users) for users in blocks]

    def fail(*arguments):
        raise AssertionError("encoded again")

    monkeypatch.setattr(QueryEncoder, "__call__", fail)
    for users, scores in zip(blocks, expected, strict=True):
        np.testing.assert_allclose(once.score(histories, users), scores, atol=1e-5)
