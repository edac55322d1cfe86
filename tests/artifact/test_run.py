import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal, assert_series_equal

from segue.artifact import Run, read_run, write_run
from segue.errors import DataError, OutputError, RunError

FILES = {
    "config.json",
    "weights.safetensors",
    "items.parquet",
    "histories.parquet",
    "training.json",
    "ranks.parquet",
    "report.json",
    "manifest.json",
}
MakeRun = Callable[..., Run]


@pytest.fixture
def path(make_run: MakeRun, tmp_path: Path) -> Path:
    path = tmp_path / "run"
    write_run(make_run(), path)
    return path


def test_a_run_comes_back_as_it_was(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    write_run(run, tmp_path / "run")
    back = read_run(tmp_path / "run")

    assert back.config == run.config
    assert back.weights.keys() == run.weights.keys()
    np.testing.assert_array_equal(back.weights["items/table"], run.weights["items/table"])
    assert_series_equal(back.vocabulary.ids, run.vocabulary.ids, check_names=False)
    assert back.catalogue is not None
    assert run.catalogue is not None
    assert_frame_equal(back.catalogue, run.catalogue)
    np.testing.assert_array_equal(back.item_counts, run.item_counts)
    assert back.item_counts.dtype == np.int64
    assert back.training == run.training
    assert back.report == run.report

    assert back.split is not None
    assert run.split is not None
    assert (back.split.kind, back.split.notes) == (run.split.kind, run.split.notes)
    assert back.split.test is not None
    assert back.split.test.targets.tolist() == [2]

    assert back.ranking is not None
    assert run.ranking is not None
    for field in ("ranks", "candidates", "targets"):
        found = getattr(back.ranking, field)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, getattr(run.ranking, field))
    assert back.ranking.user_ids.to_list() == [7]


def test_the_files_say_the_same_to_other_programs(path: Path) -> None:
    assert {each.name for each in path.iterdir()} == FILES
    assert pq.read_table(path / "items.parquet").to_pydict() == {
        "dense_id": [1, 2, 3, 4],
        "item_id": ["tea", "rum", "ale", "gin"],
        "title": ["Tea", "Rum", None, "Gin"],
        "year": [1, 2, 3, 4],
        "train_interactions": [2, 0, 1, 0],
    }
    assert pq.read_table(path / "histories.parquet").to_pydict() == {
        "user_id": [7, 7, 7, 9, 9],
        "item_id": ["tea", "ale", "rum", "tea", "ale"],
        "timestamp": [10, 10, 20, 5, 6],
        "weight": [1.0, None, 3.0, 0.5, 2.0],
        "part": ["train", "validation", "test", "train", "train"],
    }
    assert pq.read_table(path / "ranks.parquet").to_pydict() == {
        "user_id": [7],
        "target": ["rum"],
        "rank": [2],
        "candidates": [3],
    }
    config = json.loads((path / "config.json").read_text())
    assert (config["model"]["encoder"], config["model"]["width"]) == ("sasrec-original", 50)
    assert json.loads((path / "training.json").read_text())["ndcg@10"] == [None, 0.125]


def test_a_run_without_histories_ranks_or_catalogue_has_no_such_files(
    make_run: MakeRun, tmp_path: Path
) -> None:
    bare = dataclasses.replace(make_run(), split=None, ranking=None, catalogue=None)
    write_run(bare, tmp_path / "run")
    back = read_run(tmp_path / "run")
    assert (back.split, back.ranking, back.catalogue) == (None, None, None)
    found = {each.name for each in (tmp_path / "run").iterdir()}
    assert found == FILES - {"histories.parquet", "ranks.parquet"}


@pytest.mark.parametrize(
    "weight",
    [
        np.array(3, np.float32),
        np.zeros((0, 4), np.float32),
        np.array([65504, -1.5], np.float16),
        np.array([1e300]),
        np.array([2**63], np.uint64),
        np.array([-5, 5], np.int8),
        np.array([True, False]),
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(6, dtype=np.float32)[::2],
        np.array([1, 2], ">f4"),
    ],
    ids=lambda weight: f"{weight.dtype.str}{weight.shape}",
)
def test_a_weight_comes_back_whatever_its_type_shape_and_layout(
    make_run: MakeRun, tmp_path: Path, weight: Any
) -> None:
    write_run(dataclasses.replace(make_run(), weights={"w": weight}), tmp_path / "run")
    back = read_run(tmp_path / "run").weights["w"]
    assert back.dtype.name == weight.dtype.name
    assert back.shape == weight.shape
    np.testing.assert_array_equal(back, weight)


def test_others_may_read_the_weights_if_they_may_read_the_rest(path: Path) -> None:
    modes = {each.stat().st_mode & 0o777 for each in path.iterdir()}
    assert modes == {path.stat().st_mode & 0o666}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(make_run: MakeRun, value: float) -> None:
    bad: dict[str, Any] = {"good": np.zeros(2), "bad": np.array([1, value], np.float32)}
    with pytest.raises(RunError, match="the weight 'bad' holds NaN or infinity; train again"):
        dataclasses.replace(make_run(), weights=bad)


@pytest.mark.parametrize("weight", [np.array([1j]), np.array(["x"]), np.array([None])])
def test_weights_that_are_no_numbers_are_refused(make_run: MakeRun, weight: Any) -> None:
    with pytest.raises(RunError, match=r"the weight 'w' is .* convert it to one of float64, "):
        dataclasses.replace(make_run(), weights={"w": weight})


def test_counts_for_other_items_are_refused(make_run: MakeRun) -> None:
    with pytest.raises(RunError, match=r"counts of the shape \(4,\) for 4 items"):
        dataclasses.replace(make_run(), item_counts=np.zeros(4, np.int64))


def test_a_catalogue_that_is_not_aligned_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(RunError, match="a catalogue of 1 rows for 4 items"):
        dataclasses.replace(make_run(), catalogue=pl.DataFrame({"title": ["Tea"]}))


def test_a_catalogue_that_cannot_be_saved_is_refused_at_once(make_run: MakeRun) -> None:
    with pytest.raises(DataError, match="the catalogue has 'item_id'"):
        dataclasses.replace(make_run(), catalogue=pl.DataFrame({"item_id": list("abcd")}))


def test_histories_of_another_vocabulary_are_refused(make_run: MakeRun) -> None:
    run = make_run()
    assert run.split is not None
    more = run.vocabulary.extend(pl.Series(["new"]))
    histories = dataclasses.replace(run.split.histories, vocabulary=more)
    with pytest.raises(RunError, match="the histories are of another vocabulary"):
        dataclasses.replace(run, split=dataclasses.replace(run.split, histories=histories))


def test_a_user_with_two_histories_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    assert run.split is not None
    histories = dataclasses.replace(run.split.histories, user_ids=pl.Series([7, 7]))
    with pytest.raises(RunError, match="a user has two histories"):
        dataclasses.replace(run, split=dataclasses.replace(run.split, histories=histories))


def test_what_is_no_run_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("file", "empty", "absent"):
        with pytest.raises(RunError, match=f"{name} is no run: it has no manifest.json"):
            read_run(tmp_path / name)


def test_a_run_of_a_newer_format_asks_for_a_newer_segue(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format_version": 9, "more": 1}))
    told = f"{path}: format 9 is newer than this segue's 2; upgrade segue"
    with pytest.raises(RunError, match=f"^{re.escape(told)}$"):
        read_run(path)


def test_a_run_of_the_format_before_is_not_misread(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format_version": 1}))
    with pytest.raises(RunError, match=r"format 1 is older than this segue.s 2, .* segue fit"):
        read_run(path)


@pytest.mark.parametrize("name", sorted(FILES - {"manifest.json"}))
def test_a_changed_byte_is_told_with_its_file(path: Path, name: str) -> None:
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    told = rf"{name} has changed: SHA-256 [0-9a-f]{{12}}… expected, [0-9a-f]{{12}}… found; restore"
    with pytest.raises(RunError, match=told):
        read_run(path)


@pytest.mark.parametrize("name", sorted(FILES - {"manifest.json"}))
def test_a_missing_file_is_told_by_name(path: Path, name: str) -> None:
    (path / name).unlink()
    with pytest.raises(RunError, match=f"{name} is missing; restore the run from a copy"):
        read_run(path)


@pytest.mark.parametrize("verify", [True, False])
def test_a_cut_off_file_is_told_even_without_hashing(path: Path, verify: bool) -> None:
    (path / "report.json").write_bytes((path / "report.json").read_bytes()[:-5])
    with pytest.raises(RunError, match=r"report.json has changed: \d+ bytes expected, \d+ found"):
        read_run(path, verify=verify)


def test_hashing_can_be_left_out(path: Path) -> None:
    text = (path / "report.json").read_text()
    (path / "report.json").write_text(text.replace("old", "odd"))
    assert read_run(path, verify=False).report["name"] == "odd"


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_link_in_a_run_is_not_followed(path: Path, name: str) -> None:
    (path / name).rename(path.parent / "elsewhere")
    (path / name).symlink_to(path.parent / "elsewhere")
    with pytest.raises(RunError, match=f"cannot read .*{name}: it is no plain file"):
        read_run(path)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_directory_in_place_of_a_file_is_refused(path: Path, name: str) -> None:
    (path / name).unlink()
    (path / name).mkdir()
    with pytest.raises(RunError, match=f"cannot read .*{name}: it is no plain file"):
        read_run(path)


def test_files_that_a_run_does_not_name_are_not_looked_at(path: Path) -> None:
    (path / "notes.txt").write_text("mine")
    (path / "evil.pickle").symlink_to("/etc/passwd")
    assert read_run(path).report["name"] == "old"


def test_a_link_to_a_run_is_a_run(path: Path) -> None:
    link = path.parent / "link"
    link.symlink_to(path)
    assert read_run(link).report["name"] == "old"


def test_a_path_with_asterisks_and_brackets_is_only_a_path(
    make_run: MakeRun, tmp_path: Path
) -> None:
    odd = tmp_path / "part=1" / "run[0-9]*"
    odd.parent.mkdir()
    write_run(make_run(), odd)
    back = read_run(odd)
    assert back.catalogue is not None
    assert back.catalogue.columns == ["title", "year"]


def test_what_is_not_json_is_refused_before_anything_stands(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = dataclasses.replace(make_run(), report={"ndcg@10": float("nan")})
    with pytest.raises(OutputError, match=r"report.json: .*nan"):
        write_run(run, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
