"""What can go wrong, as one tree.

Every message says what was wrong, the value received, and what to do.

The command line prints the message of a `SegueError` as one line and exits with 1; anything else
that escapes is a defect of segue itself.
"""

import signal


class SegueError(Exception):
    """The root: catch this to catch every error that segue raises on purpose."""


class DataError(SegueError):
    """A log, a catalogue or ids that cannot be used as they are."""


class DatasetError(SegueError):
    """A named dataset that cannot be fetched, verified or unpacked."""


class ConfigError(SegueError):
    """An unknown preset or setting, or a value out of its range."""


class TrainingError(SegueError):
    """Training that cannot start, go on or be resumed."""


class RunError(SegueError):
    """A directory that is not a run, or a run that is damaged, incomplete or of a newer format."""


class OutputError(SegueError):
    """An output that exists already or cannot be written."""


class RequestError(SegueError, ValueError):
    """A question out of range: k, an unknown user, an item without an answer."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after what was done was saved; says how to go on.

    Attributes:
        signal: the signal's number.
    """

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signal = int(number)
