"""The JSON files and the weights of a run."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

MAX_JSON_BYTES = 64 * 2**20

# What safetensors calls the types that weights may have, and what NumPy does.
WEIGHT_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def plain_size(path: Path) -> int:
    """The size in bytes of a file that is one: no link, pipe or directory.

    Raises:
        FileNotFoundError: There is nothing of that name.
        ValueError: It is something else.
    """
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no plain file")
    return status.st_size


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write strict JSON.

    Raises:
        ValueError: Something in it is not JSON, such as NaN, or it is too long to be read again.
    """
    try:
        text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    _refuse_long(path.name, len(text))
    path.write_bytes(text + b"\n")


def read_text(path: Path) -> bytes:
    """A JSON file's text.

    Raises:
        ValueError: It is longer than `MAX_JSON_BYTES`, or no plain file.
    """
    _refuse_long(path.name, plain_size(path))
    return path.read_bytes()


def parse_json(text: bytes) -> dict[str, Any]:
    """The object that a JSON text holds.

    Raises:
        ValueError: It is not JSON, or not an object.
        RecursionError: It is nested too deep.
    """
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("it holds no JSON object")
    return document


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; raises as `read_text` and `parse_json`."""
    return parse_json(read_text(path))


def write_weights(path: Path, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write the weights in safetensors' format, without copying those that lie in one piece."""
    save_file({name: np.asarray(each, order="C") for name, each in weights.items()}, path)
    # safetensors makes files that nobody else can read; a run is as open as its directory.
    path.chmod(stat.S_IMODE(path.parent.stat().st_mode) & 0o666)


def read_weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The weights by name.

    Raises:
        SafetensorError: The file is not in safetensors' format.
        ValueError: One is not of `WEIGHT_TYPES`.
    """
    weights: dict[str, npt.NDArray[Any]] = {}
    with safe_open(path, framework="numpy") as file:
        names: list[str] = file.keys()
        for name in names:
            kind = file.get_slice(name).get_dtype()
            if kind not in WEIGHT_TYPES:
                raise ValueError(f"the weight {name!r} is {kind}, which no run has")
            weights[name] = file.get_tensor(name)
    return weights


def _refuse_long(name: str, size_bytes: int) -> None:
    if size_bytes > MAX_JSON_BYTES:
        raise ValueError(
            f"{name} is {size_bytes:,} bytes long; at most {MAX_JSON_BYTES:,} are read"
        )
