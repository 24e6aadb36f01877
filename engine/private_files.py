"""Files and folders that nobody but the user of the process may read, whatever the umask says.

Snapshots, archives, checkpoints and models hold what people have done. Whatever writes them makes its files and folders
here, so that no place is forgotten.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import BinaryIO

FILE_MODE, FOLDER_MODE = 0o600, 0o700

_log = logging.getLogger(__name__)
_warned: set[Path] = set()


def make_private_folder(path: Path) -> None:
    """Makes a folder, and what is missing above it; one that is there stays as it is.

    Raises:
        OSError: it can't be made, or there is something else of its name.
    """
    for missing in reversed([folder for folder in (path, *path.parents) if not folder.is_dir()]):
        make_new_private_folder(missing, exist_ok=True)


def warn_of_others(path: Path) -> None:
    """Warns, once, of a folder for what users have done into which others may look.

    Its mode is not changed, because whoever made it may have let somebody in on purpose, such as a backup, and because
    it may belong to another user.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode) and mode & 0o077 and path not in _warned:
        _warned.add(path)
        _log.warning(
            "others may look into the folder %s (mode %04o), where what users have done is kept: `chmod 700` keeps them"
            " out. The files that are written there are private all the same",
            path, stat.S_IMODE(mode),
        )  # fmt: skip


def make_new_private_folder(path: Path, *, exist_ok: bool = False) -> None:
    """Makes one folder.

    Raises:
        FileExistsError: it is there, unless that is allowed.
    """
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        if exist_ok and path.is_dir():
            return
        raise
    path.chmod(FOLDER_MODE)


def make_private_file(path: Path) -> None:
    """Makes an empty file; one that is there keeps what is in it, and becomes private.

    Raises:
        OSError: it can't be written, or it is a link.
    """
    os.close(_opened(path, os.O_WRONLY))


def open_private(path: Path, *, new: bool = False) -> BinaryIO:
    """Opens a file to be written from its begin; what a link of its name leads to is not touched.

    Args:
        new: there must be no file of the name.

    Raises:
        OSError: it can't be written; FileExistsError where it had to be new.
    """
    return os.fdopen(_opened(path, os.O_WRONLY | (os.O_EXCL if new else os.O_TRUNC)), "wb")


def _opened(path: Path, flags: int) -> int:
    """The descriptor of a file that is made where it is missing; a link is refused."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
