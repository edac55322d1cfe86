"""Habits of Python: other libraries' columns, notebooks, copies, processes."""

import copy
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest

from segue.errors import RequestError
from segue.notebook import Report

HISTORIES = [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "given",
    [
        tuple(map(tuple, HISTORIES)),
        np.array(HISTORIES),
        [np.array(history) for history in HISTORIES],
        pl.Series(HISTORIES),
        [pl.Series(history) for history in HISTORIES],
        pl.DataFrame({"h": HISTORIES})["h"],
    ],
    ids=["tuples", "array", "arrays", "Polars column", "Polars columns", "column of a frame"],
)
def test_histories_come_in_whatever_holds_them(recommender, given):
    expected = recommender.recommend(HISTORIES, k=4)
    assert recommender.recommend(given, k=4).equals(expected)


def test_a_pandas_column_gives_a_pandas_table_by_its_index(recommender):
    expected = recommender.recommend(HISTORIES, k=4)
    frame = pd.DataFrame({"history": HISTORIES}, index=["ann", "bob"])
    table = recommender.recommend(frame["history"], k=4)
    assert isinstance(table, pd.DataFrame)
    assert table.columns.tolist() == expected.columns
    assert table["user_id"].tolist() == ["ann"] * 4 + ["bob"] * 4
    assert table["item_id"].tolist() == expected["item_id"].to_list()
    assert table["title"].tolist() == expected["title"].to_list()
    assert table["score"].dtype == np.float32
    # A missing value makes pandas' integers floats; in a list they stay what they are.
    with_missing = pd.Series([[1.0, 2.0, 3.0]])
    assert (
        recommender.recommend(with_missing, k=4)["item_id"].tolist()
        == (expected["item_id"].to_list()[:4])
    )


@pytest.mark.parametrize("given", ["1,2,3", 5, None])
def test_what_holds_no_histories_is_refused(recommender, given):
    with pytest.raises(RequestError, match=r"no list of histories; recommend takes such as \[\["):
        recommender.recommend(given)


def test_a_deep_copy_answers_alike_and_holds_weights_of_its_own(recommender):
    twin = copy.deepcopy(recommender)
    assert twin.model is not recommender.model
    assert twin.recommend(HISTORIES).equals(recommender.recommend(HISTORIES))


def test_pickling_says_what_to_do_instead(recommender):
    with pytest.raises(
        TypeError, match=r"save it with .save\(PATH\) and have each process load it"
    ):
        pickle.dumps(recommender)


def test_a_notebook_shows_a_report_and_a_recommender_as_tables(recommender):
    report = recommender.evaluate()
    assert isinstance(report, dict)
    html = report._repr_html_()
    assert f"{report['metrics']['hr@10']:.4f}" in html
    assert "<th>item_knn</th>" in html
    whole = recommender._repr_html_()
    assert "30 items" in whole
    assert "120 users" in whole
    evil = Report({**report, "notes": ["<script>alert(1)</script>"]})
    assert "<script>" not in evil._repr_html_()
