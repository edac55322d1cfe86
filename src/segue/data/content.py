"""Content: from what a catalogue says of items to a vector of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from segue.data.checks import shown_names
from segue.errors import DataError

# Words and values are counted by a hash: a new item's may be new too, and nothing is looked up.
NUM_HASHES = 2**15
# A column in addition to the catalogue's own: the vector of each item.
CONTENT = "content vector"
NUM_BINS = 10  # of a number, equally full
FREQUENCY, COMPONENTS = "inverse_frequency", "components"
EDGES = "edges/"  # before the name of a column of numbers

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ContentEncoder:
    """Vectors of items from columns of a catalogue; learned once, applied to new items as well.

    Text gives its words, and text, labels and truth values give themselves; a number gives the one
    of ten equally full ranges that it lies in. They are hashed (Weinberger et al., "Feature hashing
    for large scale multitask learning", ICML 2009), weighted by TF-IDF and, with the caller's own
    vectors, reduced by a truncated singular value decomposition. The components are whitened, as
    text vectors are otherwise all alike (Zhang et al., "Are ID embeddings necessary? Whitening
    pre-trained text embeddings for effective sequential recommendation", ICDE 2024).

    Attributes:
        columns: The columns read. Text, lists of text, truth values and numbers; columns of lists
            or arrays of floats are vectors of the caller's own.
        arrays: What was learned, by name: `inverse_frequency` float32[NUM_HASHES]; `components`
            float32[NUM_HASHES + all own vectors' numbers, size]; `edges/COLUMN` float64[9] for each
            column of numbers.
    """

    columns: tuple[str, ...]
    arrays: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def learned(cls, catalogue: pl.DataFrame, columns: Sequence[str], size: int, seed: int) -> Self:
        """Learns from a catalogue.

        Args:
            catalogue: A row for each item; nulls where nothing is known.
            columns: The columns to read.
            size: Numbers of a vector.
            seed: Of the decomposition.

        Raises:
            DataError: A column is missing, of a type that cannot be read, or nothing is known of
                any item.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfTransformer

        _refuse_missing(catalogue, columns)
        edges = {
            EDGES + name: _edges(catalogue[name])
            for name in columns
            if catalogue[name].dtype.is_numeric()
        }
        blank = cls(tuple(columns), edges)
        counts = blank._counts(catalogue)
        weights = TfidfTransformer(sublinear_tf=True).fit(counts)
        frequency = weights.idf_.astype(np.float32)
        encoder = cls(tuple(columns), {**edges, FREQUENCY: frequency})
        features = encoder._features(catalogue, counts)
        if not features.nnz:
            raise DataError(
                f"nothing is known of any item in {shown_names(columns)}; name other columns with "
                f"--item-features"
            )
        rank = max(1, min(size, min(features.shape) - 1))
        reduced = TruncatedSVD(rank, random_state=seed).fit(features)
        projected = features @ reduced.components_.T
        spread = np.sqrt((projected**2).mean(axis=0) * size)
        components = np.zeros((features.shape[1], size), np.float32)
        is_used = spread > 1e-6 * spread.max()
        components[:, :rank][:, is_used] = (reduced.components_[is_used] / spread[is_used, None]).T
        return cls(tuple(columns), {**edges, FREQUENCY: frequency, COMPONENTS: components})

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        return int(self.arrays[COMPONENTS].shape[1])

    def vectors(self, catalogue: pl.DataFrame) -> Floats:
        """float32[rows, size], of a length of about 1; zeros where nothing is known of an item.

        Raises:
            DataError: A column is missing, or of another type than it had.
        """
        _refuse_missing(catalogue, self.columns)
        features = self._features(catalogue, self._counts(catalogue))
        components = self.arrays[COMPONENTS]
        if features.shape[1] != len(components):
            raise DataError(
                f"the vectors in {shown_names(self.columns)} have {features.shape[1] - NUM_HASHES} "
                f"numbers together, but {len(components) - NUM_HASHES} in training; give vectors "
                f"of the same kind"
            )
        return np.asarray(features @ components, np.float32)

    def _features(self, catalogue: pl.DataFrame, counts: sp.csr_array) -> sp.csr_array:
        """float32[rows, NUM_HASHES + own vectors' numbers]; changes the counts."""
        counts.data = 1 + np.log(counts.data)
        hashed = _of_length_1(counts * self.arrays[FREQUENCY][None, :])
        given = [catalogue[name] for name in self.columns if _is_vectors(catalogue[name])]
        own = [_own_vectors(column) for column in given]
        parts = [hashed, *(_of_length_1(sp.csr_array(vectors)) for vectors in own)]
        return sp.csr_array(sp.hstack(parts, format="csr"), dtype=np.float32)

    def _counts(self, catalogue: pl.DataFrame) -> sp.csr_array:
        """How often each word and value occurs, float32[rows, NUM_HASHES]."""
        from sklearn.feature_extraction import FeatureHasher

        tokens: list[list[str]] = [[] for _ in range(len(catalogue))]
        for name in self.columns:
            if not _is_vectors(catalogue[name]):
                for row, more in zip(tokens, self._tokens(catalogue[name]).to_list(), strict=True):
                    row += more or []
        hasher = FeatureHasher(NUM_HASHES, input_type="string", alternate_sign=False)
        return sp.csr_array(hasher.transform(tokens), dtype=np.float32)

    def _tokens(self, column: pl.Series) -> pl.Series:
        """A list of text for each row: its words and values."""
        name, dtype = column.name, column.dtype
        if dtype.is_numeric():
            edges = self.arrays[EDGES + name]
            values = column.cast(pl.Float64).to_numpy()
            bins = pl.Series(name, np.searchsorted(edges, values)).set(column.is_null(), None)
            return _as_lists(name + "=" + bins.cast(pl.String))
        if isinstance(dtype, pl.List) and dtype.inner == pl.String:
            return column.list.eval(pl.concat_str(pl.lit(name + "="), pl.element()).drop_nulls())
        text = column.cast(pl.String)
        whole = _as_lists(name + "=" + text)
        if dtype != pl.String:
            return whole
        words = text.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+").fill_null([])
        return whole.list.concat(words)


def _as_lists(column: pl.Series) -> pl.Series:
    """A list of one for each value, of none where it is null."""
    return pl.select(pl.concat_list(column)).to_series().list.drop_nulls()


def _is_vectors(column: pl.Series) -> bool:
    dtype = column.dtype
    return isinstance(dtype, pl.List | pl.Array) and dtype.inner.is_numeric()


def _own_vectors(column: pl.Series) -> Floats:
    """float32[rows, numbers]; zeros where there is none.

    Raises:
        DataError: They are not all as long.
    """
    lists = column.cast(pl.List(pl.Float32))
    lengths = lists.list.len().drop_nulls().unique().to_list()
    if len(lengths) > 1 or 0 in lengths:
        raise DataError(
            f"the vectors in {column.name!r} have {shown_names(lengths)} numbers; give all items "
            f"vectors of one length, or none"
        )
    length = lengths[0] if lengths else 0
    vectors = np.zeros((len(column), length), np.float32)
    is_known = column.is_not_null().to_numpy()
    vectors[is_known] = lists.drop_nulls().explode().to_numpy().reshape(-1, max(length, 1))
    if not np.isfinite(vectors).all():
        raise DataError(f"a vector in {column.name!r} holds NaN or infinity; give finite numbers")
    return vectors


def _edges(column: pl.Series) -> npt.NDArray[np.float64]:
    """The values that part a column of numbers into ten equally full ranges, float64[9]."""
    values = column.cast(pl.Float64).drop_nulls().drop_nans().to_numpy()
    if not values.size:
        return np.zeros(NUM_BINS - 1)
    edges: npt.NDArray[np.float64] = np.quantile(values, np.arange(1, NUM_BINS) / NUM_BINS)
    return edges


def _of_length_1(matrix: sp.csr_array) -> sp.csr_array:
    """Each row divided by its length; rows of zeros stay."""
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1))).ravel()
    return sp.csr_array(sp.diags_array(1 / np.maximum(lengths, 1e-12)) @ matrix)


def _refuse_missing(catalogue: pl.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in catalogue.columns]
    if missing:
        raise DataError(
            f"the catalogue has no column {shown_names(missing)}; its columns are "
            f"{shown_names(catalogue.columns)}"
        )
    for name in columns:
        dtype = catalogue[name].dtype
        inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
        if not (inner in (pl.String, pl.Boolean) or inner.is_numeric()):
            raise DataError(
                f"the column {name!r} is of type {dtype}, which no feature is made of; give text, "
                f"numbers, truth values, lists of text or vectors"
            )
