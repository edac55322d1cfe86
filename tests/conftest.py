"""A small trained run, made once for all tests that ask one something; and a browser."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import settings

import segue
from segue import notes
from segue.config import Config, ModelConfig, TrainingConfig
from segue.data.synthetic import markov_log

if TYPE_CHECKING:  # what imports Keras is left to the tests that need it
    from playwright.sync_api import Browser

    from segue.recommender import Recommender

# How long an example takes depends on what else the machine does.
settings.register_profile("segue", deadline=None)
settings.load_profile("segue")

TINY = Config(
    name="tiny",
    model=ModelConfig(max_length=20, width=16),
    training=TrainingConfig(epochs=2, batch_size=32),
)
NUM_ITEMS = 30
CHROMIUM = Path("/usr/bin/chromium")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run what is slow by nature as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `--slow`, leaves out what is marked as slow."""
    if config.getoption("--slow"):
        return
    slow = [item for item in items if "slow" in item.keywords]
    items[:] = [item for item in items if "slow" not in item.keywords]
    config.hook.pytest_deselected(items=slow)


@pytest.fixture(scope="session")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of the small run, as Parquet: 120 users 1, 2, ... with 12 interactions each."""
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    markov_log(120, NUM_ITEMS, 12, certainty=0.9, seed=1).frame.write_parquet(path)
    return path


@pytest.fixture(scope="session")
def items_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue of the small run: the items 1, 2, ... are called Café 1, Café 2, ..."""
    path = tmp_path_factory.mktemp("items") / "items.csv"
    item_ids = range(1, NUM_ITEMS + 1)
    titles = [f"Café {item_id}" for item_id in item_ids]
    pl.DataFrame({"item_id": item_ids, "title": titles}).write_csv(path)
    return path


@pytest.fixture(scope="session")
def recommender(log_file: Path, items_file: Path) -> "Recommender":
    """The small run, with its report."""
    split = segue.leave_one_out(segue.read_log(log_file))
    return segue.fit(split, items=segue.read_items(items_file), preset=TINY).with_report()


@pytest.fixture(scope="session")
def run(recommender: "Recommender", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run on disk, to be read only."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    recommender.save(path)
    return path


# For a module: its event loop would be in the way of other modules' own.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Headless Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM} (Debian: chromium)")
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


HOLDER = """
import sys, time
from pathlib import Path
from segue.files import claimed, draft_of, replaced

place = Path(sys.argv[1])
with claimed(place):
    for _ in sys.argv[2:]:
        draft = draft_of(place)
        draft.mkdir()
        (draft / "file").write_text("half")
    with replaced(place) as draft:
        draft.write_text("half")
        print("held", flush=True)
        time.sleep(600)
"""


@pytest.fixture
def other_writer() -> Callable[..., AbstractContextManager[subprocess.Popen[str]]]:
    """A process that writes a place until the block ends, where it is killed."""
    source = str(Path(segue.__file__).parents[1])

    @contextmanager
    def writing(place: Path, leaves_directory: bool = False) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [
                sys.executable,
                "-c",
                HOLDER,
                str(place),
                *(["directory"] if leaves_directory else []),
            ],
            env={**os.environ, "PYTHONPATH": source},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            try:
                yield process
            finally:
                process.send_signal(signal.SIGKILL)

    return writing


@pytest.fixture
def not_on_disk(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Directories in which something was made or renamed and which were not synced since."""
    dirty: set[Path] = set()

    def recorded(name: str, place: int) -> None:
        call = getattr(os, name)

        def changing(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            dirty.add(Path(arguments[place]).absolute().parent)
            return result

        monkeypatch.setattr(os, name, changing)

    def syncing(descriptor: int) -> None:
        fsync(descriptor)
        dirty.discard(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", syncing)
    for name, place in (("mkdir", 0), ("rename", 1), ("replace", 1)):
        recorded(name, place)
    return dirty


@pytest.fixture(params=["ENOTSUP", "EINVAL", "EPERM", "EXDEV", "EMFILE"])
def no_directory_renames(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Directories can be neither renamed nor flushed, as on shares and buckets; why they cannot."""
    number = getattr(errno, request.param)
    fsync = os.fsync

    def of_files_only(name: str) -> None:
        call = getattr(os, name)

        def renaming(source: Any, target: Any) -> None:
            if os.path.isdir(source):
                raise OSError(number, os.strerror(number), str(source))
            call(source, target)

        monkeypatch.setattr(os, name, renaming)

    def syncing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    of_files_only("rename")
    of_files_only("replace")
    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(notes, "_noted", set())
    return os.strerror(number)
