"""Runs whose manifest was made to fit: the hashes prove nothing, so the content is checked."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from segue.artifact import Run, documents, read_run, write_run
from segue.artifact.failures import reading
from segue.errors import RunError

Sign = Callable[[Path], None]


@pytest.fixture
def path(make_run: Callable[..., Run], tmp_path: Path) -> Path:
    path = tmp_path / "run"
    write_run(make_run(), path)
    return path


def rewrite(file: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Change a table and keep what Polars would drop: the metadata of the file."""
    metadata = pl.read_parquet_metadata(file)
    metadata.pop("ARROW:schema")
    change(pl.read_parquet(file)).write_parquet(file, metadata=metadata)


def with_value(column: str, row: int, value: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def change(table: pl.DataFrame) -> pl.DataFrame:
        values = table[column].to_list()
        values[row] = value
        return table.with_columns(pl.Series(column, values, dtype=table.schema[column]))

    return change


def refused(path: Path, file: str, told: str) -> None:
    with pytest.raises(RunError, match=f"cannot read .*{file}: .*{told}.*; restore") as caught:
        read_run(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_value("dense_id", 1, 5), "its dense ids are not 1 to 4 in order"),
        (with_value("dense_id", 1, None), "its dense ids are not 1 to 4 in order"),
        (lambda table: table.reverse(), "its dense ids are not 1 to 4 in order"),
        (with_value("item_id", 1, "tea"), "is a repetition in 1 of 4 rows"),
        (with_value("item_id", 1, None), "is null in 1 of 4 rows"),
        (with_value("train_interactions", 1, -1), "no count of its interactions, or one below 0"),
        (with_value("train_interactions", 1, None), "no count of its interactions"),
        (lambda table: table.drop("dense_id"), "no column 'dense_id' among 'item_id', 'title'"),
        (
            lambda table: table.cast({"item_id": pl.Categorical}),
            "its column 'item_id' is Categorical, not Int64 or String",
        ),
        (lambda table: table.clear(), "a vocabulary has 1 to .* items, not 0"),
    ],
)
def test_items_that_are_not_the_dense_ids_in_order_are_refused(
    path: Path, sign: Sign, change: Callable[[pl.DataFrame], pl.DataFrame], told: str
) -> None:
    rewrite(path / "items.parquet", change)
    sign(path)
    refused(path, "items.parquet", told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_value("item_id", 1, "mead"), "the item 'mead' is none of the run's"),
        (with_value("item_id", 1, None), "lack the user or the item"),
        (with_value("user_id", 1, None), "lack the user or the item"),
        (with_value("user_id", 0, 9), "the rows of a user do not stand together"),
        (with_value("part", 1, "exam"), "of the part 'exam', which is none of train, validation"),
        (with_value("part", 1, None), "of the part None"),
        (with_value("part", 1, "train"), "leave-one-out holds out one"),
        (with_value("part", 0, "test"), "leakage: user 7 has a validation interaction after"),
        (with_value("timestamp", 1, 99), "the history of user 7 is not in time order"),
        (with_value("timestamp", 1, None), "an interaction has no time"),
        (lambda table: table.drop("part"), "no column 'part' among"),
        (
            lambda table: table.cast({"timestamp": pl.Int32}),
            "its column 'timestamp' is Int32, not Int64 or Float64 or Datetime",
        ),
        (
            lambda table: table.cast({"weight": pl.Float64}),
            "its column 'weight' is Float64, not Float32",
        ),
        (
            lambda table: table.with_columns(timestamp=pl.lit(float("nan"))),
            "an interaction has no time, or one that is not finite",
        ),
        (lambda table: table.drop("weight").with_columns(pl.col("item_id").cast(pl.Binary)), "it"),
    ],
)
def test_histories_that_the_items_and_the_split_do_not_allow_are_refused(
    path: Path, sign: Sign, change: Callable[[pl.DataFrame], pl.DataFrame], told: str
) -> None:
    rewrite(path / "histories.parquet", change)
    sign(path)
    refused(path, "histories.parquet", told)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({}, "Invalid JSON"),
        ({"segue.split": "{}"}, "kind: Field required"),
        ({"segue.split": '{"kind": "random", "notes": []}'}, "split 'random' is unknown"),
        ({"segue.split": '{"kind": "none", "notes": []}'}, "2 interactions are held out"),
        ({"segue.split": '{"kind": "none", "notes": [1]}'}, "notes.0: "),
    ],
)
def test_a_split_that_is_not_told_is_refused(
    path: Path, sign: Sign, metadata: dict[str, str], told: str
) -> None:
    file = path / "histories.parquet"
    pl.read_parquet(file).write_parquet(file, metadata=metadata)
    sign(path)
    refused(path, "histories.parquet", told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_value("target", 0, "mead"), "the target 'mead' is no item"),
        (with_value("target", 0, None), "it has nulls"),
        (with_value("rank", 0, -1), "a rank is below 0 or above the number of candidates"),
        (with_value("rank", 0, 4), "a rank is below 0 or above the number of candidates"),
        (with_value("candidates", 0, None), "it has nulls"),
        (lambda table: table.cast({"rank": pl.Int64}), "its column 'rank' is Int64, not Int32"),
    ],
)
def test_ranks_that_cannot_be_are_refused(
    path: Path, sign: Sign, change: Callable[[pl.DataFrame], pl.DataFrame], told: str
) -> None:
    rewrite(path / "ranks.parquet", change)
    sign(path)
    refused(path, "ranks.parquet", told)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_with_their_name(
    path: Path, sign: Sign, value: float
) -> None:
    save_file({"w": np.array([0, value], np.float32)}, path / "weights.safetensors")
    sign(path)
    with pytest.raises(RunError, match=f"cannot read {path}: the weight 'w' holds NaN or infinity"):
        read_run(path)


def safetensors_file(kind: str, size_bytes: int) -> bytes:
    """A file of two numbers, written by hand from the format's description."""
    header = {"w": {"dtype": kind, "shape": [2], "data_offsets": [0, size_bytes]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size_bytes)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (safetensors_file("BF16", 4), "the weight 'w' is BF16, which no run has"),
        (safetensors_file("F8_E4M3", 2), "the weight 'w' is F8_E4M3, which no run has"),
        (safetensors_file("C64", 16), "the weight 'w' is C64, which no run has"),
        (safetensors_file("F32", 6), "header"),
        (struct.pack("<Q", 2**60) + b"{}", "header too large"),
        (b"\x80\x04]\x94.", "header too small"),
        (b"", "header too small"),
    ],
)
def test_weights_in_no_known_format_are_refused(
    path: Path, sign: Sign, content: bytes, told: str
) -> None:
    (path / "weights.safetensors").write_bytes(content)
    sign(path)
    refused(path, "weights.safetensors", told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"training": {"epochs": 0}}', "training.epochs: Input should be greater than or equal"),
        ('{"future": 1}', "future: Extra inputs are not permitted"),
        ("[]", "it holds no JSON object"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ('{"name": ' + "9" * 5_000 + "}", "limit"),
        ("\udcff", "utf-8"),
    ],
)
def test_a_configuration_that_is_none_is_refused(
    path: Path, sign: Sign, text: str, told: str
) -> None:
    (path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    sign(path)
    refused(path, "config.json", told)


def test_json_without_end_is_not_read(
    path: Path, sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path / "report.json").write_text(json.dumps({"name": "x" * 5_000}))
    sign(path)
    monkeypatch.setattr(documents, "MAX_JSON_BYTES", 5_000)
    refused(path, "report.json", r"report.json is 5,012 bytes long; at most 5,000 are read")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format_version": 0}, "format_version: "),
        ({"format_version": True}, "format_version: "),
        ({"format_version": None}, "format_version: "),
        ({"segue_version": 1}, "segue_version: "),
        ({"files": []}, "files: "),
        ({"files": {}}, "it does not name 'config.json', .*, which every run has"),
        ({"files": {"config.json": {"sha256": "x", "size_bytes": 1}}}, "files.config.json.sha256"),
        ({"files": {"config.json": {"sha256": "0" * 64}}}, "files.config.json.size_bytes"),
    ],
)
def test_a_manifest_that_is_none_is_refused(path: Path, change: dict[str, Any], told: str) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, **change}))
    refused(path, "manifest.json", told)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "model.pickle", "manifest.json", ""])
def test_a_manifest_cannot_name_what_is_no_file_of_a_run(path: Path, name: str) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["config.json"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    refused(path, "manifest.json", f"it names '{name}', which no run has")


@pytest.mark.parametrize("name", ["histories.parquet", "items.parquet", "ranks.parquet"])
def test_a_table_that_is_no_parquet_is_refused(path: Path, sign: Sign, name: str) -> None:
    (path / name).write_bytes(b"user_id,item_id\n1,2\n")
    sign(path)
    refused(path, name, "parquet")


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json", "report.json"])
def test_whatever_bytes_change_the_run_is_read_or_refused_in_one_line(
    path: Path, sign: Sign, name: str
) -> None:
    # Not the Parquet files: Polars aborts the process on some that nobody would write by chance.
    whole = np.frombuffer((path / name).read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    told = []
    for _ in range(150):
        content = whole.copy()
        content[rng.integers(len(content), size=3)] = rng.integers(256, size=3)
        (path / name).write_bytes(content.tobytes())
        sign(path)
        try:
            read_run(path)
        except RunError as error:
            told.append(str(error))
    assert told
    assert not any("\n" in line for line in told)


def test_a_file_on_which_polars_panics_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "items.parquet"
    with pytest.raises(RunError, match=f"cannot read {file}: out of range; rest"), reading(file):
        raise pl.exceptions.PanicException("out of range\nand much more")
