import errno
import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from segue.data import archives
from segue.data.archives import is_unpacked, unpack
from segue.errors import DatasetError

RATINGS = b"userId,movieId,rating,timestamp\n1,10,4.0,100\n"


def make_zip(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    return path


def with_type(name: str, file_type: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (file_type | 0o644) << 16
    return info


def refused(tmp_path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> str:
    """What the refusal says of an archive that also holds the member that is wanted."""
    archive = make_zip(tmp_path / "a.zip", [("tiny/ratings.csv", RATINGS), *members])
    return refused_archive(tmp_path, archive)


def refused_archive(tmp_path: Path, archive: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        unpack(archive, ["tiny/ratings.csv"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name]
    return str(caught.value)


def test_the_wanted_members_are_taken_without_their_folders(tmp_path):
    members = [("tiny/", b""), ("tiny/ratings.csv", RATINGS), ("tiny/README", b"read me")]
    archive = make_zip(tmp_path / "a.zip", members)
    unpack(archive, ["tiny/ratings.csv"], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["ratings.csv"]
    assert is_unpacked(tmp_path / "out")
    assert (tmp_path / "out" / "ratings.csv").read_bytes() == RATINGS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


def test_nothing_is_left_where_the_last_step_fails(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "rename", fail)
    archive = make_zip(tmp_path / "a.zip", [("tiny/ratings.csv", RATINGS)])
    with pytest.raises(OSError, match="Input/output"):
        unpack(archive, ["tiny/ratings.csv"], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    "name", ["../evil", "tiny/../../evil", "tiny/..", "/etc/evil", "//evil", "a/../b"]
)
def test_a_member_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    assert "leads out" in refused(tmp_path, [(name, b"x")])


@pytest.mark.parametrize("name", ["C:evil", "tiny\\evil", "tiny/e\nvil", "tiny/\x1b[2Jevil"])
def test_a_name_with_characters_that_other_systems_read_otherwise_is_refused(tmp_path, name):
    assert "characters" in refused(tmp_path, [(name, b"x")])


@pytest.mark.parametrize("file_type", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_a_link_or_a_device_is_refused(tmp_path, file_type):
    member = (with_type("tiny/link", file_type), b"/etc/passwd")
    assert "neither a file nor a folder" in refused(tmp_path, [member])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["tiny/ratings.csv", "tiny//ratings.csv", "./tiny/ratings.csv"])
def test_a_member_that_is_there_twice_is_refused(tmp_path, name):
    assert "twice" in refused(tmp_path, [(name, b"x")])


def test_a_member_that_unpacks_to_a_multiple_of_its_size_is_refused(tmp_path):
    assert "times its size" in refused(tmp_path, [("tiny/bomb", bytes(4 << 20))])


def test_a_small_member_may_compress_well(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("tiny/ratings.csv", b"1,10,4.0,100\n" * 50_000)])
    unpack(archive, ["tiny/ratings.csv"], tmp_path / "out")
    assert (tmp_path / "out" / "ratings.csv").stat().st_size == 13 * 50_000


def test_more_members_than_the_limit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    message = refused(tmp_path, [(f"tiny/{i}", b"x") for i in range(3)])
    assert "4 members" in message
    assert "at most 3" in message


def test_more_bytes_in_all_than_the_limit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", len(RATINGS) + 19)
    members = [("tiny/a", bytes(10)), ("tiny/b", bytes(10))]
    assert f"unpacks to {len(RATINGS) + 20} bytes" in refused(tmp_path, members)


def test_an_encrypted_member_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("tiny/ratings.csv", RATINGS)])
    content = bytearray(archive.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 8] |= 1  # general purpose flag, APPNOTE 4.3.12
    archive.write_bytes(content)
    assert "encrypted" in refused_archive(tmp_path, archive)


def test_a_member_longer_than_it_says_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("tiny/ratings.csv", RATINGS)])
    content = archive.read_bytes()
    directory = content.index(b"PK\x01\x02")
    shorter = struct.pack("<I", len(RATINGS) - 5)  # uncompressed size, APPNOTE 4.3.12
    archive.write_bytes(content[: directory + 24] + shorter + content[directory + 28 :])
    assert "no intact zip archive" in refused_archive(tmp_path, archive)


def test_a_member_that_begins_before_the_archive_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("tiny/ratings.csv", RATINGS)])
    content = bytearray(archive.read_bytes())
    end = content.index(b"PK\x05\x06")
    # Where the directory starts, APPNOTE 4.3.16: told one byte late, all seems one byte early.
    (start,) = struct.unpack_from("<I", content, end + 16)
    struct.pack_into("<I", content, end + 16, start + 1)
    archive.write_bytes(content)
    assert "begins before" in refused_archive(tmp_path, archive)


def test_a_name_that_is_not_the_text_it_claims_to_be_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("tiny/ratings.csv", RATINGS), ("tiny/é", b"x")])
    archive.write_bytes(archive.read_bytes().replace("é".encode(), b"\xff\xff"))
    assert "no intact zip archive" in refused_archive(tmp_path, archive)


def test_a_changed_byte_is_found(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("tiny/ratings.csv", RATINGS)
    archive.write_bytes(archive.read_bytes().replace(b"4.0", b"5.0"))
    assert "no intact zip archive" in refused_archive(tmp_path, archive)


def test_an_archive_without_the_wanted_member_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("tiny/README", b"x")])
    assert refused_archive(tmp_path, archive) == "a.zip lacks tiny/ratings.csv"


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><title>Sign in</title>"])
def test_what_is_no_zip_archive_is_refused(tmp_path, content):
    archive = tmp_path / "a.zip"
    archive.write_bytes(content)
    assert "no intact zip archive" in refused_archive(tmp_path, archive)


def test_an_archive_cut_off_anywhere_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("tiny/ratings.csv", RATINGS)
    whole = buffer.getvalue()
    archive = tmp_path / "a.zip"
    for length in range(len(whole)):
        archive.write_bytes(whole[:length])
        refused_archive(tmp_path, archive)
