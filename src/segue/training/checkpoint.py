"""A training in progress on disk: one safetensors file, replaced in one move."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from segue.config import Config
from segue.data.histories import Histories
from segue.errors import OutputError, TrainingError
from segue.model.weights import Weights, to_numpy

FORMAT_VERSION = 1
FILE_NAME = "state.safetensors"


@dataclass
class Progress:
    """Where a training stands, beside the variables.

    Attributes:
        epoch, batch: the next batch to train on.
        curves: one entry an epoch: epoch, loss, seconds, and what validation measured.
        best_score: the best NDCG@10 on validation so far; None before the first.
        best_epoch: the epoch, from 1, after which it was reached.
        stale: validations since then.
        best_weights: the weights at that moment; empty without a validation.
    """

    epoch: int = 0
    batch: int = 0
    curves: list[dict[str, float]] = field(default_factory=list)
    best_score: float | None = None
    best_epoch: int | None = None
    stale: int = 0
    best_weights: Weights = field(default_factory=dict)


def fingerprint(config: Config, *histories: Histories | None) -> str:
    """SHA-256 of everything that must not change between a stop and its resumption."""
    digest = hashlib.sha256(config.model_dump_json().encode())
    for each in histories:
        if each is None:
            digest.update(b"none")
            continue
        ids = BytesIO()
        each.vocabulary.ids.to_frame().write_ipc(ids)
        digest.update(ids.getvalue())
        digest.update(np.ascontiguousarray(each.offsets).tobytes())
        digest.update(np.ascontiguousarray(each.item_ids).tobytes())
    return digest.hexdigest()


def save(directory: Path, model: keras.Model, progress: Progress, print_of_inputs: str) -> None:
    """Writes the checkpoint beside the old one and replaces it.

    Raises:
        OutputError: the directory cannot be written.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        f"variable/{index:04d}": to_numpy(variable)
        for index, variable in enumerate(_variables(model))
    }
    arrays |= {f"best/{name}": array for name, array in progress.best_weights.items()}
    facts = {key: value for key, value in asdict(progress).items() if key != "best_weights"}
    facts |= {"format_version": FORMAT_VERSION, "fingerprint": print_of_inputs}
    temporary = directory / f".{FILE_NAME}.{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(arrays, temporary, metadata={"segue": json.dumps(facts)})
        _flush(temporary)
        os.replace(temporary, directory / FILE_NAME)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write the checkpoint in {directory}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load(directory: Path, model: keras.Model, print_of_inputs: str) -> Progress:
    """Puts the checkpoint's variables into the model and returns where the training stood.

    Raises:
        TrainingError: no checkpoint, a damaged one, or one of another log or configuration.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise TrainingError(f"no checkpoint at {path} to resume from; start without --resume")
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get("segue", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise TrainingError(f"the checkpoint {path} is damaged: {error}") from None
    _check(path, facts, print_of_inputs)
    _assign(path, model, arrays)
    known = {name: facts[name] for name in Progress.__dataclass_fields__ if name in facts}
    best = {
        name.removeprefix("best/"): array
        for name, array in arrays.items()
        if name.startswith("best/")
    }
    return Progress(**known, best_weights=best)


def _variables(model: keras.Model) -> list[Any]:
    """What must come back: weights, seeds, the optimizer's state and the running loss."""
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    return [*model.variables, *model.optimizer.variables, *metrics]


def _check(path: Path, facts: Mapping[str, Any], print_of_inputs: str) -> None:
    if facts.get("format_version") != FORMAT_VERSION:
        raise TrainingError(
            f"the checkpoint {path} has format {facts.get('format_version')}, this segue reads "
            f"{FORMAT_VERSION}; start without --resume"
        )
    if facts.get("fingerprint") != print_of_inputs:
        raise TrainingError(
            f"the checkpoint {path} belongs to another log or configuration; give the ones it was "
            "started with, or start anew without --resume"
        )


def _assign(path: Path, model: keras.Model, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    variables = _variables(model)
    stored = [arrays.get(f"variable/{index:04d}") for index in range(len(variables))]
    for variable, array in zip(variables, stored, strict=True):
        if array is None or array.shape != tuple(variable.shape):
            raise TrainingError(f"the checkpoint {path} does not fit the model; start anew")
        variable.assign(array)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
