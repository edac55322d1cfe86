"""A training in progress on disk: one safetensors file, replaced in one move."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from segue.config import Config
from segue.data.histories import Histories
from segue.errors import OutputError, TrainingError
from segue.model.weights import Weights, as_numpy, named_variables, to_numpy

FORMAT_VERSION = 2
FILE_NAME = "state.safetensors"
ANEW = "start anew with --force in place of --resume"
Shapes = dict[str, tuple[int, ...]]


class Standing(BaseModel):
    """Where a training stands, beside the variables: what JSON can hold of it.

    Attributes:
        epoch, batch: the next batch to train on.
        seconds: spent in that epoch so far.
        curves: one entry an epoch: epoch (from 1), loss, seconds, and what validation measured.
        best_score: the best NDCG@10 on validation so far; None before the first.
        best_epoch: the epoch, from 1, after which it was reached.
        stale: validations since then.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    epoch: NonNegativeInt = 0
    batch: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0
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
    def of(cls, config: Config, *parts: Histories | npt.NDArray[Any]) -> "Inputs":
        """The inputs of a training on these histories and arrays."""
        digest = hashlib.sha256()
        for each in parts:
            if isinstance(each, Histories):
                ids = each.vocabulary.ids.cast(pl.String)
                digest.update("\0".join(ids).encode())
                digest.update(each.offsets.tobytes())
                digest.update(each.item_ids.tobytes())
            else:
                digest.update(each.tobytes())
        return cls(config, digest.hexdigest())


class _Header(BaseModel):
    """The file's own account of itself."""

    format_version: int
    config: dict[str, Any]
    data: str
    standing: Standing


@dataclass
class Progress:
    """A training between two batches.

    Attributes:
        standing: where it stands.
        best_weights: the weights with the best score; empty before the first validation.
        running_loss: the arrays of Keras' running loss at a stop within an epoch, for Keras resets
            them when an epoch begins; empty otherwise.
        began_at: when the epoch began by `time.perf_counter`, as if it had never been stopped.
    """

    standing: Standing = field(default_factory=Standing)
    best_weights: Weights = field(default_factory=dict)
    running_loss: list[npt.NDArray[Any]] = field(default_factory=list)
    began_at: float = 0.0


def save(directory: Path, model: keras.Model, progress: Progress, inputs: Inputs) -> None:
    """Writes the checkpoint beside the old one and replaces it.

    Args:
        directory: made where it is missing.
        model: compiled; its variables, its optimizer's and its running loss are kept.
        progress: where the training stands.
        inputs: what must be the same when it is resumed.

    Raises:
        OutputError: the directory cannot be written.
    """
    variables = _variables(model)
    arrays = {f"variable/{name}": _in_order(as_numpy(each)) for name, each in variables.items()}
    arrays |= {f"best/{name}": array for name, array in progress.best_weights.items()}
    header = _Header(
        format_version=FORMAT_VERSION,
        config=inputs.config.model_dump(mode="json"),
        data=inputs.data,
        standing=progress.standing,
    )
    temporary = directory / f".{FILE_NAME}.{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(arrays, temporary, metadata={"segue": header.model_dump_json()})
        _flush(temporary)
        os.replace(temporary, directory / FILE_NAME)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write the checkpoint in {directory}: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def load(directory: Path, model: keras.Model, inputs: Inputs) -> Progress:
    """Puts the checkpoint's variables into the model and returns where the training stood.

    Raises:
        TrainingError: no checkpoint, a damaged one, or one of another log or configuration.
    """
    refuse_missing(directory)
    path = directory / FILE_NAME
    try:
        with safe_open(path, framework="numpy") as file:
            header = _Header.model_validate(json.loads((file.metadata() or {}).get("segue", "{}")))
            _refuse_others(path, header, inputs)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            best = _under("best/", shapes)
            _refuse_misfits(path, _shapes(_variables(model)), _under("variable/", shapes))
            if best:
                _refuse_misfits(path, _shapes(named_variables(model)), best)
            # One at a time: large tables are not held twice.
            for name, variable in _variables(model).items():
                variable.assign(file.get_tensor(f"variable/{name}"))
            best_weights = {name: file.get_tensor(f"best/{name}") for name in best}
    except (OSError, SafetensorError, ValueError, RecursionError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"the checkpoint {path} is damaged ({reason}); {ANEW}") from None
    running = [to_numpy(each) for each in running_loss(model)] if header.standing.batch else []
    return Progress(header.standing, best_weights, running)


def refuse_missing(directory: Path) -> None:
    """Refuses a directory without a checkpoint.

    Raises:
        TrainingError: it holds none.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise TrainingError(f"no checkpoint at {path} to resume from; start without --resume")


def running_loss(model: keras.Model) -> list[Any]:
    """The variables of Keras' running loss."""
    return [variable for metric in model.metrics for variable in metric.variables]


def _variables(model: keras.Model) -> dict[str, Any]:
    """What must come back: weights, seeds, the optimizer's state and the running loss."""
    variables = [*model.variables, *model.optimizer.variables, *running_loss(model)]
    return {f"{index:04d}": variable for index, variable in enumerate(variables)}


def _in_order(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As its bytes are written: a copy only where they lie otherwise."""
    return np.asarray(array, order="C")


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def _shapes(variables: Mapping[str, Any]) -> Shapes:
    return {name: tuple(variable.shape) for name, variable in variables.items()}


def _refuse_others(path: Path, header: _Header, inputs: Inputs) -> None:
    if header.format_version != FORMAT_VERSION:
        raise TrainingError(
            f"the checkpoint {path} has format {header.format_version}, this segue reads "
            f"{FORMAT_VERSION}; {ANEW}"
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
    if shapes != expected:
        raise TrainingError(f"the checkpoint {path} does not fit the model; {ANEW}")


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
