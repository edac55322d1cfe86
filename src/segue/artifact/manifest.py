"""The manifest: which files make a run, with the SHA-256 and the size of each."""

import hashlib
from collections.abc import Set
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from segue.artifact.documents import parse_json, plain_size, read_json, write_json
from segue.artifact.failures import REMEDY, reading
from segue.data.checks import shown, shown_names
from segue.errors import RunError
from segue.version import segue_version

# 1: positions counted from the window's end.
FORMAT_VERSION = 2

MANIFEST = "manifest.json"
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
ITEMS = "items.parquet"
HISTORIES = "histories.parquet"
TRAINING = "training.json"
RANKS = "ranks.parquet"
REPORT = "report.json"
CONTENT = "content.safetensors"
REQUIRED = frozenset({CONFIG, WEIGHTS, ITEMS, TRAINING, REPORT})
OPTIONAL = frozenset({HISTORIES, RANKS, CONTENT})

SHOWN_DIGITS = 12


class FileRecord(BaseModel):
    """What one file was when it was written."""

    model_config = ConfigDict(frozen=True, strict=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """All files of a run but the manifest itself, by name."""

    model_config = ConfigDict(frozen=True, strict=True)

    format_version: int = Field(ge=1)
    segue_version: str
    files: dict[str, FileRecord]


def write_manifest(directory: Path) -> None:
    """Record every file that stands in `directory`."""
    files = {path.name: _record(path) for path in sorted(directory.iterdir())}
    manifest = Manifest(format_version=FORMAT_VERSION, segue_version=segue_version(), files=files)
    write_json(directory / MANIFEST, manifest.model_dump())


def parse_manifest(place: Path, text: bytes) -> Manifest:
    """The manifest of the run at `place`: of this format, naming a run's files and no others.

    Raises:
        RunError: It is of another format, or no manifest.
    """
    path = place / MANIFEST
    with reading(path):
        document = parse_json(text)
        found = document.get("format_version")
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise RunError(
            f"{place}: format {shown(found)} is newer than this segue's {FORMAT_VERSION}; "
            f"upgrade segue"
        )
    with reading(path):
        manifest = Manifest.model_validate(document)
        _refuse_other_names(manifest.files.keys())
    if manifest.format_version < FORMAT_VERSION:
        raise RunError(
            f"{place}: format {manifest.format_version} is older than this segue's "
            f"{FORMAT_VERSION}, whose models are others; train it again with segue fit"
        )
    return manifest


def names_in(place: Path) -> frozenset[str] | None:
    """The files that the run at `place` says it has; None if no run is there.

    It may be damaged, or of another format.

    Raises:
        OSError: It cannot be read whether it is one.
    """
    try:
        manifest = Manifest.model_validate(read_json(place / MANIFEST))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return frozenset(manifest.files) | {MANIFEST}


def verify_files(place: Path, manifest: Manifest, *, is_hashed: bool) -> None:
    """Check that every file is there and of its size, and, if asked, that its bytes are the same.

    Files that the manifest does not name are nobody's business: they are never opened.

    Raises:
        RunError: A file is missing, has changed, or is a link or a directory.
    """
    for name, record in manifest.files.items():
        path = place / name
        with reading(path):
            found = plain_size(path)
        if found != record.size_bytes:
            raise RunError(
                f"{path} has changed: {record.size_bytes:,} bytes expected, {found:,} found; "
                f"{REMEDY}"
            )
        if is_hashed:
            _refuse_other_bytes(path, record.sha256)


def _refuse_other_bytes(path: Path, expected: str) -> None:
    with reading(path):
        found = _sha256(path)
    if found != expected:
        raise RunError(
            f"{path} has changed: SHA-256 {expected[:SHOWN_DIGITS]}… expected, "
            f"{found[:SHOWN_DIGITS]}… found; {REMEDY}"
        )


def _refuse_other_names(names: Set[str]) -> None:
    others = sorted(names - REQUIRED - OPTIONAL)
    if others:
        raise ValueError(f"it names {shown_names(others)}, which no run has")
    absent = sorted(REQUIRED - names)
    if absent:
        raise ValueError(f"it does not name {shown_names(absent)}, which every run has")


def _record(path: Path) -> FileRecord:
    return FileRecord(sha256=_sha256(path), size_bytes=plain_size(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
