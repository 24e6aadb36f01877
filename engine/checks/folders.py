"""Can a folder be used, is it closed to others, and has its disk enough room?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from engine.checks.finding import Finding, error, ok, warning

_MIB = 2**20


def look_at_folder(setting: str, folder: Path) -> Iterator[Finding]:
    """Whether a folder, which a start would make where it is missing, can be read and written by this user alone.

    Args:
        setting: its name, for messages.
    """
    there = _nearest(folder)
    if not there.is_dir():
        yield error(f"{setting} {folder} can't be used, because {there} is no folder: name another one")
        return
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        what = "can't be written" if there == folder else f"can't be made, because {there} can't be written"
        yield error(f"{setting} {folder} {what} by the user of number {os.geteuid()}: check its owner and its mode")
        return
    if there != folder:
        yield ok(f"{setting} {folder} does not exist yet and is made at the first start")
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        yield warning(
            f"{setting} {folder} has mode {mode:04o}, so that other users of the machine may look into it, and it will"
            f" hold personal data: run chmod 700 {folder}"
        )
        return
    yield ok(f"{setting} {folder} can be read and written by this user alone")


def look_at_room(setting: str, folder: Path, needed_bytes: int, needed_for: str) -> Iterator[Finding]:
    """Whether the disk of a folder has room; less than twice what is needed is a warning.

    Args:
        needed_bytes: what must still fit.
        needed_for: what that is, for people.
    """
    system = os.statvfs(_nearest(folder))
    free_bytes = system.f_bavail * system.f_frsize
    room = (
        f"the disk of {setting} {folder} has {_shown(free_bytes)} free, and {_shown(needed_bytes)} are needed for"
        f" {needed_for}"
    )
    # Some file systems make their entries as they need them, and say that they have none.
    if system.f_files and system.f_favail == 0:
        yield error(f"the disk of {setting} {folder} has no room for another file (inodes): delete files there")
    elif free_bytes < needed_bytes:
        yield error(f"{room}: make room, or name a folder on another disk")
    elif free_bytes < 2 * needed_bytes:
        yield warning(f"{room}, which will not be enough for long: make room")
    else:
        yield ok(room)


def _nearest(folder: Path) -> Path:
    """The folder itself, or what exists of the way to it."""
    return next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))


def _shown(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.0f} MiB"
