"""Titles found by what is typed of them."""

import numpy as np
import pytest

from segue.serving.search import TitleSearch, words

TITLES = [
    "千と千尋の神隠し (2001)",
    "となりのトトロ",
    "もののけ姫",
    "卧虎藏龙",
    "一一 (Yi Yi)",
    "映画ドラえもん Doraemon",
    "ｱｷﾗ AKIRA",
    "ドラゴンボールZ・神と神",
    "องค์บาก (Ong-Bak)",
    "Amélie (2001)",
    "The Matrix",
    "기생충 (Parasite)",
]


@pytest.fixture(scope="module")
def search() -> TitleSearch:
    return TitleSearch(TITLES, np.arange(len(TITLES) + 1)[::-1].copy())


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("神隠し", [0]),
        ("千尋", [0]),
        ("神", [0, 7]),
        ("神 2001", [0]),
        ("トトロ", [1]),
        ("トロ", [1]),
        ("ととろ", []),
        ("姫", [2]),
        ("藏龙", [3]),
        ("虎 龙", [3]),
        ("一 yi", [4]),
        ("ドラえもん", [5]),
        ("えもん映画", []),
        ("えもん doraemon", [5]),
        ("映画doraemon", [5]),
        ("ド", [5, 7]),
        ("ト", [1, 5, 7]),
        ("と", [0, 1, 7]),
        ("アキラ", [6]),
        ("キラ akira", [6]),
        ("ボール", [7]),
        ("ボールz", [7]),
        ("บาก", [8]),
        ("ong", [8]),
        ("amelie", [9]),
        ("melie", []),  # with blanks, from a word's beginning
        ("atrix", []),
        ("기생", [11]),
        ("・", []),
    ],
)
def test_titles_are_found_by_pieces_where_their_script_has_no_blanks(search, query, found):
    assert sorted(search.find(query, 10).tolist()) == [each + 1 for each in found]


def test_a_title_that_is_the_query_comes_first(search):
    titles = ["神隠しの神", "神隠し", "神隠し 2"]
    search = TitleSearch(titles, np.array([0, 9, 1, 5]))
    assert search.find("神隠し", 3).tolist() == [2, 1, 3]


def test_words_end_where_another_script_begins():
    assert words("映画Matrix\uff12と「千尋」") == ["映画", "matrix2", "と", "千尋"]
    assert words("Amélie d'Auteuil_x") == ["amelie", "d", "auteuil_x"]
    assert words("…") == []
