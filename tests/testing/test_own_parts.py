"""segue's own encoders, losses, towers, indexes and stores keep what they promise."""

import numpy as np
import polars as pl
import pytest

from segue.config import ENCODERS, LOSSES, TOWERS
from segue.data.content import CONTENT
from segue.retrieval.exact import ExactIndex
from segue.retrieval.index import INDEXES
from segue.serving.stores import open_store
from segue.testing.encoders import check_encoder
from segue.testing.indexes import check_index
from segue.testing.losses import check_loss
from segue.testing.stores import check_store
from segue.testing.towers import check_tower

OWN_ENCODERS = ("esasrec", "gru4rec", "sasrec", "sasrec-original")
OWN_LOSSES = ("bce", "gbce", "sampled_softmax", "softmax")


def test_these_are_all():
    # Tests that register others may have run before.
    assert ENCODERS.names()[:4] == list(OWN_ENCODERS)
    assert LOSSES.names()[:4] == list(OWN_LOSSES)
    assert TOWERS.names()[:2] == ["content", "ids"]
    assert INDEXES.names()[0] == "exact"


@pytest.mark.parametrize("name", OWN_ENCODERS)
def test_an_encoder(name):
    check_encoder(name, max_length=12, width=8)


@pytest.mark.parametrize("positions", ["rotary", "both"])
def test_an_encoder_with_other_positions(positions):
    check_encoder("sasrec", max_length=12, width=8, positions=positions)


@pytest.mark.parametrize("name", OWN_LOSSES)
def test_a_loss(name):
    check_loss(name)


@pytest.mark.parametrize("per", ["target", "row", "batch"])
def test_a_loss_with_shared_negatives(per):
    check_loss("sampled_softmax", negatives=4, negatives_per=per)


def test_a_tower():
    check_tower("ids", num_items=9, width=4)


def test_a_tower_of_content():
    vectors = np.eye(9, 3, dtype=np.float32)
    catalogue = pl.DataFrame({CONTENT: vectors})
    check_tower(
        "content", num_items=9, width=4, catalogue=catalogue, features=("title",), content_size=3
    )


def test_an_index():
    check_index("exact")


def test_a_store(tmp_path):
    check_store(lambda: open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", "integer"))


def test_a_promise_that_is_broken_is_named():
    @INDEXES.register("with padding")
    class WithPadding(ExactIndex):
        def search(self, queries, k, *, exclusions=None, allowed=None):
            top = super().search(queries, k, exclusions=exclusions, allowed=allowed)
            top.item_ids[:, 0] = np.where(top.counts > 8, 0, top.item_ids[:, 0])
            return top

    with pytest.raises(AssertionError, match=r"recall must be at least 1\.0"):
        check_index("with padding")
