"""Which segue this is."""

from importlib.metadata import PackageNotFoundError, version


def segue_version() -> str:
    """The version that is installed, for what is kept on disk."""
    try:
        return version("segue")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
