from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.log_output import one_line


@given(st.text())
def test_a_text_of_others_becomes_one_line_without_control_characters(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert line.splitlines() in ([line], [])


def test_letters_of_all_scripts_stay_as_they_are() -> None:
    assert one_line("Grüße 你好 🐦") == "Grüße 你好 🐦"


@pytest.mark.parametrize("call", ["log.warning('got %s', text)", "log.warning(text)"])
def test_what_others_have_written_forges_no_line_of_the_log(call: str) -> None:
    script = (
        "import logging; from engine.log_output import log_to_stderr; log_to_stderr('info');"
        f"log = logging.getLogger('x'); text = 'a\\n2026 ERROR engine: forged\\x1b[31m\\u2028b'; {call}"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert line.endswith(r"a\n2026 ERROR engine: forged\x1b[31m\u2028b")
