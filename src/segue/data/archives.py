"""Archives from outside, checked whole before they are unpacked: zip archives and gzip files."""

import gzip
import json
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from segue.errors import DataError, DatasetError
from segue.files import move_directory, scratch_in, sync, write_text

MAX_MEMBERS = 10_000
MAX_UNPACKED_BYTES = 4 << 30
# Deflate cannot exceed about 1030 to 1, and only for runs of one byte; ratings reach 10 to 1.
MAX_RATIO = 200
SMALL_MEMBER_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20

# In a folder that was unpacked: the size of each file, in bytes.
MARKER = ".unpacked.json"
KNOWN_TYPES = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: the archive's maker did not say
KNOWN_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED_FLAG = 0x1


def unpack(archive: Path, members: Sequence[str], directory: Path) -> None:
    """Leave the named members, without the folders they lie in, in `directory`; see `is_unpacked`.

    The whole archive is checked first, the members that are not wanted included. They are written
    beside `directory`, which must not exist, and renamed: it appears whole or not at all.

    Raises:
        DatasetError: Not a zip archive, a damaged one, one that lacks a member, or one that no
            honest maker would have made.
        OSError: `directory` cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            _check(opened.infolist(), directory)
            missing = sorted(set(members) - set(opened.namelist()))
            if missing:
                raise DatasetError(f"{archive.name} lacks {', '.join(missing)}")
            _write(opened, members, directory)
    # What zipfile raises for damage: ValueError for a name that is not the UTF-8 that it claims.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise DatasetError(f"{archive.name} is no intact zip archive: {error}") from error


def is_unpacked(directory: Path) -> bool:
    """Whether `unpack` left `directory` so: every file is there, with the size that it had."""
    try:
        sizes = json.loads((directory / MARKER).read_text(encoding="utf-8"))["sizes"]
        return all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


COMPRESSED_SUFFIXES = (".gz", ".zip")


def refuse_bomb(path: Path) -> None:
    """Refuse a file of `COMPRESSED_SUFFIXES` that unpacks to more than any log does.

    A zip archive says how large its members are, and no more than that is read of them.

    Raises:
        DataError: It does.
        OSError, EOFError, zlib.error: It cannot be read.
    """
    if path.suffix.lower() == ".zip":
        try:
            with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
                _check(archive.infolist(), path.parent)
        except DatasetError as error:
            raise DataError(f"{path}: {error}") from None
        return
    by_ratio = max(SMALL_MEMBER_BYTES, MAX_RATIO * path.stat().st_size)
    unpacked = 0
    with gzip.open(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            unpacked += len(chunk)
            if unpacked > by_ratio:
                raise DataError(
                    f"{path} unpacks to more than {MAX_RATIO} times its size, which no log does; "
                    f"if you trust it, unpack it yourself"
                )
            if unpacked > MAX_UNPACKED_BYTES:
                raise DataError(
                    f"{path} unpacks to more than {MAX_UNPACKED_BYTES:,} bytes; unpack it "
                    f"yourself, or save it as Parquet"
                )


def _write(archive: zipfile.ZipFile, members: Sequence[str], directory: Path) -> None:
    with scratch_in(directory.parent, directory.name) as scratch:
        folder = scratch / directory.name
        folder.mkdir()
        sizes = {}
        for member in members:
            target = folder / PurePosixPath(member).name
            with archive.open(member) as source, target.open("xb") as file:
                shutil.copyfileobj(source, file)
            sync(target)
            sizes[target.name] = target.stat().st_size
        write_text(folder / MARKER, json.dumps({"sizes": sizes}))
        move_directory(folder, directory, last=MARKER)


def _check(members: Sequence[zipfile.ZipInfo], directory: Path) -> None:
    """Refuse an archive for the first of its members that is not plain."""
    if len(members) > MAX_MEMBERS:
        raise DatasetError(
            f"the archive has {len(members):,} members; at most {MAX_MEMBERS:,} are unpacked"
        )
    seen: set[str] = set()
    for member in members:
        path = str(PurePosixPath(member.filename))
        fault = "is there twice" if path in seen else _fault(member, directory)
        if fault is not None:
            raise DatasetError(f"the archive's member {member.filename!r} {fault}; not unpacked")
        seen.add(path)
    total = sum(member.file_size for member in members)
    if total > MAX_UNPACKED_BYTES:
        raise DatasetError(
            f"the archive unpacks to {total:,} bytes; at most {MAX_UNPACKED_BYTES:,} are unpacked"
        )


def _fault(member: zipfile.ZipInfo, directory: Path) -> str | None:
    """What is wrong with a member, or None."""
    name = member.filename
    if not name.isprintable() or "\\" in name or ":" in name:
        return "has characters that no name should have"
    is_inside = (directory / name).resolve().is_relative_to(directory.resolve())
    if ".." in PurePosixPath(name).parts or not is_inside:
        return "leads out of the archive's folder"
    if stat.S_IFMT(member.external_attr >> 16) not in KNOWN_TYPES:
        return "is neither a file nor a folder"
    if member.flag_bits & ENCRYPTED_FLAG or member.compress_type not in KNOWN_METHODS:
        return "is encrypted or compressed in an unusual way"
    if member.header_offset < 0:
        return "begins before the archive does"
    is_small = member.file_size <= SMALL_MEMBER_BYTES
    if not is_small and member.file_size > MAX_RATIO * member.compress_size:
        return f"unpacks to more than {MAX_RATIO} times its size"
    return None
