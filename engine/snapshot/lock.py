"""One engine per name in a folder of snapshots: two would delete each other's.

The lock is the kernel's (flock): it ends with the process, however that ends, and keeps nobody from reading.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from pathlib import Path

from engine.private_files import make_private_file
from engine.snapshot.losses import SnapshotError

log = logging.getLogger(__name__)


class EngineLock:
    """Held by this process until it is closed, or until the process ends.

    Args:
        folder: of the snapshots; it exists.
        engine: the name that is held there.

    Raises:
        SnapshotError: another process holds it, which the message names; or the file can't be made.
    """

    def __init__(self, folder: Path, engine: str) -> None:
        path = folder / f".{engine}.lock"
        try:
            make_private_file(path)
            self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise SnapshotError(f"snapshot.dir {folder} can't be locked, {path} can't be written: {error}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 300, 0).decode(errors="replace").strip() or "another process"
            os.close(self._descriptor)
            raise SnapshotError(
                f"snapshot.dir {folder} is used by another engine of the name {engine!r}, {holder}: give each a name of"
                " its own (snapshot.engine)"
            ) from None
        except OSError as error:
            # Some network file systems have no locks. Refusing would shut out whoever has worked well on one so far.
            log.warning(
                "snapshot.dir %s can't be locked (%s): no two engines may have the name %s", folder, error, engine
            )
            return
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def close(self) -> None:
        """Lets another process have the name."""
        os.close(self._descriptor)
