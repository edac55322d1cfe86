"""The content of text files: unpacked and decoded.

Text is UTF-8, or UTF-16 by its mark, or else what spreadsheets of western Windows write.
"""

import gzip
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from segue.data.table import ENCODING_OPTIONS, readable
from segue.errors import DataError

HEADER_LIMIT_BYTES = 1 << 20
# It contains all of Latin-1 that occurs in text: MovieLens-1M is Latin-1, and accented text of
# either is practically never valid UTF-8.
FALLBACK, FALLBACK_NAME = "cp1252", "Windows-1252"
REPLACEMENT = "\ufffd"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def suffix_of(path: Path) -> str:
    """The lower-case suffix, that of the file inside where `path` is `.gz` or `.zip`.

    It is `.zip` where an archive holds several files, or cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return path.with_suffix("").suffix.lower()
    if suffix == ".zip" and path.is_file():
        with suppress(zipfile.BadZipFile, OSError):
            return Path(_only_member(path) or path).suffix.lower()
    return suffix


def is_zipped(path: Path) -> bool:
    """Whether a file is in a zip archive, which Polars does not read by itself."""
    return path.suffix.lower() == ".zip"


def content_of(path: Path) -> bytes:
    """The bytes of a file, unpacked."""
    with _opened(path) as file:
        return file.read()


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """A file, to be read unpacked.

    Raises:
        DataError: It is a zip archive that cannot be read.
    """
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as file:
            yield file
    elif is_zipped(path):
        try:
            with zipfile.ZipFile(path) as archive, archive.open(_only_member(path) or "") as file:
                yield file
        except (zipfile.BadZipFile, KeyError, RuntimeError) as error:
            raise DataError(f"{path} cannot be read: {error}; unpack it") from error
    else:
        with path.open("rb") as file:
            yield file


def _only_member(path: Path) -> str | None:
    """The name of the file in a zip archive; None where it holds none or several."""
    with zipfile.ZipFile(path) as archive:
        names = [each.filename for each in archive.infolist() if not each.is_dir()]
    visible = [name for name in names if not is_hidden(Path(name))]
    return visible[0] if len(visible) == 1 else None


def is_hidden(path: Path) -> bool:
    """Whether a name on the way is one that data files do not have: `.part`, `_temporary`."""
    return any(name.startswith((".", "_")) for name in path.parts)


def first_line(path: Path, encoding: str | None) -> tuple[str, str | None]:
    """The first line, and the encoding where that is seen not to be UTF-8 already."""
    with readable(path), _opened(path) as file:
        line = file.readline(HEADER_LIMIT_BYTES)
        if encoding is None and line.startswith(UTF_16_MARKS):
            encoding = "utf-16"
        if encoding is not None:
            # The end of a line of UTF-16 is not that of its bytes.
            content = line + file.read(HEADER_LIMIT_BYTES)
            return _decoded_start(path, content, encoding).split("\n")[0].rstrip("\r"), encoding
    if b"\0" in line:
        raise DataError(f"{path}: line 1 is not text; is the file of another format?")
    try:
        return line.decode("utf-8-sig").rstrip("\r\n"), None
    except UnicodeDecodeError:
        encoding = fallback_of(path)
        return line.decode(encoding, errors="replace").rstrip("\r\n"), encoding


def as_utf8(path: Path, encoding: str | None) -> tuple[bytes, str | None]:
    """The file's text as UTF-8, and the encoding that was found out where it was another."""
    content = content_of(path)
    if encoding is not None:
        return decoded(path, content, encoding), None
    try:
        content.decode()
        return content, None
    except UnicodeDecodeError:
        return decoded(path, content, fallback_of(path)), FALLBACK_NAME


def fallback_of(path: Path) -> str:
    """The encoding of a file that is not UTF-8.

    Raises:
        DataError: Most of what is not ASCII is UTF-8 nevertheless: it is damaged, and would be
            garbled in another encoding.
    """
    text = content_of(path).decode(errors="replace")
    num_bad = text.count(REPLACEMENT)
    num_good = len(text) - len(text.encode("ascii", errors="ignore")) - num_bad
    if num_good <= num_bad:
        return FALLBACK
    line = text[: text.index(REPLACEMENT)].count("\n") + 1
    raise DataError(
        f"{path} is UTF-8 but for {num_bad:,} characters, the first in line {line:,}; mend them, "
        f"or name its encoding with {ENCODING_OPTIONS}"
    )


def decoded(path: Path, content: bytes, encoding: str) -> bytes:
    """Text in an encoding as UTF-8.

    Raises:
        DataError: No such encoding, or the text is in another.
    """
    try:
        return content.decode(encoding).removeprefix("\ufeff").encode()
    except LookupError:
        raise _unknown(path, encoding) from None
    except UnicodeError as error:
        raise DataError(
            f"{path} is no text in {encoding} ({error}); name its encoding with {ENCODING_OPTIONS}"
        ) from None


def _decoded_start(path: Path, content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding, errors="replace").removeprefix("\ufeff")
    except LookupError:
        raise _unknown(path, encoding) from None


def _unknown(path: Path, encoding: str) -> DataError:
    return DataError(f"{path}: there is no encoding {encoding!r}; give one such as cp1252 or utf-8")


def name_of(encoding: str) -> str:
    """An encoding as people call it."""
    return FALLBACK_NAME if encoding == FALLBACK else encoding.upper()
