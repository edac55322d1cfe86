"""Training commands run with huge pages; the others, and those who chose otherwise, are let be."""

import os
import subprocess
import sys

import pytest

SHOWS_TUNABLES = """
import os, sys
sys.argv = ["segue", *sys.argv[1:]]
from segue.cli import app
app._run = lambda arguments: print(os.environ.get("GLIBC_TUNABLES", "none")) or 0
app.main()
"""


def tunables_of(*arguments: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", SHOWS_TUNABLES, *arguments],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's tunables are Linux's")
@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["fit", "log.csv"], {}, "glibc.malloc.hugetlb=1"),
        (["serve", "run"], {}, "glibc.malloc.arena_max=1"),
        (
            ["demo"],
            {"GLIBC_TUNABLES": "glibc.malloc.check=1"},
            "glibc.malloc.check=1:glibc.malloc.hugetlb=1",
        ),
        (["fit"], {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, "glibc.malloc.hugetlb=0"),
        (["similar", "run", "1"], {}, "none"),
    ],
)
def test_training_commands_start_with_huge_pages_unless_told_otherwise(
    arguments, environment, expected
):
    assert tunables_of(*arguments, **environment) == expected
