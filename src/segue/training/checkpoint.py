"""A training in progress on disk: one safetensors file, replaced in one move."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from segue import notes
from segue.config import Config
from segue.data.columns import ASKED_AT, ITEM_IDS, TIMESTAMPS
from segue.data.histories import Histories
from segue.errors import OutputError, TrainingError
from segue.files import make_directories, replaced
from segue.model.weights import Weights
from segue.training.steps import Step
from segue.version import segue_version

FORMAT_VERSION = 3
FILE_NAME = "state.safetensors"
ANEW = "start anew with --force in place of --resume"
Shapes = Mapping[str, tuple[int, ...]]
# What the names of arrays begin with.
STATE, BEST = "state/", "best/"


class Standing(BaseModel):
    """Where a training stands, beside the variables: what JSON can hold of it.

    Attributes:
        epoch, batch: the next batch to train on.
        seconds: spent in that epoch so far.
        loss: the sum of the losses of that epoch's batches so far.
        curves: one entry an epoch: epoch (from 1), loss, seconds, and what validation measured.
        best_score: the best NDCG@10 on validation so far; None before the first.
        best_epoch: the epoch, from 1, after which it was reached.
        stale: validations since then.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    epoch: NonNegativeInt = 0
    batch: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0
    loss: float = 0.0
    curves: list[dict[str, float]] = []
    best_score: float | None = None
    best_epoch: NonNegativeInt | None = None
    stale: NonNegativeInt = 0


@dataclass(frozen=True)
class Inputs:
    """What must not change between a stop and its resumption.

    Attributes:
        config: the configuration.
        data: SHA-256 of the log and whatever is measured on.
    """

    config: Config
    data: str

    @classmethod
    def of(
        cls,
        config: Config,
        parts: Sequence[Histories | npt.NDArray[Any]],
        wants: Sequence[str] = (),
    ) -> "Inputs":
        """The inputs of a training on these histories and arrays.

        Args:
            config: the configuration.
            parts: whatever is trained or measured on.
            wants: the columns of the histories that the model reads beside the items.
        """
        digest = hashlib.sha256()
        for part in parts:
            if isinstance(part, Histories):
                ids = part.vocabulary.ids.cast(pl.String)
                digest.update("\0".join(ids).encode())
                for array in (part.offsets, *_columns(part, wants)):
                    digest.update(array.tobytes())
            else:
                digest.update(part.tobytes())
        return cls(config, digest.hexdigest())


def _columns(histories: Histories, wants: Sequence[str]) -> list[npt.NDArray[Any]]:
    """The columns that a training reads, without those that are not known."""
    names = {ITEM_IDS, *(TIMESTAMPS if name == ASKED_AT else name for name in wants)}
    columns = [histories.flat(name) for name in sorted(names)]
    columns.append(histories.asked_at if ASKED_AT in wants else None)
    return [column for column in columns if column is not None]


class _Header(BaseModel):
    """The file's own account of itself."""

    format_version: int
    segue_version: str = "0.1.0"  # which did not write it
    config: dict[str, Any]
    data: str
    standing: Standing


@dataclass
class Progress:
    """A training between two batches.

    Attributes:
        standing: where it stands.
        best_weights: the weights with the best score; empty before the first validation.
    """

    standing: Standing = field(default_factory=Standing)
    best_weights: Weights = field(default_factory=dict)


def save(directory: Path, step: Step, progress: Progress, inputs: Inputs) -> None:
    """Writes the checkpoint beside the old one and replaces it.

    Args:
        directory: made where it is missing.
        step: what it depends on is kept.
        progress: where the training stands.
        inputs: what must be the same when it is resumed.

    Raises:
        OutputError: the directory cannot be written.
    """
    arrays = {f"{STATE}{name}": _in_order(array) for name, array in step.state().items()}
    arrays |= {f"{BEST}{name}": array for name, array in progress.best_weights.items()}
    header = _Header(
        format_version=FORMAT_VERSION,
        segue_version=segue_version(),
        config=inputs.config.model_dump(mode="json"),
        data=inputs.data,
        standing=progress.standing,
    )
    try:
        make_directories(directory)
        with replaced(directory / FILE_NAME) as draft:
            save_file(arrays, draft, metadata={"segue": header.model_dump_json()})
    except (OSError, SafetensorError) as error:
        raise cannot_write(directory, error) from error


def cannot_write(directory: Path, error: Exception) -> OutputError:
    """What is said where a checkpoint cannot be written."""
    return OutputError(f"cannot write the checkpoint in {directory}: {error}")


def load(directory: Path, step: Step, weight_shapes: Shapes, inputs: Inputs) -> Progress:
    """Puts the checkpoint's state into the step and returns where the training stood.

    Args:
        directory: of the checkpoint.
        step: of the same training.
        weight_shapes: of the model's weights, by name.
        inputs: what must be the same.

    Raises:
        TrainingError: no checkpoint, a damaged one, or one of another log or configuration.
    """
    refuse_missing(directory)
    path = directory / FILE_NAME
    try:
        with safe_open(path, framework="numpy") as file:
            header = _Header.model_validate(json.loads((file.metadata() or {}).get("segue", "{}")))
            _refuse_others(path, header, inputs)
            _note_other_version(path, header.segue_version)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            best = _under(BEST, shapes)
            _refuse_misfits(path, step.shapes(), _under(STATE, shapes))
            if best:
                _refuse_misfits(path, weight_shapes, best)
            # One at a time: large tables are not held twice.
            step.restore(lambda name: file.get_tensor(f"{STATE}{name}"))
            best_weights = {name: file.get_tensor(f"{BEST}{name}") for name in best}
    except (OSError, SafetensorError, ValueError, RecursionError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"the checkpoint {path} is damaged ({reason}); {ANEW}") from None
    return Progress(header.standing, best_weights)


def refuse_missing(directory: Path) -> None:
    """Refuses a directory without a checkpoint.

    Raises:
        TrainingError: it holds none.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise TrainingError(f"no checkpoint at {path} to resume from; start without --resume")


def _in_order(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As its bytes are written: a copy only where they lie otherwise."""
    return np.asarray(array, order="C")


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def _refuse_others(path: Path, header: _Header, inputs: Inputs) -> None:
    if header.format_version != FORMAT_VERSION:
        raise TrainingError(
            f"the checkpoint {path} has format {header.format_version}, of segue "
            f"{header.segue_version}, this segue reads {FORMAT_VERSION}; {ANEW}"
        )
    changes = _changes(header.config, inputs.config.model_dump(mode="json"))
    if changes:
        raise TrainingError(
            f"the checkpoint {path} belongs to another configuration: {', '.join(changes)}; give "
            f"the one it was started with, or {ANEW}"
        )
    if header.data != inputs.data:
        raise TrainingError(
            f"the checkpoint {path} belongs to another log, or to other users or targets to "
            f"validate on; give the ones it was started with, or {ANEW}"
        )


def _note_other_version(path: Path, version: str) -> None:
    if version != segue_version():
        notes.log.warning(
            "note: the checkpoint %s was saved by segue %s, and segue %s goes on from it: what "
            "comes may differ from a training by one of them alone",
            path,
            version,
            segue_version(),
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> list[str]:
    """The settings that differ, each with both values."""
    changes = []
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            changes += _changes(old, value, f"{at}{name}.")
        elif old != value:
            changes.append(f"{at}{name} was {old!r}, is {value!r}")
    return changes


def _refuse_misfits(path: Path, expected: Shapes, shapes: Shapes) -> None:
    if dict(shapes) != dict(expected):
        raise TrainingError(f"the checkpoint {path} does not fit the model; {ANEW}")
