import os
from pathlib import Path

import pytest

from segue.machine import THREAD_VARIABLES, limit_threads, usable_cores


@pytest.fixture(autouse=True)
def _sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)


def written(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # one and a half
        ("10000 100000\n", 1),
        ("max 100000\n", 64),
        ("9900000 100000\n", 64),  # more than there are
        ("damaged\n", 64),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, text: str, cores: int) -> None:
    written(tmp_path, cpu__max=text)
    assert usable_cores(tmp_path, tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000\n", 3), ("-1\n", 64)])
def test_a_quota_of_version_1_counts(tmp_path: Path, quota: str, cores: int) -> None:
    written(tmp_path / "cpu", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000\n")
    assert usable_cores(tmp_path, tmp_path) == cores


def test_the_smallest_quota_from_the_group_to_the_root_counts(tmp_path: Path) -> None:
    written(tmp_path / "proc/self", cgroup="0::/pods/mine\n")
    written(tmp_path / "group/pods", cpu__max="400000 100000\n")
    written(tmp_path / "group/pods/mine", cpu__max="max 100000\n")
    assert usable_cores(tmp_path / "group", tmp_path / "proc") == 4


def test_affinity_counts_where_nothing_is_limited(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "none") == 64


def test_what_somebody_set_is_kept_unless_it_is_to_be_replaced() -> None:
    environment = {"OMP_NUM_THREADS": "1"}
    limit_threads(2, environment)
    assert environment == {**dict.fromkeys(THREAD_VARIABLES, "2"), "OMP_NUM_THREADS": "1"}
    limit_threads(3, environment, replace=True)
    assert environment == dict.fromkeys(THREAD_VARIABLES, "3")
