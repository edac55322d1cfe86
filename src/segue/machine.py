"""How many cores this process may use, and how the libraries that compute learn of it."""

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

from segue.errors import ConfigError

# What each library reads when it is loaded: XLA, Polars, and those that multiply for NumPy.
THREAD_VARIABLES = (
    "NPROC",
    "POLARS_MAX_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> int:
    """Cores by affinity and by the quota of the control group, rounded up; at least 1.

    A container with a quota of 2 of 64 cores still sees all 64: threads for each of them would
    only wait for each other.

    Args:
        cgroup: Where control groups are mounted, of version 2 or 1.
        proc: Where processes are.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in _quotas(cgroup, proc)]
    return max(1, min([cores, *quotas]))


def limit_threads(
    count: int, environment: MutableMapping[str, str] = os.environ, *, replace: bool = False
) -> None:
    """Has the libraries that are loaded from now on use that many threads.

    Args:
        count: At least 1.
        environment: Of this process.
        replace: Whether to overrule a variable that is set already.

    Raises:
        ConfigError: `count` is below 1.
    """
    if count < 1:
        raise ConfigError(f"the number of threads must be at least 1, got {count}")
    for name in THREAD_VARIABLES:
        if replace or name not in environment:
            environment[name] = str(count)


def _quotas(cgroup: Path, proc: Path) -> list[float]:
    """The quotas, in cores, of the process's control group and of those above it."""
    quotas = []
    for directory in _directories(cgroup, proc):
        try:
            quota, period = (directory / "cpu.max").read_text().split()
        except (OSError, ValueError):
            try:
                quota = (directory / "cpu.cfs_quota_us").read_text()
                period = (directory / "cpu.cfs_period_us").read_text()
            except OSError:
                continue
        # "max", and -1 in version 1: no quota.
        if quota.strip().isdecimal() and period.strip().isdecimal() and int(period):
            quotas.append(int(quota) / int(period))
    return quotas


def _directories(cgroup: Path, proc: Path) -> list[Path]:
    """Where the quotas that hold for this process may be written down."""
    found = [cgroup, cgroup / "cpu"]
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = cgroup / "cpu" if "cpu" in controllers.split(",") else cgroup
        parts = Path(path).parts[1:]
        found += [root.joinpath(*parts[: end + 1]) for end in range(len(parts))]
    return found
