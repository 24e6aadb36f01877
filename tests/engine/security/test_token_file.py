from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from engine import metrics
from engine.config import ConfigError
from engine.security.token_file import TokenFile
from tests.engine.security.tokens import TOKENS, line, lines_of, put

TRACK, PUSH = TOKENS["track"], TOKENS["push"]
ONE, OTHER = f"{line('one', 'track', TRACK)}\n", f"{line('other', 'push', PUSH)}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return put(tmp_path / "tokens", ONE)


def looked(file: TokenFile) -> bool:
    """Two looks at the file, after which a change counts."""
    return [file.poll(), file.poll()][-1]


def problem() -> float:
    return metrics.TOKENS_FILE_PROBLEM._value.get()


def test_a_file_that_is_put_in_its_place_counts_after_two_looks(path):
    file = TokenFile(path)
    put(path, ONE + OTHER)
    assert not file.poll() and file.in_force.of(PUSH) is None
    assert file.poll() and file.in_force.of(PUSH) is not None
    assert metrics.TOKENS._value.get() == 2
    assert not file.poll()


def test_a_new_file_of_the_same_size_and_time_counts(path):
    file, before = TokenFile(path), path.stat()
    put(path, f"{line('one', 'track', PUSH)}\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert looked(file) and file.in_force.of(PUSH) is not None and file.in_force.of(TRACK) is None


def test_a_link_that_leads_to_another_file_counts(tmp_path):
    # Kubernetes changes a mounted secret so.
    for name, text in (("a", ONE), ("b", OTHER)):
        put(tmp_path / name, text)
    (tmp_path / "tokens").symlink_to("a")
    file = TokenFile(tmp_path / "tokens")
    (tmp_path / "new").symlink_to("b")
    (tmp_path / "new").replace(tmp_path / "tokens")
    assert looked(file) and file.in_force.of(PUSH) is not None


def test_a_file_that_is_still_being_written_waits(path):
    file = TokenFile(path)
    for text in (ONE + OTHER[:20], ONE + OTHER, ONE + OTHER + "# the end\n"):
        path.write_text(text)
        assert not file.poll()
    assert problem() == 0 and file.poll() and len(file.in_force) == 2


@pytest.mark.parametrize("text", ["", "# nobody\n", ONE + "other roles=push\n", "\xff\xfe"])
def test_a_damaged_file_keeps_the_old_tokens_and_is_told_once(path, caplog, text):
    file = TokenFile(path)
    put(path, text)
    assert not any([looked(file), looked(file)])
    assert file.in_force.of(TRACK) is not None and problem() == 1
    [record] = caplog.records
    assert record.levelno == logging.ERROR and str(path) in record.getMessage()
    put(path, OTHER)
    assert looked(file) and problem() == 0 and file.in_force.of(TRACK) is None


def test_a_file_that_is_gone_keeps_the_old_tokens_until_it_is_back(path, caplog):
    file, aside = TokenFile(path), path.with_suffix(".aside")
    path.rename(aside)
    assert not looked(file) and not looked(file)
    assert file.in_force.of(TRACK) is not None and problem() == 1 and len(caplog.records) == 1
    aside.rename(path)
    assert not looked(file) and problem() == 0


def test_a_start_with_a_damaged_file_names_the_setting_the_file_and_the_line(tmp_path):
    path = put(tmp_path / "tokens", f"{lines_of()}shop {TRACK}\n")
    with pytest.raises(ConfigError, match=rf"^security.tokens_file: {path}, line 6: must be NAME roles=") as error:
        TokenFile(path)
    assert TRACK not in str(error.value)
    with pytest.raises(ConfigError, match=r"^security.tokens_file: No such file or directory: .*/none$"):
        TokenFile(tmp_path / "none")


def test_a_file_that_others_may_write_to_is_warned_of(path, caplog):
    path.chmod(0o664)
    TokenFile(path)
    assert "others may write to the tokens file" in caplog.text and "0664" in caplog.text
