"""Huge pages for a training's arrays, which glibc gives only to a process that starts with them."""

import os
import platform
import sys

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb"


def restart_with_huge_pages() -> None:
    """Starts this process anew with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`, if it lacks it.

    A training step allocates and frees gigabytes; in pages of 4 KiB a fifth to a third of its time
    goes into having them mapped (measured in docs/log.md). Whoever set the tunable keeps their
    choice, and where there is no glibc nothing happens.
    """
    tunables = os.environ.get(TUNABLES, "")
    if HUGE_PAGES in tunables or sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    os.environ[TUNABLES] = ":".join(filter(None, [tunables, f"{HUGE_PAGES}=1"]))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
