"""Settings of glibc's allocator, which a process has only if it starts with them."""

import os
import platform
import sys

TUNABLES = "GLIBC_TUNABLES"
# A training step allocates and frees gigabytes; in pages of 4 KiB a fifth to a third of its time
# goes into having them mapped (measured in docs/log.md).
HUGE_PAGES = "glibc.malloc.hugetlb"
# Every thread of a service would keep what it freed in an arena of its own: its memory crept up by
# 7% in 100,000 requests, and stays with one for all.
ONE_ARENA = "glibc.malloc.arena_max"


def restart_with(tunable: str) -> None:
    """Starts this process anew with `GLIBC_TUNABLES=TUNABLE=1`, if it lacks the tunable.

    Whoever set it keeps their choice, and where there is no glibc nothing happens.
    """
    tunables = os.environ.get(TUNABLES, "")
    if tunable in tunables or sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    os.environ[TUNABLES] = ":".join(filter(None, [tunables, f"{tunable}=1"]))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
