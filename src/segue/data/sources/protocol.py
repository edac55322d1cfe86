"""What a named dataset promises."""

from pathlib import Path
from typing import Protocol

from segue.config.registry import Registry
from segue.data.items import Catalogue
from segue.data.log import InteractionLog
from segue.errors import ConfigError, DatasetError


class Source(Protocol):
    """A dataset that goes by a name: a log, and perhaps a catalogue.

    An object with these attributes and methods is registered with `SOURCES.register(name)`.

    Attributes:
        name: What it is called.
        description: One line: what it is, and how large.
        size_mb: Of what is downloaded, about.
    """

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def size_mb(self) -> float: ...

    def fetch(self, *, progress: bool = False) -> Path:
        """The folder with its files, which are downloaded and unpacked where need be.

        Args:
            progress: Whether to show a download's progress on standard error.

        Raises:
            DatasetError: No place has it; the line says what was tried and what to do.
        """
        ...

    def read(self, folder: Path) -> tuple[InteractionLog, Catalogue | None]:
        """The log and the catalogue from the files that `fetch` left.

        Raises:
            DatasetError: The files are gone.
            DataError: They cannot be read.
        """
        ...


SOURCES: Registry[Source] = Registry("dataset", "segue.data.sources")


def load(
    dataset: str | Source, *, progress: bool = False
) -> tuple[InteractionLog, Catalogue | None]:
    """The log and the catalogue of a dataset, fetched where need be.

    Args:
        dataset: A registered name, or a dataset of your own.
        progress: Whether to show a download's progress on standard error.

    Raises:
        DatasetError: An unknown name, or as `Source.fetch`.
        DataError: The files cannot be read.
    """
    source = _named(dataset)
    return source.read(source.fetch(progress=progress))


def fetch(dataset: str | Source, *, progress: bool = False) -> Path:
    """The folder with a dataset's files; see `Source.fetch`.

    Raises:
        DatasetError: An unknown name, or as `Source.fetch`.
    """
    return _named(dataset).fetch(progress=progress)


def _named(dataset: str | Source) -> Source:
    if not isinstance(dataset, str):
        return dataset
    try:
        return SOURCES[dataset]
    except ConfigError as error:
        raise DatasetError(str(error)) from None
