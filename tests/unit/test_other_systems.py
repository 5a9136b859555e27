"""What can be told here of systems that are not Linux: every module is imported without the names that only Linux
has."""

from __future__ import annotations

import os
import subprocess
import sys

from support.processes import REPOSITORY

# After the standard library itself, which asks for them by hasattr when it is imported.
CODE = """
import asyncio, errno, importlib, mmap, os, pkgutil, resource, select, shutil, signal, socket, subprocess
import tempfile, threading

LINUX_ONLY = {
    errno: ["EREMOTEIO", "ENOMEDIUM", "EMEDIUMTYPE", "EBADFD", "ECHRNG", "ENOTUNIQ", "EUCLEAN", "ERESTART", "ENOKEY"],
    os: ["sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate", "pidfd_open", "memfd_create",
         "eventfd", "splice", "copy_file_range", "getrandom", "setns", "unshare", "fdatasync", "O_DIRECT", "O_TMPFILE",
         "O_PATH", "listxattr", "setresuid", "sched_setscheduler"],
    mmap: ["MAP_POPULATE", "MAP_STACK", "MADV_HUGEPAGE", "MADV_DONTFORK"],
    signal: ["SIGPWR", "SIGPOLL", "SIGRTMIN", "sigwaitinfo", "sigtimedwait", "pidfd_send_signal"],
    select: ["epoll"],
    resource: ["prlimit", "RLIMIT_SIGPENDING"],
    socket: ["AF_NETLINK", "SO_PEERCRED", "TCP_USER_TIMEOUT"],
}
FRAMEWORKS = ("lightning", "transformers")  # which users bring
for module, names in LINUX_ONLY.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for package in ("ensemble", "trainers", "ray_jobs"):
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        try:
            importlib.import_module(found.name)
        except AttributeError as error:
            raise SystemExit(f"{found.name}: {error}")
        except ModuleNotFoundError as error:
            if error.name not in FRAMEWORKS:
                raise
"""


def test_every_module_can_be_imported_where_linux_only_names_are_missing():
    libraries = (
        "import ray, ray.train.torch, ray.tune, torch, pandas, pyarrow, sklearn, matplotlib, wandb, tyro, open_clip\n"
    )
    command = [sys.executable, "-c", libraries + CODE]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
