"""Datasets published as archives: found on disk or fetched, checked, unpacked, and read.

A dataset is looked for in this order: the directory that `SEGUE_DATA` names, holding an archive
(`ml-1m.zip`) or a folder (`ml-1m/`); the cache, which `SEGUE_CACHE` moves; the dataset's own site;
at last, where there is one, a wheel of the package index that carries its files.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import pooch

from segue.data.archives import is_unpacked, unpack
from segue.data.downloads import check_digest, download, download_wheel
from segue.data.items import Catalogue, read_items
from segue.data.log import InteractionLog, read_log
from segue.errors import DatasetError
from segue.files import make_directories, scratch_in

DATA_VARIABLE = "SEGUE_DATA"
CACHE_VARIABLE = "SEGUE_CACHE"


@dataclass(frozen=True)
class Files:
    """The two files that hold a dataset, and how they are read.

    Attributes:
        time_col: The log's time column, where it is not the usual one.
        list_cols: The catalogue's columns of text that are lists, as for `read_items`.
        tidy: Gives the catalogue the columns that segue's users expect.
    """

    log: str
    items: str
    time_col: str | None = None
    list_cols: tuple[str, ...] = ()
    tidy: Callable[[pl.DataFrame], pl.DataFrame] | None = None

    def are_in(self, folder: Path) -> bool:
        return all((folder / name).is_file() for name in (self.log, self.items))

    def __str__(self) -> str:
        return f"{self.log} and {self.items}"


@dataclass(frozen=True)
class Wheel:
    """A package that carries a dataset: where its files lie inside, and how they are called."""

    requirement: str
    sha256: str
    folder: str
    files: Files


@dataclass(frozen=True)
class ArchivedSource:
    """A `Source` published as one zip archive with a folder of the dataset's name.

    Attributes:
        sha256: Of the archive; None where it is not known, or changes.
        size_mb: Of the archive, about.
        files: What the archive holds.
        other_files: What a folder may hold instead.
        wheel: Where to look when `url` does not answer.
    """

    name: str
    url: str
    sha256: str | None
    description: str
    size_mb: float
    files: Files
    other_files: tuple[Files, ...] = ()
    wheel: Wheel | None = None

    def files_in(self, folder: Path) -> Files | None:
        """Which of the known pairs of files the folder holds; None where it holds none."""
        return next((f for f in (self.files, *self.other_files) if f.are_in(folder)), None)

    def fetch(self, *, progress: bool = False) -> Path:
        """As `Source.fetch`."""
        try:
            folder = _from_directory(self) or _from_cache(self)
            return folder or _from_elsewhere(self, progress=progress)
        except OSError as error:
            raise DatasetError(
                f"{self.name} cannot be unpacked ({error}); make room in {cache_directory()}, "
                f"or name another directory in {CACHE_VARIABLE}"
            ) from error

    def read(self, folder: Path) -> tuple[InteractionLog, Catalogue | None]:
        """As `Source.read`; titles carry the year."""
        files = self.files_in(folder)
        if files is None:
            raise DatasetError(f"{folder} lost its files while {self.name} was loaded; try again")
        log = read_log(folder / files.log, time_col=files.time_col)
        items = read_items(folder / files.items, log=log, list_cols=files.list_cols)
        return log, items if files.tidy is None else Catalogue(files.tidy(items.frame), items.notes)


def cache_directory() -> Path:
    """Where datasets are kept: what `SEGUE_CACHE` names, else the platform's cache directory."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("segue")) / "datasets"


def _from_directory(source: ArchivedSource) -> Path | None:
    """The dataset from the directory that `SEGUE_DATA` names; None where it is not there."""
    name = os.environ.get(DATA_VARIABLE)
    if not name:
        return None
    directory = Path(name)
    if not directory.is_dir():
        raise DatasetError(f"{DATA_VARIABLE}={name} is no directory; name one that exists")
    folder, archive = directory / source.name, directory / f"{source.name}.zip"
    if folder.is_dir():
        if source.files_in(folder) is None:
            known = ", or ".join(str(files) for files in (source.files, *source.other_files))
            raise DatasetError(f"{folder} lacks the files of {source.name}: {known}")
        return folder
    return _from_archive(source, archive) if archive.is_file() else None


def _from_archive(source: ArchivedSource, archive: Path) -> Path:
    """Unpack an archive of the user's own into a folder of the cache named by its content."""
    try:
        digest = check_digest(archive, source.sha256)
        folder = _cache_entry(f"{source.name}-{digest[:16]}")
        _unpack(archive, source.name, source.files, folder)
    except DatasetError as error:
        raise DatasetError(
            f"{DATA_VARIABLE}: {error}; fetch {archive} again from {source.url}, "
            f"or unpack it into {archive.with_suffix('')} if you trust it"
        ) from error
    return folder


def _from_cache(source: ArchivedSource) -> Path | None:
    folder = cache_directory() / source.name
    return folder if is_unpacked(folder) and source.files_in(folder) is not None else None


def _from_elsewhere(source: ArchivedSource, *, progress: bool) -> Path:
    """Ask the dataset's own site, then the package index; tell of both where neither has it."""
    folder = _cache_entry(source.name)
    attempts: list[Callable[[Path], None]] = [partial(_from_site, source, folder, progress)]
    if source.wheel is not None:
        attempts.append(partial(_from_wheel, source.wheel, folder))
    failures = []
    for attempt in attempts:
        with scratch_in(folder.parent, "download") as scratch:
            try:
                attempt(scratch)
                return folder
            except DatasetError as error:
                failures.append(str(error))
    raise DatasetError(
        f"{source.name} is not in {DATA_VARIABLE} nor in the cache {folder.parent}, and could not "
        f"be fetched ({'; '.join(failures)}): put {source.name}.zip from {source.url}, or a "
        f"folder {source.name} with its files, into a directory and name that in {DATA_VARIABLE}"
    )


def _from_site(source: ArchivedSource, folder: Path, progress: bool, scratch: Path) -> None:
    archive = download(source.url, scratch, progress=progress)
    check_digest(archive, source.sha256)
    _unpack(archive, source.name, source.files, folder)


def _from_wheel(wheel: Wheel, folder: Path, scratch: Path) -> None:
    archive = download_wheel(wheel.requirement, scratch)
    check_digest(archive, wheel.sha256)
    _unpack(archive, wheel.folder, wheel.files, folder)


def _cache_entry(name: str) -> Path:
    directory = cache_directory()
    make_directories(directory)
    return directory / name


def _unpack(archive: Path, inside: str, files: Files, folder: Path) -> None:
    """Leave the two files, which lie in the archive's folder `inside`, in `folder`."""
    if _is_whole(folder, files):
        return
    if folder.exists():  # what is left of an entry that somebody emptied or a power cut damaged
        shutil.rmtree(folder)
    try:
        unpack(archive, [f"{inside}/{name}" for name in (files.log, files.items)], folder)
    except OSError:
        if not _is_whole(folder, files):  # another process may have been faster
            raise


def _is_whole(folder: Path, files: Files) -> bool:
    return is_unpacked(folder) and files.are_in(folder)
