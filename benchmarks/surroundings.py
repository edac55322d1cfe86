"""What a figure depends on besides the code at hand: shared by the benchmarks."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ML_1M = Path(__file__).parents[2] / "shared/data/ml-1m"


def surroundings(packages: Iterable[str], seed: int) -> dict[str, Any]:
    """Commit, versions, device, cores and seed, ready for JSON."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True
    )
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "commit": commit.stdout.strip() if commit.returncode == 0 else "none yet",
        "versions": {"python": platform.python_version(), **versions},
        "device": f"cpu {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "seed": seed,
    }
