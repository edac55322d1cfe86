"""How a text file is written: what a user says of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from segue.errors import DataError

UNREAD = "_"


@dataclass(frozen=True)
class TextFormat:
    """How a text file is written, where that is not what it looks like.

    Attributes:
        has_header: Whether its first line has the columns' names.
        columns: The columns' names, instead of those in the header; `_` is a column not read.
        encoding: Such as "cp1252"; by default UTF-8, UTF-16 by its mark, or else Windows-1252.
    """

    has_header: bool = True
    columns: tuple[str, ...] | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        named = [name for name in self.columns or () if name != UNREAD]
        twice = [name for name in named if named.count(name) > 1]
        if twice:
            raise DataError(f"--columns names {twice[0]!r} twice; give every column its own name")

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, those of unread columns made different; none where none are given."""
        return tuple(
            f"{UNREAD}{place}" if name == UNREAD else name
            for place, name in enumerate(self.columns or ())
        )

    def read_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the columns that are read."""
        unread = set(self.names) - set(self.columns or ())
        return tuple(name for name in names if name not in unread)
