"""Runs commands and says what they cost; makes fresh file systems and looks at how large a store is.

A sample is one whole command: seconds of wall clock, seconds of processor time (user and system, of the command and all its
children), and the resident memory of its largest process in MiB.
"""

import contextlib
import os
import re
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

# A command that takes longer is broken; the slowest peer needs a tenth of it.
DEADLINE_SECONDS = 900

# How long a file system may stay busy after its last user has ended.
UNMOUNT_SECONDS = 20


@dataclass(frozen=True)
class Sample:
    wall: float
    cpu: float
    memory_mib: float
    output: str


class Failed(Exception):
    """A command that did not do what it was to do."""


def run(command, *, environment=None, directory=None, prefix=()):
    """Runs a command, a list, and returns what it cost. Its output is kept, stdin is empty."""
    command = [*prefix, *map(str, command)]
    started = time.perf_counter()
    with open(os.devnull, "rb") as nothing:
        process = subprocess.Popen(
            command, stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=directory,
            env={**os.environ, **(environment or {})}, start_new_session=True)
        timer = _Deadline(process)
        output = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"{' '.join(command)[:300]}: exit {process.returncode}\n{output[-2000:]}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output.strip())


def shell(text, **options):
    """Runs a pipeline; any part that fails fails it."""
    return run(["bash", "-o", "pipefail", "-c", text], **options)


class _Deadline:
    def __init__(self, process):
        import threading
        self.timer = threading.Timer(DEADLINE_SECONDS, process.kill)
        self.timer.daemon = True
        self.timer.start()

    def cancel(self):
        self.timer.cancel()


@contextlib.contextmanager
def fresh_file_system(work, mebibytes, kind="ext4"):
    """A new journalled file system in memory: what was deleted earlier on a disk makes creating files there several times dearer."""
    memory, mounted = work / "memory", work / "mounted"
    for directory in (memory, mounted):
        directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes + 64}m", "tmpfs", memory], check=True)
    try:
        image = memory / "image"
        image.touch()
        os.truncate(image, mebibytes << 20)
        subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
        try:
            yield mounted
        finally:
            _unmount(mounted)
    finally:
        # The loop device lets its file go a moment after it was unmounted.
        _unmount(memory)


def _unmount(place):
    deadline = time.monotonic() + UNMOUNT_SECONDS
    while subprocess.run(["umount", place], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{place} stays busy")
        time.sleep(0.05)


@dataclass(frozen=True)
class Size:
    """What a directory takes: bytes of files, bytes of blocks on disk (directories included), inodes. Hard links count once."""

    files: int
    disk: int
    inodes: int

    def __sub__(self, other):
        return Size(self.files - other.files, self.disk - other.disk, self.inodes - other.inodes)


def size_of(top):
    os.sync()
    seen, files, disk = set(), 0, 0
    open_directories = [Path(top)]
    while open_directories:
        directory = open_directories.pop()
        disk += os.lstat(directory).st_blocks * 512
        seen.add(os.lstat(directory).st_ino)
        for entry in os.scandir(directory):
            stat = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                open_directories.append(entry.path)
            elif stat.st_ino not in seen:
                seen.add(stat.st_ino)
                files += stat.st_size
                disk += stat.st_blocks * 512
    return Size(files, disk, len(seen))


class Samples:
    """What was measured, by work and program, over the rounds."""

    def __init__(self):
        self.by_key = {}

    def add(self, work, program, figures):
        self.by_key.setdefault((work, program), []).append(figures)
        told = ", ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items())
        print(f"  {work}: {program}: {told}", flush=True)

    def sample(self, work, program, sample, **more):
        # A child counts what its parent held when it was made: our own programs tell their own.
        mebibytes, kibibytes = re.search(r" rss (\d+) ", sample.output), re.search(r" peak_kib (\d+)", sample.output)
        memory = float(mebibytes.group(1)) if mebibytes else float(kibibytes.group(1)) / 1024 if kibibytes else sample.memory_mib
        self.add(work, program, {"cpu": sample.cpu, "wall": sample.wall, "memory": memory, **more})

    def median(self, work, program, figure):
        values = [figures[figure] for figures in self.by_key.get((work, program), []) if figure in figures]
        return statistics.median(values) if values else None
