"""A run on disk: written whole or not at all, hashed, checked when read, and never unpickled."""

from segue.artifact.forgetting import without_user
from segue.artifact.manifest import FORMAT_VERSION
from segue.artifact.placing import check_output, claimed_output
from segue.artifact.run import Run, read_run, write_run
from segue.artifact.tables import check_catalogue

__all__ = [
    "FORMAT_VERSION",
    "Run",
    "check_catalogue",
    "check_output",
    "claimed_output",
    "read_run",
    "without_user",
    "write_run",
]
