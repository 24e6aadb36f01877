"""Where snapshots go unless `snapshot.dir` says so: a folder of the user, from wherever the engine is started."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from engine.config import SnapshotConfig
from engine.events.source import LogIdentity
from engine.private_files import make_private_folder

log = logging.getLogger(__name__)

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_NO_CLUSTER = "cluster"  # in place of the id that some brokers don't give


def default_folder(environment: Mapping[str, str]) -> Path:
    """The folder for state that outlives the process: systemd's, or the one that the XDG rules give a user.

    Raises:
        RuntimeError: the system knows no home folder of this user.
    """
    of_the_unit = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    if of_the_unit:
        return Path(of_the_unit) / "snapshots"
    of_the_user = Path(environment.get("XDG_STATE_HOME", ""))
    if not of_the_user.is_absolute():
        of_the_user = Path.home() / ".local" / "state"
    return of_the_user / "ousel" / "snapshots"


def with_folder(config: SnapshotConfig) -> SnapshotConfig | None:
    """The configuration with a folder that can be written; None, after a line in the log, where no snapshots are kept.

    A folder that `snapshot.dir` names is not looked at: where it can't be used, the start is to fail.
    """
    if not config.enabled:
        log.warning("snapshot.enabled is false: every start reads the whole log")
        return None
    if config.dir is not None:
        return config
    try:
        folder = default_folder(os.environ)
        make_private_folder(folder)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(f"{folder} can't be written")
    except (OSError, RuntimeError) as error:
        log.warning(
            "no snapshots are kept, and every start reads the whole log: the default folder can't be used (%s); set"
            " snapshot.dir (OUSEL_SNAPSHOT__DIR) to a folder that lasts, or snapshot.enabled to false",
            error,
        )
        return None
    log.info("snapshots are kept in %s; snapshot.dir names another folder", folder)
    return config.model_copy(update={"dir": folder})


def usual_name(host: str, port: int) -> str:
    """The name of an engine in the folder, unless `snapshot.engine` gives one."""
    return f"{_UNSAFE.sub('_', host).lstrip('._-')[:100] or 'engine'}-{port}"


def folder_of_log(folder: Path, identity: LogIdentity, events_topic: str, started_ms: int) -> Path:
    """The part of the default folder for one log: nobody has chosen that several logs share it.

    In a folder of one's own, a snapshot of another log ends the start, for that log may be the wrong one. The embedded
    broker has the same cluster id everywhere and gives topics no ids: there the time of the first event tells two logs
    apart, or the snapshot of a log that was thrown away would be continued by the next one. A log without any event
    can't be told from the next one at all, so it is given a folder that no other start finds.

    Args:
        started_ms: when the engine was started.
    """
    name = f"{_UNSAFE.sub('_', identity.cluster_id or _NO_CLUSTER)}-{events_topic}"
    if identity.began_ms is not None:
        name += f"-{identity.began_ms}"
    elif events_topic not in identity.topic_ids:
        name += f"-empty-{started_ms}"
    return folder / name
