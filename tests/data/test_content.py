import numpy as np
import polars as pl
import pytest

from segue.data.content import ContentEncoder
from segue.errors import DataError

ITEMS = pl.DataFrame(
    {
        "title": ["Red Wine", "White Wine", "Red Shoes", "Blue Shoes", "Brown Bread", None],
        "shelf": [["drinks"], ["drinks"], ["clothes"], ["clothes", "sale"], ["food"], None],
        "price": [8.0, 7.0, 50.0, 60.0, 2.0, None],
        "is_new": [True, False, True, False, False, None],
    }
)


def learned(catalogue: pl.DataFrame, *columns: str, size: int = 4) -> ContentEncoder:
    return ContentEncoder.learned(catalogue, columns, size, seed=0)


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def test_items_with_words_and_labels_in_common_are_near():
    vectors = learned(ITEMS, "title", "shelf", size=2).vectors(ITEMS)
    assert vectors.shape == (6, 2)
    assert vectors.dtype == np.float32
    red_wine, white_wine, red_shoes, blue_shoes = vectors[:4]
    assert cosine(red_wine, white_wine) > cosine(red_wine, blue_shoes) + 0.3
    assert cosine(red_shoes, blue_shoes) > cosine(white_wine, blue_shoes) + 0.3


def test_nothing_known_is_a_vector_of_zeros():
    assert not learned(ITEMS, "title", "shelf", "price", "is_new").vectors(ITEMS)[5].any()


def test_the_components_are_white_and_vectors_about_one_long():
    rng = np.random.default_rng(0)
    words = [f"w{each}" for each in range(50)]
    titles = [" ".join(rng.choice(words, 5)) for _ in range(500)]
    vectors = learned(pl.DataFrame({"title": titles}), "title", size=16).vectors(
        pl.DataFrame({"title": titles})
    )
    np.testing.assert_allclose((vectors**2).mean(axis=0), 1 / 16, rtol=0.01)
    assert np.linalg.norm(vectors, axis=1).mean() == pytest.approx(1.0, abs=0.1)


def test_a_new_item_is_placed_by_what_it_shares_with_known_ones():
    encoder = learned(ITEMS, "title", "shelf")
    new = pl.DataFrame({"title": ["Green Wine"], "shelf": [["drinks"]]})
    vector, known = encoder.vectors(new)[0], encoder.vectors(ITEMS)
    nearest = max(range(5), key=lambda item: cosine(vector, known[item]))
    assert nearest in (0, 1)


def test_a_number_counts_by_the_tenth_of_all_that_it_lies_in():
    prices = pl.DataFrame({"price": np.arange(1_000).astype(float)})
    encoder = learned(prices, "price", size=9)
    np.testing.assert_allclose(encoder.arrays["edges/price"], np.arange(1, 10) * 99.9)
    cheap, alike, dear = encoder.vectors(pl.DataFrame({"price": [3.0, 80.0, 950.0]}))
    np.testing.assert_array_equal(cheap, alike)
    assert cosine(cheap, dear) < 0.5


def test_own_vectors_are_read_beside_text():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(40, 8)).astype(np.float32)
    frame = pl.DataFrame({"vector": own.tolist(), "title": ["same"] * 40})
    vectors = learned(frame, "vector", "title", size=9).vectors(frame)
    units = own / np.linalg.norm(own, axis=1, keepdims=True)
    nearest = [int(np.argsort(-units @ each)[1]) for each in own]
    found = [
        max((j for j in range(40) if j != i), key=lambda j, i=i: cosine(vectors[i], vectors[j]))
        for i in range(40)
    ]
    assert np.mean(np.array(nearest) == found) > 0.3  # whitening moves some


def test_what_was_learned_is_all_that_vectors_need():
    encoder = learned(ITEMS, "title", "shelf", "price", "is_new")
    again = ContentEncoder(encoder.columns, {k: v.copy() for k, v in encoder.arrays.items()})
    np.testing.assert_array_equal(again.vectors(ITEMS), encoder.vectors(ITEMS))


@pytest.mark.parametrize(
    ("frame", "columns", "message"),
    [
        (ITEMS, ["colour"], "no column 'colour'; its columns are 'title', 'shelf'"),
        (pl.DataFrame({"day": [pl.date(2020, 1, 1)]}).select(pl.lit(1).cast(pl.Date).alias("day")),
         ["day"], "'day' is of type Date"),
        (pl.DataFrame({"title": [None, None]}, schema={"title": pl.String}), ["title"],
         "nothing is known of any item in 'title'"),
        (pl.DataFrame({"v": [[1.0, 2.0], [1.0]]}), ["v"], "have 1, 2 numbers; give all items"),
        (pl.DataFrame({"v": [[1.0, float("nan")], [1.0, 2.0]]}), ["v"], "holds NaN or infinity"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(frame, columns, message):
    with pytest.raises(DataError, match=message):
        learned(frame, *columns)


def test_new_vectors_of_another_length_are_refused():
    encoder = learned(pl.DataFrame({"v": [[1.0, 2.0], [2.0, 1.0], [0.0, 3.0]]}), "v", size=2)
    with pytest.raises(DataError, match="have 3 numbers together, but 2 in training"):
        encoder.vectors(pl.DataFrame({"v": [[1.0, 2.0, 3.0]]}))
