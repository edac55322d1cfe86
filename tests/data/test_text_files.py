import gzip
from pathlib import Path

import polars as pl
import pytest

from segue.data.items import read_items
from segue.data.layouts import Layout
from segue.data.log import read_log
from segue.data.readers import open_table
from segue.data.text_format import TextFormat
from segue.errors import DataError

TAOBAO = "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n"
NAMED = TextFormat(has_header=False, columns=("user", "item", "_", "event", "time"))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("line", "columns"),
    [
        ("1,2268318,2520377,pv,1511544070", "user,item,_,event,time"),
        ("alice\tshoe\t2024-01-05T12:00:00Z", "user,item,time"),
        ("2024-01-05;u1;i1;4.5", "time,user,item,_"),
        ("17,18", "user,item"),
        ("17", "user"),
    ],
)
def test_a_first_line_of_data_is_refused_with_the_options_that_read_it(
    tmp_path: Path, line: str, columns: str
) -> None:
    path = write(tmp_path / "log.csv", f"{line}\n{line}\n")
    with pytest.raises(DataError, match="line 1 looks like data") as error:
        read_log(path)
    assert f"--no-header --columns {columns} " in str(error.value)
    # Following a wrong way out would lose the first line.
    with pytest.raises(DataError, match="line 1 looks like data"):
        read_log(path, user_col=line.split(",")[0])


@pytest.mark.parametrize("header", ["user_id,item_id,timestamp,2019", "user,item,time"])
def test_a_header_with_a_usual_name_is_a_header(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "log.csv", f"{header}\n1,2,3{',4' * (header.count(',') - 2)}\n")
    assert read_log(path).frame.rows() == [(1, 2, 3)]


def test_a_log_without_a_header_is_read_with_the_names_given(tmp_path: Path) -> None:
    path = write(tmp_path / "UserBehavior.csv", TAOBAO)
    assert read_log(path, text=NAMED).frame.rows() == [
        (1, 2268318, 1511544070),
        (1, 2333346, 1511561733),
    ]
    table = open_table(path, {}, NAMED)
    assert table.names == ("user", "item", "event", "time")
    assert table.read(["event"]).frame.rows() == [("pv",), ("buy",)]


def test_columns_without_a_header_are_numbered(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "1,2\n3,4\n")
    table = open_table(path, {}, TextFormat(has_header=False))
    assert table.names == ("column_1", "column_2")
    assert table.read(["column_1"]).frame.rows() == [("1",), ("3",)]


def test_names_take_the_place_of_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "0,1,2\n7,8,9\n")
    text = TextFormat(columns=("user", "item", "time"))
    assert read_log(path, text=text).frame.rows() == [(7, 8, 9)]


def test_blank_lines_and_several_unread_columns_are_no_hindrance(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "1,a,2,b,3\n,,,,\n\n4,c,5,d,6\n")
    text = TextFormat(has_header=False, columns=("user", "_", "item", "_", "time"))
    log = read_log(path, text=text)
    assert log.frame.rows() == [(1, 2, 3), (4, 5, 6)]
    assert "skipped 2 blank lines" in log.notes


def test_the_names_of_a_layout_can_be_others(tmp_path: Path) -> None:
    path = write(tmp_path / "events.dat", "10::1::7\n20::2::8\n")
    text = TextFormat(columns=("time", "user", "item"))
    assert read_log(path, text=text).frame.rows() == [(1, 7, 10), (2, 8, 20)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("user", "item"), "line 1 has 5 fields, but --columns names 2; name every column, and _"),
        (("a", "b", "a", "_", "_"), "--columns names 'a' twice"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    tmp_path: Path, columns: tuple[str, ...], message: str
) -> None:
    path = write(tmp_path / "log.csv", TAOBAO)
    with pytest.raises(DataError, match=message):
        read_log(path, text=TextFormat(has_header=False, columns=columns))


def test_what_is_no_text_file_has_no_text_format() -> None:
    frame = pl.DataFrame({"user": [1], "item": [2], "time": [3]})
    with pytest.raises(DataError, match=r"is no text file.*--no-header, --columns and --encoding"):
        read_log(frame, text=TextFormat(encoding="cp1252"))


CAFE = "user_id,item_id,timestamp\nZoë,Café,1\n"


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
@pytest.mark.parametrize("header", ["user_id,item_id,timestamp", "user_id,item_id,timestamp,naïve"])
def test_windows_text_is_read_with_a_note(tmp_path: Path, name: str, header: str) -> None:
    rows = "Zoë,Café,1,€" if "," in header[25:] else "Zoë,Café,1"
    content = f"{header}\n{rows}\n".encode("cp1252")
    log = read_log(write(tmp_path / name, gzip.compress(content) if "gz" in name else content))
    assert log.frame.rows() == [("Zoë", "Café", 1)]
    (note,) = [note for note in log.notes if "Windows-1252" in note]
    assert "--encoding" in note


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_known_by_its_mark(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding == "utf-16" else "\ufeff"
    path = write(tmp_path / "log.csv", (mark + CAFE).encode(encoding))
    log = read_log(path)
    assert log.frame.rows() == [("Zoë", "Café", 1)]
    assert any("UTF-16" in note for note in log.notes)


@pytest.mark.parametrize("name", ["log.csv", "ratings.dat"])
def test_damaged_utf_8_is_refused_and_not_garbled(tmp_path: Path, name: str) -> None:
    separator = "::" if name.endswith("dat") else ","
    rows = [["Zoë", "Café", "3", "1"], ["José", "Œuvre", "3", "2"], ["Caf?", "é", "3", "3"]]
    lines = [["user", "item", "rating", "time"], *rows] if separator == "," else rows
    text = "\n".join(separator.join(line) for line in lines)
    path = write(tmp_path / name, text.encode().replace(b"?", b"\xe9"))
    line = 4 if separator == "," else 3
    with pytest.raises(DataError, match=f"UTF-8 but for 1 characters, the first in line {line}; "):
        read_log(path)
    log = read_log(path, text=TextFormat(encoding="cp1252"))
    assert log.frame["user_id"].to_list()[2] == "Café"


def test_a_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", b"\xef\xbb\xbf" + CAFE.encode())
    assert open_table(path, {}, TextFormat(encoding="utf-8")).names[0] == "user_id"


@pytest.mark.parametrize("encoding", ["cp1250", "utf-16-le", "shift_jis", "utf-8"])
def test_an_encoding_can_be_named(tmp_path: Path, encoding: str) -> None:
    text = CAFE.replace("Zoë", "Ж").replace("Café", "é") if encoding == "shift_jis" else CAFE
    text = text.replace("é", "e") if encoding == "shift_jis" else text
    log = read_log(
        write(tmp_path / "log.csv", text.encode(encoding)), text=TextFormat(encoding=encoding)
    )
    assert log.frame.rows()[0][0] == ("Ж" if encoding == "shift_jis" else "Zoë")
    assert not any("--encoding" in note for note in log.notes)


def test_layouts_and_catalogues_have_encodings_too(tmp_path: Path) -> None:
    movies = write(tmp_path / "movies.dat", "1::Œuvre::Drama\n".encode("cp1252"))
    items = read_items(movies)
    assert items.frame["title"].to_list() == ["Œuvre"]
    assert "Windows-1252" in items.notes[0]
    cyrillic = write(tmp_path / "items.csv", "item_id,title\n1,Жизнь\n".encode("cp1251"))
    assert read_items(cyrillic, text=TextFormat(encoding="cp1251")).frame["title"][0] == "Жизнь"
    layout = {".dat": Layout("::", ("a", "b"))}
    path = write(tmp_path / "x.dat", "Ж::1\n".encode("cp1251"))
    table = open_table(path, layout, TextFormat(encoding="cp1251"))
    assert table.read(["a"]).frame.rows() == [("Ж",)]


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (b"user,item,time\n\x81,1,1\n", None, "is no text in cp1252.*--encoding"),
        (b"user,item,time\n\xff,1,1\n", "utf-8", "is no text in utf-8.*--encoding"),
        (b"user,item,time\n1,1,1\n", "klingon", "there is no encoding 'klingon'"),
        (b"user,item,time\n1,1,1\n", "hex", "there is no encoding 'hex'"),
    ],
)
def test_text_in_no_encoding_is_refused_in_one_line(
    tmp_path: Path, content: bytes, encoding: str | None, message: str
) -> None:
    path = write(tmp_path / "log.csv", content)
    with pytest.raises(DataError, match=message) as error:
        read_log(path, text=TextFormat(encoding=encoding))
    assert "\n" not in str(error.value)


def test_a_dat_file_that_is_an_ordinary_table_is_read_as_one(tmp_path: Path) -> None:
    path = write(tmp_path / "user_artists.dat", "userID\tartistID\ttimestamp\n2\t51\t13883\n")
    assert read_log(path).frame.rows() == [(2, 51, 13883)]
    path = write(tmp_path / "log.dat", "2,51,1388318831\n")
    with pytest.raises(DataError, match=r"--no-header --columns user,item,time"):
        read_log(path)
    text = TextFormat(has_header=False, columns=("user", "item", "time"))
    assert read_log(path, text=text).frame.rows() == [(2, 51, 1388318831)]


RAGGED = "user,item,time\nu,1,10\nu,a, b,20\n\nu,3,30,,x,y\nu,4,40,\nu,5\n"
LONGER = "a line has more fields than the first in 2 of 5 rows, first in row 2"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_longer_lines_are_counted_with_the_other_faults_and_can_be_dropped(
    tmp_path: Path, end: str, encoding: str
) -> None:
    content = RAGGED.replace("\n", end).replace("u,", "ü,").encode(encoding)
    path = write(tmp_path / "log.csv", content)
    with pytest.raises(DataError) as error:
        read_log(path)
    assert LONGER in str(error.value)
    assert "timestamp is null in 1 of 5 rows, first in row 5" in str(error.value)
    assert "is not a number" not in str(error.value)
    log = read_log(path, drop_bad_rows=True)
    # A separator at the end is no field, and the item of the line that is too long is no id.
    assert log.frame.rows() == [("ü", 1, 10), ("ü", 4, 40)]
    assert "skipped 1 blank lines" in log.notes
    assert any("Windows-1252" in note for note in log.notes) == (encoding == "cp1252")


def test_separators_at_the_end_of_lines_are_no_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,item,time\nu,1,10,\nu,2,20,,,\n")
    assert read_log(path).frame.rows() == [("u", 1, 10), ("u", 2, 20)]


def test_longer_lines_are_found_under_a_quoted_header(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", '"user","item","time"\r\nu,1,10\r\nu,2,20,x\r\n')
    assert read_log(path, drop_bad_rows=True).frame.rows() == [("u", 1, 10)]


def test_longer_lines_are_found_without_a_header_and_in_directories(tmp_path: Path) -> None:
    text = TextFormat(has_header=False, columns=("user", "item", "_", "time"))
    write(tmp_path / "a.csv", "u,1,x,10\nu,2,x,20\n")
    path = write(tmp_path / "b.csv", "u,3,x,30\nu,4,x,40,5\n")
    with pytest.raises(
        DataError, match="more fields than the first in 1 of 2 rows, first in row 2"
    ):
        read_log(path, text=text)
    with pytest.raises(
        DataError, match="more fields than the first in 1 of 4 rows, first in row 4"
    ):
        read_log(tmp_path, text=text)
    log = read_log(tmp_path, text=text, drop_bad_rows=True)
    assert log.frame["item_id"].to_list() == [1, 2, 3]


def test_lines_that_do_not_fit_a_layout_can_be_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.dat", "1::7::5::10\n1::8::5\n1::9::5::30::4\n1::3::5::40\n")
    log = read_log(path, drop_bad_rows=True)
    assert log.frame["item_id"].to_list() == [7, 3]
    assert any("dropped 2 of 4 rows: a line has not the 4 fields" in note for note in log.notes)
    assert not any("null" in note for note in log.notes)


def test_a_catalogue_with_longer_lines_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "items.csv", "item_id,title\n1,Heat\n2,Crouching Tiger, Hidden Dragon\n"
    )
    with pytest.raises(DataError, match="a line has more fields than the first in 1 of 2 rows"):
        read_items(path)
