import datetime as dt
import gzip
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from segue.data.items import read_items
from segue.data.log import read_log
from segue.errors import DataError

JANUARY = {"user_id": [1], "item_id": [10], "timestamp": [5]}
FEBRUARY = {"user_id": [2], "item_id": [20], "timestamp": [6]}


def save(folder: Path, **frames: pl.DataFrame) -> Path:
    for name, frame in frames.items():
        frame.write_parquet(folder / f"{name}.parquet")
    return folder


def test_files_may_gain_columns_and_have_others_in_another_order(tmp_path: Path) -> None:
    late = pl.DataFrame(FEBRUARY).with_columns(channel=pl.lit("app")).select(pl.all().reverse())
    save(tmp_path, a=pl.DataFrame(JANUARY), b=late, c=pl.DataFrame(JANUARY))
    assert read_log(tmp_path).frame.rows() == [(1, 10, 5), (2, 20, 6), (1, 10, 5)]


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ((pl.Int16, pl.Int64), [10, 20]),
        ((pl.UInt8, pl.Int32), [10, 20]),
        ((pl.UInt64, pl.Int64), [10, 20]),
        ((pl.Int64, pl.Float32), [10, 20]),
        ((pl.Int64, pl.String), ["10", "20"]),
        ((pl.Categorical, pl.String), ["10", "20"]),
        ((pl.Int64, pl.UInt64), [10, 20]),
    ],
)
def test_ids_of_different_types_are_widened(
    tmp_path: Path, types: tuple[Any, Any], expected: list[object]
) -> None:
    frames = [
        pl.DataFrame(rows).with_columns(pl.col("item_id").cast(pl.String).cast(dtype))
        for rows, dtype in zip((JANUARY, FEBRUARY), types, strict=True)
    ]
    save(tmp_path, a=frames[0], b=frames[1])
    assert read_log(tmp_path).frame["item_id"].to_list() == expected


def test_hashes_beyond_64_bits_in_one_file_make_all_ids_text(tmp_path: Path) -> None:
    hashes = pl.DataFrame(FEBRUARY).with_columns(item_id=pl.lit(2**63, pl.UInt64))
    save(tmp_path, a=pl.DataFrame(JANUARY), b=hashes)
    assert read_log(tmp_path).frame["item_id"].to_list() == ["10", str(2**63)]


def test_a_column_that_is_null_throughout_a_file_fits_any_type(tmp_path: Path) -> None:
    frames = [pl.DataFrame({**JANUARY, "weight": [weight]}) for weight in (None, 2.5)]
    save(tmp_path, a=frames[0], b=frames[1])
    assert read_log(tmp_path).frame["weight"].to_list() == [None, 2.5]


def test_moments_of_different_units_and_zones_are_one(tmp_path: Path) -> None:
    at = pl.Series([dt.datetime(2024, 1, 5, 12)])
    berlin = at.dt.replace_time_zone("Europe/Berlin").dt.cast_time_unit("ms")
    frame = pl.DataFrame(JANUARY)
    save(
        tmp_path,
        a=frame.with_columns(timestamp=berlin),
        b=frame.with_columns(timestamp=at.dt.replace_time_zone("UTC").dt.cast_time_unit("ns")),
    )
    assert read_log(tmp_path).frame["timestamp"].to_list() == [
        dt.datetime(2024, 1, 5, 11),
        dt.datetime(2024, 1, 5, 12),
    ]


def test_types_that_do_not_fit_are_refused_with_the_files_and_the_column(tmp_path: Path) -> None:
    frame = pl.DataFrame(JANUARY)
    save(tmp_path, a=frame, b=frame.with_columns(timestamp=dt.datetime(2024, 1, 1)))
    with pytest.raises(DataError, match=r"'timestamp' is Int64 in .*a\.parquet but Datetime.* in"):
        read_log(tmp_path)


def test_a_column_that_one_file_lacks_is_named_with_the_file(tmp_path: Path) -> None:
    frame = pl.DataFrame(JANUARY)
    save(tmp_path, a=frame, b=frame.drop("item_id"))
    with pytest.raises(DataError, match=r"b\.parquet has no column 'item_id'"):
        read_log(tmp_path)


def test_an_optional_column_that_one_file_lacks_is_left_out(tmp_path: Path) -> None:
    frame = pl.DataFrame(JANUARY)
    save(tmp_path, a=frame.with_columns(rating=4), b=frame)
    log = read_log(tmp_path)
    assert log.frame.columns == ["user_id", "item_id", "timestamp"]
    assert log.notes[-1].startswith(
        f"weight is left out: {tmp_path / 'b.parquet'} has no column 'rating'"
    )
    with pytest.raises(DataError, match=r"b\.parquet has no column 'rating'"):
        read_log(tmp_path, min_weight=3)


def test_a_catalogue_keeps_the_columns_that_all_files_have(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": [1], "title": ["a"], "price": [2.5]})
    save(tmp_path, a=frame, b=frame.drop("price").with_columns(item_id=2))
    items = read_items(tmp_path)
    assert items.frame.rows() == [(1, "a"), (2, "a")]
    assert "'price' is left out" in items.notes[-1]
    save(tmp_path, c=frame.drop("item_id"))
    with pytest.raises(DataError, match=r"c\.parquet has no column 'item_id'"):
        read_items(tmp_path)


def test_directories_of_csv_files_are_read_by_the_columns_names(tmp_path: Path) -> None:
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "02.csv").write_text("item_id,user_id,timestamp\nb,2,6\n\n")
    text = "user_id,item_id,timestamp\nZoë,Café,5\n"
    (tmp_path / "01.csv.gz").write_bytes(gzip.compress(text.encode("cp1252")))
    (tmp_path / ".hidden.csv").write_text("x")
    log = read_log(tmp_path)
    assert log.frame.rows() == [("Zoë", "Café", 5), ("2", "b", 6)]
    assert "skipped 1 blank lines" in log.notes
    assert any("Windows-1252" in note for note in log.notes)


def zipped(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text.encode("cp1252"))
    return path


@pytest.mark.parametrize("item", ["Cafe", "Café"])
def test_a_file_alone_in_a_zip_archive_is_read(tmp_path: Path, item: str) -> None:
    files = {"data/log.csv": f"user,item,time\nu,{item},1\n", "__MACOSX/._log.csv": "x"}
    path = zipped(tmp_path / "archive.zip", files)
    assert read_log(path).frame.rows() == [("u", item, 1)]
    assert read_log(tmp_path).frame.rows() == [("u", item, 1)]
    lines = zipped(tmp_path / "log.zip", {"log.jsonl": '{"user":"u","item":7,"time":1}\n'})
    assert read_log(lines).frame.rows() == [("u", 7, 1)]


def test_longer_lines_in_a_zip_archive_are_found(tmp_path: Path) -> None:
    path = zipped(tmp_path / "log.zip", {"log.csv": "user,item,time\nu,1,1\nu,2,2,x\n"})
    assert read_log(path, drop_bad_rows=True).frame.rows() == [("u", 1, 1)]


def test_parquet_in_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    zipped(tmp_path / "log.zip", {"log.parquet": "PAR1"})
    (tmp_path / "log.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    for name in ("log.zip", "log.parquet.gz"):
        with pytest.raises(DataError, match="Parquet is not read out of other files; unpack it"):
            read_log(tmp_path / name)


def test_an_archive_of_several_files_is_to_be_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "ml.zip", {"ratings.csv": "a", "movies.csv": "b"})
    with pytest.raises(DataError, match=r"type '\.zip' are not read; unpack it"):
        read_log(path)


def test_a_damaged_archive_is_refused_in_one_line(tmp_path: Path) -> None:
    path = zipped(tmp_path / "log.zip", {"log.csv": "user,item,time\n" + "u,1,1\n" * 99})
    content = bytearray(path.read_bytes())
    content[45] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"log\.zip cannot be read: .*; unpack it"):
        read_log(path)


@pytest.mark.parametrize(
    "name", ["log.jsonl", "log.ndjson", "log.json", "l[o]g?.jsonl", "log.jsonl.gz"]
)
def test_json_lines_are_read(tmp_path: Path, name: str) -> None:
    first = '{"user":"u","item":7,"time":"2024-01-05T12:00:00Z","tags":["x"]}'
    raw = f'{first}\n\n{{"user":"v","time":"2024-01-06","item":8}}\n'.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    expected = [("u", 7, dt.datetime(2024, 1, 5, 12)), ("v", 8, dt.datetime(2024, 1, 6))]
    assert read_log(tmp_path / name).frame.rows() == expected
    if not name.endswith(".json"):
        assert read_log(tmp_path).frame.rows() == expected


def test_lines_that_are_no_json_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"user":1}\n{"user":\n')
    with pytest.raises(DataError, match=r"log\.jsonl cannot be read: a line is no JSON"):
        read_log(path)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("log.csv.zip", "unpack it"),  # it is none
        ("log.csv.bz2", "unpack it"),
        ("log.xlsx", "save the sheet as CSV"),
        ("log.feather", "save the table as Parquet"),
        ("log.pkl", "save the table as Parquet"),
        ("shop.sqlite", "export the table"),
        ("log.json", "one object a line"),
    ],
)
def test_other_formats_are_refused_with_what_to_convert_to(
    tmp_path: Path, name: str, remedy: str
) -> None:
    (tmp_path / name).write_text("[{}]")
    with pytest.raises(DataError, match=f"are not read; .*{remedy}"):
        read_log(tmp_path / name)


def test_a_directory_of_several_kinds_is_refused(tmp_path: Path) -> None:
    save(tmp_path, a=pl.DataFrame(JANUARY))
    (tmp_path / "b.csv").write_text("user_id\n1\n")
    with pytest.raises(DataError, match=r"several kinds, \.csv and \.parquet; name a file"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    ("mark", "system"),
    [
        ("_delta_log/00000000000000000000.json", "Delta Lake"),
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/v1.metadata.json", "Iceberg"),
    ],
)
def test_tables_of_other_systems_are_refused_by_name(
    tmp_path: Path, mark: str, system: str
) -> None:
    save(tmp_path, part=pl.DataFrame(JANUARY))
    (tmp_path / mark).parent.mkdir()
    (tmp_path / mark).write_text("{}")
    with pytest.raises(DataError, match=f"is a table of {system}, whose files may hold deleted"):
        read_log(tmp_path)
