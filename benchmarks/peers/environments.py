"""The environments of the systems compared with, and their worker scripts, one process each.

python benchmarks/peers/environments.py     makes them, a few minutes, this once
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / ".peers"
WORKERS = Path(__file__).parent
# What pip installs, one call after the other.
PACKAGES = {
    # torch by itself first: RecTools' own requirement would bring another.
    "rectools": [["torch==2.13.0"], ["rectools[torch]==0.19.0", "torch==2.13.0"]],
    "keras": [["keras==3.15.1", "keras-hub", "keras-rs", "jax"]],
}
# `segue fit` sets the tunable for itself; so that it is fair, everybody has it.
SETTINGS = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "KERAS_BACKEND": "jax",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def python_of(name: str) -> Path:
    """The Python of that environment, which is made where it is missing or half made."""
    if name == "segue":
        return Path(sys.executable)
    folder = FOLDER / name
    python = folder / "bin/python"
    stamp, wanted = folder / "installed.json", json.dumps(PACKAGES[name])
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"installing {name} into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True)
        for packages in PACKAGES[name]:
            subprocess.run([python, "-m", "pip", "install", "-qq", *packages], check=True)
        stamp.write_text(wanted)
    return python


def start(environment: str, script: str, *arguments: object) -> "subprocess.Popen[str]":
    """The worker script in a process of its own, to be talked to by lines of JSON."""
    command = [python_of(environment), WORKERS / script, *map(str, arguments)]
    return subprocess.Popen(
        command,
        env={**os.environ, **SETTINGS},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def result_of(environment: str, script: str, *arguments: object) -> dict[str, Any]:
    """What the worker says in its last line.

    Raises:
        SystemExit: the worker failed; it has said why on standard error.
    """
    worker = start(environment, script, *arguments)
    output, _ = worker.communicate()
    if worker.returncode:
        raise SystemExit(f"{script} {' '.join(map(str, arguments))} ended with {worker.returncode}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


if __name__ == "__main__":
    for each in PACKAGES:
        print(python_of(each))
