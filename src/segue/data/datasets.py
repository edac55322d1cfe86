"""Datasets by name: found on disk or fetched, checked, unpacked, and read as they are meant.

A dataset is looked for in this order: the directory that `SEGUE_DATA` names, holding an archive
(`ml-1m.zip`) or a folder (`ml-1m/`); the cache, which `SEGUE_CACHE` moves; the dataset's own site;
for ml-100k, at last, a wheel of the package index that carries its files. A folder `ml-1m/` may
hold MovieLens' own files or the published ml-1m benchmark as Parquet: `interactions.parquet`, in
which `position` gives each user's order, and `items.parquet`.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import polars as pl
import pooch

from segue.data.archives import unpack
from segue.data.downloads import check_digest, download, download_wheel
from segue.data.items import GENRES_OF_100K, Catalogue, read_items
from segue.data.log import InteractionLog, read_log
from segue.data.roles import ITEM, TITLE
from segue.errors import DatasetError

DATA_VARIABLE = "SEGUE_DATA"
CACHE_VARIABLE = "SEGUE_CACHE"


@dataclass(frozen=True)
class Files:
    """The two files that hold a dataset, and how they are read.

    Attributes:
        time_col: The log's time column, where it is not the usual one.
        tidy: Gives the catalogue's films a title with the year, and `genres` between bars.
    """

    log: str
    items: str
    time_col: str | None = None
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
class Dataset:
    """A log and its catalogue, published as one zip archive with a folder of the dataset's name.

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


def _tidy_recbole(films: pl.DataFrame) -> pl.DataFrame:
    """RecBole keeps the year (or a word) in `release_year` and the genres in `class`, spaced."""
    has_year = pl.col("release_year").str.contains(r"^\d{4}$")
    dated = pl.format("{} ({})", TITLE.name, "release_year")
    return films.select(
        ITEM.name,
        pl.when(has_year).then(dated).otherwise(TITLE.name).alias(TITLE.name),
        pl.col("class").str.replace_all(" ", "|", literal=True).alias("genres"),
    )


def _tidy_100k(films: pl.DataFrame) -> pl.DataFrame:
    """GroupLens' `u.item` has a column of 0 or 1 for each genre."""
    named = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES_OF_100K.split()]
    genres = pl.concat_str(named, separator="|", ignore_nulls=True).alias("genres")
    return films.select(ITEM.name, TITLE.name, genres)


MOVIELENS = "https://files.grouplens.org/datasets/movielens"
RATINGS_CSV = Files("ratings.csv", "movies.csv")
RECBOLE_100K = Files("ml-100k.inter", "ml-100k.item", tidy=_tidy_recbole)

# SHA-256 of the archives: as TensorFlow Datasets records them (url_checksums/movielens.txt).
_DATASETS = (
    Dataset(
        "ml-1m",
        f"{MOVIELENS}/ml-1m.zip",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        "MovieLens 1M: 1,000,209 ratings of 3,706 films by 6,040 users, 2000 to 2003",
        5.9,
        Files("ratings.dat", "movies.dat"),
        other_files=(Files("interactions.parquet", "items.parquet", time_col="position"),),
    ),
    Dataset(
        "ml-100k",
        f"{MOVIELENS}/ml-100k.zip",
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        "MovieLens 100K: 100,000 ratings of 1,682 films by 943 users, 1997 to 1998",
        4.9,
        Files("u.data", "u.item", tidy=_tidy_100k),
        other_files=(RECBOLE_100K,),
        wheel=Wheel(
            "recbole==1.2.1",
            "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            "recbole/dataset_example/ml-100k",
            RECBOLE_100K,
        ),
    ),
    Dataset(
        "ml-latest-small",
        f"{MOVIELENS}/ml-latest-small.zip",
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        "MovieLens latest, small: 100,836 ratings of 9,724 films by 610 users, 1996 to 2018",
        1.0,
        RATINGS_CSV,
    ),
    Dataset(
        "ml-20m",
        f"{MOVIELENS}/ml-20m.zip",
        "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        "MovieLens 20M: 20,000,263 ratings of 26,744 films by 138,493 users, 1995 to 2015",
        198.7,
        RATINGS_CSV,
    ),
    Dataset(
        "ml-32m",
        f"{MOVIELENS}/ml-32m.zip",
        None,
        "MovieLens 32M: 32,000,204 ratings of 84,432 films by 200,948 users, 1995 to 2023",
        239.0,
        RATINGS_CSV,
    ),
)
DATASETS: Mapping[str, Dataset] = MappingProxyType({each.name: each for each in _DATASETS})


def load(dataset: str | Dataset, *, progress: bool = False) -> tuple[InteractionLog, Catalogue]:
    """The log and the catalogue of a dataset, fetched where need be; titles carry the year.

    Raises:
        DatasetError: As `fetch`.
        DataError: The files cannot be read.
    """
    dataset = _named(dataset)
    folder = fetch(dataset, progress=progress)
    files = dataset.files_in(folder)
    if files is None:
        raise DatasetError(f"{folder} lost its files while {dataset.name} was loaded; try again")
    log = read_log(folder / files.log, time_col=files.time_col)
    items = read_items(folder / files.items)
    return log, items if files.tidy is None else Catalogue(files.tidy(items.frame))


def fetch(dataset: str | Dataset, *, progress: bool = False) -> Path:
    """The folder with a dataset's files, which are downloaded and unpacked where need be.

    Args:
        dataset: One of the names in `DATASETS`, or a dataset of your own.
        progress: Show a download's progress on standard error.

    Raises:
        DatasetError: An unknown name, or no source has it; the line says what was tried and what
            to do.
    """
    dataset = _named(dataset)
    try:
        found = _from_directory(dataset) or _from_cache(dataset)
        return found or _from_elsewhere(dataset, progress=progress)
    except OSError as error:
        raise DatasetError(
            f"{dataset.name} cannot be unpacked ({error}); make room in {cache_directory()}, "
            f"or name another directory in {CACHE_VARIABLE}"
        ) from error


def cache_directory() -> Path:
    """Where datasets are kept: what `SEGUE_CACHE` names, else the platform's cache directory."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("segue")) / "datasets"


def _named(dataset: str | Dataset) -> Dataset:
    if isinstance(dataset, Dataset):
        return dataset
    if dataset not in DATASETS:
        raise DatasetError(f"there is no dataset {dataset!r}; there are {', '.join(DATASETS)}")
    return DATASETS[dataset]


def _from_directory(dataset: Dataset) -> Path | None:
    """The dataset from the directory that `SEGUE_DATA` names; None where it is not there."""
    name = os.environ.get(DATA_VARIABLE)
    if not name:
        return None
    directory = Path(name)
    if not directory.is_dir():
        raise DatasetError(f"{DATA_VARIABLE}={name} is no directory; name one that exists")
    folder, archive = directory / dataset.name, directory / f"{dataset.name}.zip"
    if folder.is_dir():
        if dataset.files_in(folder) is None:
            known = ", or ".join(str(files) for files in (dataset.files, *dataset.other_files))
            raise DatasetError(f"{folder} lacks the files of {dataset.name}: {known}")
        return folder
    return _from_archive(dataset, archive) if archive.is_file() else None


def _from_archive(dataset: Dataset, archive: Path) -> Path:
    """Unpack an archive of the user's own into a folder of the cache named by its content."""
    try:
        digest = check_digest(archive, dataset.sha256)
        folder = _cache_entry(f"{dataset.name}-{digest[:16]}")
        _unpack(archive, dataset.name, dataset.files, folder)
    except DatasetError as error:
        raise DatasetError(
            f"{DATA_VARIABLE}: {error}; fetch {archive} again from {dataset.url}, "
            f"or unpack it into {archive.with_suffix('')} if you trust it"
        ) from error
    return folder


def _from_cache(dataset: Dataset) -> Path | None:
    folder = cache_directory() / dataset.name
    return folder if dataset.files_in(folder) is not None else None


def _from_elsewhere(dataset: Dataset, *, progress: bool) -> Path:
    """Ask the dataset's own site, then the package index; tell of both where neither has it."""
    folder = _cache_entry(dataset.name)
    attempts: list[Callable[[Path], None]] = [partial(_from_site, dataset, folder, progress)]
    if dataset.wheel is not None:
        attempts.append(partial(_from_wheel, dataset.wheel, folder))
    failures = []
    for attempt in attempts:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as scratch:
            try:
                attempt(Path(scratch))
                return folder
            except DatasetError as error:
                failures.append(str(error))
    raise DatasetError(
        f"{dataset.name} is not in {DATA_VARIABLE} nor in the cache {folder.parent}, and could not "
        f"be fetched ({'; '.join(failures)}): put {dataset.name}.zip from {dataset.url}, or a "
        f"folder {dataset.name} with its files, into a directory and name that in {DATA_VARIABLE}"
    )


def _from_site(dataset: Dataset, folder: Path, progress: bool, scratch: Path) -> None:
    archive = download(dataset.url, scratch, progress=progress)
    check_digest(archive, dataset.sha256)
    _unpack(archive, dataset.name, dataset.files, folder)


def _from_wheel(wheel: Wheel, folder: Path, scratch: Path) -> None:
    archive = download_wheel(wheel.requirement, scratch)
    check_digest(archive, wheel.sha256)
    _unpack(archive, wheel.folder, wheel.files, folder)


def _cache_entry(name: str) -> Path:
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    return directory / name


def _unpack(archive: Path, inside: str, files: Files, folder: Path) -> None:
    """Leave the two files, which lie in the archive's folder `inside`, in `folder`."""
    if files.are_in(folder):
        return
    if folder.exists():  # what is left of an entry that somebody emptied
        shutil.rmtree(folder)
    try:
        unpack(archive, [f"{inside}/{name}" for name in (files.log, files.items)], folder)
    except OSError:
        if not files.are_in(folder):  # another process may have been faster
            raise
