"""MovieLens (Harper & Konstan, 2015): GroupLens' own archives, and others who carry them.

A folder `ml-1m/` may hold MovieLens' own files or the published ml-1m benchmark as Parquet:
`interactions.parquet`, in which `position` gives each user's order, and `items.parquet`.
"""

import polars as pl

from segue.data.items import GENRES_OF_100K
from segue.data.roles import ITEM, TITLE
from segue.data.sources.archived import ArchivedSource, Files, Wheel
from segue.data.sources.protocol import SOURCES


def _tidy_recbole(films: pl.DataFrame) -> pl.DataFrame:
    """RecBole keeps the year (or a word) in `release_year` and the genres in `class`."""
    has_year = pl.col("release_year").str.contains(r"^\d{4}$")
    dated = pl.format("{} ({})", TITLE.name, "release_year")
    return films.select(
        ITEM.name,
        pl.when(has_year).then(dated).otherwise(TITLE.name).alias(TITLE.name),
        pl.col("class").alias("genres"),
    )


def _tidy_100k(films: pl.DataFrame) -> pl.DataFrame:
    """GroupLens' `u.item` has a column of 0 or 1 for each genre."""
    named = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES_OF_100K.split()]
    genres = pl.concat_list(named).list.drop_nulls().alias("genres")
    return films.select(ITEM.name, TITLE.name, genres)


MOVIELENS = "https://files.grouplens.org/datasets/movielens"
GENRES = ("genres",)
RATINGS_CSV = Files("ratings.csv", "movies.csv", list_cols=GENRES)
RECBOLE_100K = Files("ml-100k.inter", "ml-100k.item", tidy=_tidy_recbole)

# SHA-256 of the archives: as TensorFlow Datasets records them (url_checksums/movielens.txt), which
# does not have ml-32m. GroupLens publishes MD5 sums alone, and those over the same connection.
_DATASETS = (
    ArchivedSource(
        "ml-1m",
        f"{MOVIELENS}/ml-1m.zip",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        "MovieLens 1M: 1,000,209 ratings of 3,706 films by 6,040 users, 2000 to 2003",
        5.9,
        Files("ratings.dat", "movies.dat"),
        other_files=(
            Files("interactions.parquet", "items.parquet", time_col="position", list_cols=GENRES),
        ),
    ),
    ArchivedSource(
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
    ArchivedSource(
        "ml-latest-small",
        f"{MOVIELENS}/ml-latest-small.zip",
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        "MovieLens latest, small: 100,836 ratings of 9,724 films by 610 users, 1996 to 2018",
        1.0,
        RATINGS_CSV,
    ),
    ArchivedSource(
        "ml-20m",
        f"{MOVIELENS}/ml-20m.zip",
        "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        "MovieLens 20M: 20,000,263 ratings of 26,744 films by 138,493 users, 1995 to 2015",
        198.7,
        RATINGS_CSV,
    ),
    ArchivedSource(
        "ml-32m",
        f"{MOVIELENS}/ml-32m.zip",
        None,
        "MovieLens 32M: 32,000,204 ratings of 84,432 films by 200,948 users, 1995 to 2023; "
        "no checksum is known",
        239.0,
        RATINGS_CSV,
    ),
)

for _dataset in _DATASETS:
    SOURCES.register(_dataset.name)(_dataset)
