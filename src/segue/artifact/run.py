"""A run: all that is needed to evaluate, to recommend and to serve; as values, and on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.artifact.documents import (
    WEIGHT_TYPES,
    read_json,
    read_text,
    read_weights,
    write_json,
    write_weights,
)
from segue.artifact.failures import reading, writing
from segue.artifact.histories import read_histories, write_histories
from segue.artifact.manifest import (
    CONFIG,
    CONTENT,
    HISTORIES,
    ITEMS,
    MANIFEST,
    RANKS,
    REPORT,
    TRAINING,
    WEIGHTS,
    parse_manifest,
    verify_files,
    write_manifest,
)
from segue.artifact.placing import put_in_place, refuse_output, resolved, standing
from segue.artifact.tables import (
    check_catalogue,
    read_items,
    read_ranks,
    write_items,
    write_ranks,
)
from segue.config import Config, config_of_run
from segue.data.content import ContentEncoder
from segue.data.splits import Split
from segue.data.times import TimeUnit
from segue.data.vocabulary import Vocabulary
from segue.errors import RunError
from segue.evaluation.protocol import Ranking

MAX_READS = 5


@dataclass(frozen=True, eq=False)
class Run:
    """What training made, and what it was made from.

    Attributes:
        config: The encoder, the loss and the training.
        weights: By stable names, of any shapes; floats (of 16, 32 or 64 bits, finite), integers or
            booleans.
        vocabulary: What the dense ids mean.
        catalogue: What else is known of the items, one row per dense id 1..num_items in that order,
            without `item_id`; None if nothing is.
        item_counts: Training interactions of each item, int64[num_items + 1]; 0 for padding.
        split: The histories and their parts; None if the run carries none.
        training: Curves, ready for JSON.
        ranking: Where each test user's target came; None if nothing was tested.
        report: Metrics and what they were measured on, ready for JSON.
        content: What makes the vectors of content, for new items; None where the tower reads none.

    Raises:
        RunError: These contradict each other, or weights are not finite.
        DataError: See `check_catalogue`.
    """

    config: Config
    weights: Mapping[str, npt.NDArray[Any]]
    vocabulary: Vocabulary
    catalogue: pl.DataFrame | None
    item_counts: npt.NDArray[np.int64]
    split: Split | None
    training: Mapping[str, Any]
    ranking: Ranking | None
    report: Mapping[str, Any]
    content: ContentEncoder | None = None

    @property
    def repeats(self) -> bool:
        """Whether items of a history may be recommended again, as the log was split."""
        return self.split is not None and self.split.repeats

    @cached_property
    def is_placed(self) -> npt.NDArray[np.bool_]:
        """bool[num_items + 1]: the items that the model has learned or whose content it knows."""
        is_placed: npt.NDArray[np.bool_] = self.item_counts > 0
        if self.content is not None and self.catalogue is not None:
            is_placed[1:] |= self.content.vectors(self.catalogue).any(axis=1)
        return is_placed

    @property
    def unit(self) -> TimeUnit:
        """Of the times of its log; an order where it carries no histories."""
        return TimeUnit.ORDER if self.split is None else self.split.histories.unit

    def __post_init__(self) -> None:
        num_items = self.vocabulary.num_items
        if self.item_counts.shape != (num_items + 1,):
            raise RunError(
                f"counts of the shape {self.item_counts.shape} for {num_items:,} items; give one "
                f"for each and one for padding"
            )
        if self.catalogue is not None:
            check_catalogue(self.catalogue)
            if len(self.catalogue) != num_items:
                raise RunError(
                    f"a catalogue of {len(self.catalogue):,} rows for {num_items:,} items; align "
                    f"it with the vocabulary"
                )
        if self.split is not None:
            _refuse_other_histories(self.split, self.vocabulary)
        for name, weight in self.weights.items():
            _refuse_unusable(name, weight)


def write_run(run: Run, path: str | Path, *, force: bool = False) -> None:
    """Write a run whole, or leave what is there untouched.

    It is written beside `path`, flushed to the disk and moved into place: whoever reads meanwhile
    gets the old run or the new one.

    Args:
        run: What to write.
        path: The directory to be; where it is a link, what it points at.
        force: Whether to replace a run that stands there. Nothing but a run ever is replaced.

    Raises:
        OutputError: The place is taken or cannot be written, or something is not JSON.
    """
    refuse_output(path, force=force)
    with writing(path):
        put_in_place(resolved(path), partial(_fill, run), force=force)


def read_run(path: str | Path, *, verify: bool = True) -> Run:
    """Read a run, trusting none of it: nothing is executed, and all of it is checked.

    What chance does to a file is found by its hash. A Parquet file that was made to do so, with a
    manifest to match, may still have Polars take all memory or end the process.

    Args:
        path: The run's directory, or a link to it.
        verify: Whether to compare the SHA-256 of every file; their sizes are compared always.

    Raises:
        RunError: There is no run, it is damaged or incomplete, or of a newer format.
    """
    target = resolved(path)
    for _ in range(MAX_READS):
        before = _identity(target)
        try:
            run = _read(path, before, verify)
        except RunError:
            if _identity(target) == before:
                raise
        else:
            if _identity(target) == before:
                return run
    raise RunError(f"{path} was replaced {MAX_READS} times while it was read; try again later")


def _identity(target: Path) -> tuple[Path, bytes] | None:
    """Where the run is now, and its manifest, in which different runs differ; None without one."""
    place = standing(target)
    if place is None:
        return None
    path = place / MANIFEST
    with reading(path):
        try:
            return place, read_text(path)
        except (FileNotFoundError, NotADirectoryError):
            return None


def _fill(run: Run, directory: Path) -> None:
    write_json(directory / CONFIG, run.config.model_dump(mode="json"))
    write_json(directory / TRAINING, run.training)
    write_json(directory / REPORT, run.report)
    write_weights(directory / WEIGHTS, run.weights)
    write_items(directory / ITEMS, run.vocabulary, run.catalogue, run.item_counts)
    if run.split is not None:
        write_histories(directory / HISTORIES, run.split)
    if run.ranking is not None:
        write_ranks(directory / RANKS, run.vocabulary, run.ranking)
    if run.content is not None:
        write_weights(directory / CONTENT, run.content.arrays)
    write_manifest(directory)


def _read(path: str | Path, identity: tuple[Path, bytes] | None, verify: bool) -> Run:
    if identity is None:
        raise RunError(f"{path} is no run: it has no {MANIFEST}; give what `segue fit` wrote")
    place, text = identity
    manifest = parse_manifest(place, text)
    verify_files(place, manifest, is_hashed=verify)
    with reading(place / CONFIG):
        config = config_of_run(read_json(place / CONFIG))
    with reading(place / TRAINING):
        training = read_json(place / TRAINING)
    with reading(place / REPORT):
        report = read_json(place / REPORT)
    with reading(place / WEIGHTS):
        weights = read_weights(place / WEIGHTS)
    with reading(place / ITEMS):
        vocabulary, catalogue, item_counts = read_items(place / ITEMS)
    split = ranking = None
    if HISTORIES in manifest.files:
        with reading(place / HISTORIES):
            split = read_histories(place / HISTORIES, vocabulary)
    if RANKS in manifest.files:
        with reading(place / RANKS):
            ranking = read_ranks(place / RANKS, vocabulary)
    content = None
    if CONTENT in manifest.files:
        with reading(place / CONTENT):
            content = ContentEncoder(config.items.content_columns, read_weights(place / CONTENT))
    with reading(place):
        return Run(
            config,
            weights,
            vocabulary,
            catalogue,
            item_counts,
            split,
            training,
            ranking,
            report,
            content,
        )


def _refuse_other_histories(split: Split, vocabulary: Vocabulary) -> None:
    if not split.histories.vocabulary.ids.equals(vocabulary.ids):
        raise RunError("the histories are of another vocabulary than the run; encode them again")
    user_ids = split.histories.user_ids
    if user_ids.n_unique() != len(user_ids):
        raise RunError("a user has two histories, which a run cannot tell apart; make them one")


def _refuse_unusable(name: str, weight: npt.NDArray[Any]) -> None:
    if weight.dtype.name not in WEIGHT_TYPES.values():
        raise RunError(
            f"the weight {name!r} is {weight.dtype}, which is not saved; convert it to one of "
            f"{', '.join(WEIGHT_TYPES.values())}"
        )
    # The least and the greatest are NaN if anything is: no mask as large as the item table.
    if weight.size and not (np.isfinite(weight.min()) and np.isfinite(weight.max())):
        raise RunError(
            f"the weight {name!r} holds NaN or infinity; train again, perhaps more slowly"
        )
