import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pandas as pd
import polars as pl
import pytest

from segue.data import archives
from segue.data.layouts import Layout
from segue.data.readers import open_table
from segue.errors import DataError

LAYOUTS = {
    ".dat": Layout("::", ("user_id", "item_id", "weight", "timestamp")),
    ".item": Layout("|", ("item_id", "title")),
}
ROWS = [("1", "10", "5"), ("2", "20", "6")]


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def rows_of(path: Path) -> list[tuple[object, ...]]:
    table = open_table(path, LAYOUTS)
    return table.read(table.names).frame.rows()


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.CSV", "log.txt", "l[o]*g?.csv"])
def test_comma_separated_files_are_read_as_text(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "a,b,c\n1,10,5\n2,20,6\n")
    table = open_table(path, LAYOUTS)
    assert table.names == ("a", "b", "c")
    assert table.is_untyped
    assert rows_of(path) == ROWS


@pytest.mark.parametrize("name", ["log.tsv", "log.tsv.gz"])
def test_the_suffix_tsv_means_tabs_even_where_a_name_has_commas(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "a,x,y\tb\tc\n1\t10\t5\n2\t20\t6\n")
    assert open_table(path, LAYOUTS).names == ("a,x,y", "b", "c")
    assert rows_of(path) == ROWS


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_the_separator_of_other_text_is_seen_from_the_header(
    tmp_path: Path, separator: str
) -> None:
    lines = [separator.join(row) for row in [("a", "b", "c"), *ROWS]]
    assert rows_of(write(tmp_path / "log.csv", "\n".join(lines))) == ROWS


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", b"\xef\xbb\xbfa,b,c\r\n1,10,5\r\n2,20,6\r\n")
    assert open_table(path, LAYOUTS).names == ("a", "b", "c")
    assert rows_of(path) == ROWS


def test_empty_fields_are_null_and_quoted_separators_are_text(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", 'a,b\n1,\n2,"x, y"\n')
    assert rows_of(path) == [("1", None), ("2", "x, y")]


def test_recboles_typed_headers_lose_their_types(tmp_path: Path) -> None:
    inter = write(tmp_path / "x.inter", 'user_id:token\trating:float\n1\t3.5\n2\t"4\n')
    item = write(tmp_path / "x.item", "item_id:token\tclass:token_seq\n1\tComedy Drama\n")
    assert open_table(inter, LAYOUTS).names == ("user_id", "rating")
    assert rows_of(inter) == [("1", "3.5"), ("2", '"4')]
    assert rows_of(item) == [("1", "Comedy Drama")]


def test_a_movielens_item_file_has_no_header(tmp_path: Path) -> None:
    path = write(tmp_path / "u.item", "1|Toy Story (1995)\n2|Misérables, Les\n".encode("latin-1"))
    assert open_table(path, LAYOUTS).names == ("item_id", "title")
    assert rows_of(path) == [("1", "Toy Story (1995)"), ("2", "Misérables, Les")]


@pytest.mark.parametrize("name", ["ratings.dat", "ratings.dat.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_movielens_dat_files_are_split_at_double_colons(
    tmp_path: Path, name: str, end: str
) -> None:
    path = write(
        tmp_path / name, f"1::1193::5::978300760{end or chr(10)}2::661:3::3::978302109{end}"
    )
    assert rows_of(path) == [("1", "1193", "5", "978300760"), ("2", "661:3", "3", "978302109")]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_dat_files_are_utf_8_or_else_latin_1(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "x.dat", "Zoë::1::2::3\n".encode(encoding))
    assert rows_of(path) == [("Zoë", "1", "2", "3")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"1::2::3::4\n1::2::3\n",
            r"has not the 4 fields user_id::.* in 1 of 2 rows, first '1::2::3' in row 2",
        ),
        (b"1::2::3::4\n\n1::2::3\n", r"has not the 4 fields .* first '1::2::3' in row 2"),
        (b"1::2::3::4::5\n", r"has not the 4 fields .* first '1::2::3::4::5' in row 1"),
        (b"1,2,3,4\n", r"line 1 looks like data"),
        (b"1::2::3::4\n1::2\x00::3::4\n", r"a line is not text in 1 of 2 rows, .* in row 2"),
        (b"\x89PNG\x1a\x00\xff\xfe", r"line 1 is not text"),
    ],
)
def test_ragged_or_binary_dat_files_are_refused_with_the_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        rows_of(write(tmp_path / "x.dat", content))
    assert "\n" not in str(error.value)


def test_a_parquet_file_and_a_directory_of_them_are_read_in_the_order_of_their_names(
    tmp_path: Path,
) -> None:
    (tmp_path / "logs" / "sub").mkdir(parents=True)
    pl.DataFrame({"a": [3]}).write_parquet(tmp_path / "logs" / "sub" / "1.parquet")
    pl.DataFrame({"a": [2]}).write_parquet(tmp_path / "logs" / "b.parquet")
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "logs" / "a.parquet")
    (tmp_path / "logs" / "_SUCCESS").touch()
    assert rows_of(tmp_path / "logs" / "b.parquet") == [(2,)]
    assert rows_of(tmp_path / "logs") == [(1,), (2,), (3,)]
    assert not open_table(tmp_path / "logs", LAYOUTS).is_untyped


def test_the_names_of_folders_add_no_columns(tmp_path: Path) -> None:
    for day in ("2024-01-05", "2024-01-06"):
        folder = tmp_path / "logs" / f"date={day}"
        folder.mkdir(parents=True)
        pl.DataFrame({"a": [day]}).write_parquet(folder / "part.parquet")
    assert open_table(tmp_path / "logs", LAYOUTS).names == ("a",)
    assert rows_of(tmp_path / "logs") == [("2024-01-05",), ("2024-01-06",)]


@pytest.mark.parametrize(
    "make", [pl.DataFrame, pl.LazyFrame, pd.DataFrame], ids=["polars", "lazy", "pandas"]
)
def test_dataframes_are_tables(make: Callable[..., pl.DataFrame]) -> None:
    table = open_table(make({"a": [1, 2], "b": ["x", "y"]}), {})
    assert table.names == ("a", "b")
    assert not table.is_untyped
    assert table.read(["b"]).frame.rows() == [("x",), ("y",)]


def test_pandas_columns_that_are_not_asked_for_may_hold_anything() -> None:
    frame = pd.DataFrame({0: [1, 2], "junk": [1, "x"]})
    table = open_table(frame, {})
    assert table.names == ("0", "junk")
    assert table.read(["0"]).frame.rows() == [(1,), (2,)]
    with pytest.raises(DataError, match="the pandas DataFrame cannot be read"):
        table.read(["junk"])


def truncated_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"1::2::3::4\n" * 9999)[:-20])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("absent.csv", lambda path: None, "no such file or directory"),
        (
            "log.json",
            lambda path: path.write_text("[1,\n2]"),
            r"type '\.json' .* one object a line",
        ),
        ("log", lambda path: path.write_text("a,b"), "files of type '' are not read; .*csv"),
        ("folder", lambda path: path.mkdir(), "holds no .csv or .jsonl or .parquet file"),
        ("log.csv", lambda path: path.write_bytes(b""), "is empty"),
        ("log.tsv", lambda path: path.write_bytes(b"PAR1\x00\x01\x02"), "line 1 is not text"),
        (
            "log.csv",
            lambda path: path.write_text("a,b\n1,2,3\n"),
            "a line has more fields than the first in 1 of 1 rows",
        ),
        ("log.csv.gz", lambda path: path.write_text("a,b\n"), "cannot be read: Not a gzip"),
        ("log.dat.gz", truncated_gzip, "cannot be read: Compressed file ended"),
        ("log.parquet", lambda path: path.write_text("a,b\n1,2\n"), "cannot be read: .*parquet"),
        ("log.parquet", lambda path: path.write_bytes(b""), "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line_with_the_path(
    tmp_path: Path, name: str, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(DataError, match=message) as error:
        rows_of(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["log.csv.gz", "log.tsv.gz", "log.dat.gz", "log.jsonl.gz", "log.json.gz", "logs/1.csv.gz"],
)
def test_a_gzipped_file_that_unpacks_to_a_multiple_of_its_size_is_refused_unread(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(path, b"1,10,5\n" * 500_000)
    told = f"{name} unpacks to more than 200 times its size, which .*unpack it yourself"
    with pytest.raises(DataError, match=told):
        open_table(path.parent if "/" in name else path, LAYOUTS)


def test_a_gzipped_file_that_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "log.csv.gz", "a,b,c\n1,10,5\n2,20,6\n")
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 20)
    assert rows_of(path) == ROWS
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 19)
    with pytest.raises(DataError, match="more than 19 bytes; unpack it yourself"):
        rows_of(path)


def test_a_small_gzipped_file_may_compress_well(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv.gz", "a,b,c\n" + "1,10,5\n" * 100_000)
    assert path.stat().st_size * archives.MAX_RATIO < 700_000
    assert len(rows_of(path)) == 100_000


def test_other_objects_are_no_tables() -> None:
    with pytest.raises(DataError, match="list is not a table: give a path"):
        open_table([1, 2], {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "written",
    [
        "user_id,item_id\n1,10\n\n2,20\n",
        "user_id,item_id\n1,10\n2,20\n\n",
        "user_id,item_id\r\n1,10\r\n \t\r\n2,20\r\n",
        "user_id,item_id\n,\n1,10\n2,20\n",
        'user_id,item_id\n1,10\n" ",\n2,20\n',
    ],
)
def test_blank_lines_are_skipped_and_counted(tmp_path: Path, written: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(written.encode())
    rows = open_table(path, {}).read(["user_id", "item_id"])
    assert rows.frame.rows() == [("1", "10"), ("2", "20")]
    assert rows.num_blank == 1


def test_a_line_that_lacks_only_what_is_asked_for_is_not_blank(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,other\n,x\n\n1,y\n")
    rows = open_table(path, {}).read(["user_id"])
    assert (rows.frame["user_id"].to_list(), rows.num_blank) == ([None, "1"], 1)


def test_blank_lines_of_dat_files_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text("1::10\n\n2::20\n  \n")
    rows = open_table(path, {".dat": Layout("::", ("a", "b"))}).read(["a", "b"])
    assert (rows.frame.rows(), rows.num_blank) == ([("1", "10"), ("2", "20")], 2)


def test_blanks_around_fields_are_no_part_of_them(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('user_id, item_id ,\ttitle\n 1,10 ," The Sea, "\n2\t, ,x\n')
    table = open_table(path, {})
    assert table.names == ("user_id", "item_id", "title")
    assert table.read(table.names).frame.rows() == [("1", "10", "The Sea,"), ("2", None, "x")]


@pytest.mark.parametrize(
    "name", ["._part-0.parquet", "_temporary/0/part.parquet", ".ipynb_checkpoints/a.parquet"]
)
def test_what_tools_leave_beside_the_data_is_no_data(tmp_path: Path, name: str) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "part.parquet")
    junk = tmp_path / name
    junk.parent.mkdir(parents=True, exist_ok=True)
    junk.write_bytes(b"Mac OS X")
    assert open_table(tmp_path, {}).read(["a"]).frame.rows() == [(1,)]


def test_a_directory_may_lie_below_a_hidden_one(tmp_path: Path) -> None:
    directory = tmp_path / "_data"
    directory.mkdir()
    pl.DataFrame({"a": [1]}).write_parquet(directory / "part.parquet")
    assert open_table(directory, {}).read(["a"]).frame.rows() == [(1,)]


def test_uuids_of_pandas_are_text_and_the_missing_stay_missing() -> None:
    uuid = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
    frame = pd.DataFrame({"a": [None, uuid, uuid]}, dtype=object)
    assert open_table(frame, {}).read(["a"]).frame["a"].to_list() == [None, str(uuid), str(uuid)]


def test_a_zip_archive_that_unpacks_to_more_than_any_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", "user_id,item_id,timestamp\n" + "1,1,1\n" * 2_000_000)
    with pytest.raises(DataError, match="unpacks to more than 200 times its size"):
        open_table(path, LAYOUTS)
