import polars as pl
import pytest

from segue.recommender import Recommender


@pytest.fixture(scope="module")
def features_file(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("items") / "items.csv"
    items = range(1, 31)
    frame = {"item_id": items, "title": [f"Film {each}" for each in items],
             "genre": [("drama", "comedy")[each % 2] for each in items]}  # fmt: skip
    pl.DataFrame(frame).write_csv(path)
    return path


@pytest.fixture
def content_run(command, log_file, features_file, tiny, tmp_path):
    path = tmp_path / "content"
    fitted = command(
        *("fit", log_file, "--items", features_file, "--item-features", "title, genre"),
        *("--out", path, *tiny),
    )
    assert fitted.code == 0, fitted.err
    return path


def test_new_items_are_added_to_a_run(command, content_run, tmp_path):
    assert Recommender.load(content_run).run.config.items.features == ("title", "genre")
    new = tmp_path / "new.csv"
    new.write_text("item_id,title,genre\n99,Film 99,drama\n5,Film Five,comedy\n")
    grown = tmp_path / "grown"
    outcome = command("items", "add", content_run, "--items", new, "--out", grown)
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"1 of 2 items are new. The run is in {grown}.\n"
    assert Recommender.load(grown).titles([99, 5]) == ["Film 99", "Film Five"]
    similar = command("similar", grown, "99", "--json").json
    assert len(similar["items"]) == 10


def test_what_items_add_cannot_do_is_said_before_anything_is_written(
    command, run, content_run, tmp_path
):
    out = tmp_path / "out"
    new = tmp_path / "new.csv"
    new.write_text("item_id,title,genre\n99,Film 99,drama\n")
    refused = command("items", "add", run, "--items", new, "--out", out).refusal
    assert "train with --item-features" in refused
    assert "needs --items" in command("items", "add", content_run, "--out", out).refusal
    features = ("--item-features", "title")
    add = ("items", "add", content_run, "--items", new, "--out", out)
    assert "leave it out here" in command(*add, *features).refusal
    assert "exists" in command("items", "add", content_run, "--items", new, "--out", run).refusal
    assert not out.exists()


def test_features_that_the_catalogue_lacks_are_refused(command, log_file, features_file, tmp_path):
    fit = ("fit", log_file, "--out", tmp_path / "out", "--item-features", "colour")
    for arguments, message in (
        (("--items", features_file), "the catalogue has no column 'colour'; its columns are"),
        ((), "colour are columns of the catalogue, and there is none; give --items FILE"),
    ):
        outcome = command(*fit, *arguments)
        assert (outcome.code, outcome.out) == (1, "")
        assert message in outcome.err
    assert not (tmp_path / "out").exists()
