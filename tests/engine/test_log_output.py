from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.log_fields import FIELDS
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


def logged(script: str, form: str) -> list[str]:
    """The lines of a process that logs in a form, and then runs a script."""
    begin = f"import logging; from engine.log_output import log_to_stderr; log_to_stderr('info', {form!r})\n"
    begin += "log = logging.getLogger('x')\n"
    done = subprocess.run([sys.executable, "-c", begin + script], capture_output=True, text=True)
    return done.stderr.splitlines()


PATHS = {
    "a message of others": r"log.warning('got %s', 'a\nb\x1b[31m\u2028\ud800')",
    "an object that is no text": "log.warning('%s and %r', {1: 2}, b'x')",
    "an exception": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('failed')",
    "a stack": "log.error('here', stack_info=True)",
    "fields": "from engine.log_fields import at\nlog.info('x', extra=at('t', 1, 2))",
    "a limited line": (
        "from engine.limited_log import LimitedLog\nLimitedLog(log).warning('k', 'x', extra={'topic': 't'})"
    ),
    "a warning of Python": "import warnings\nwarnings.warn('old\\nthing')",
    "an error that nobody has caught": "raise KeyError('x')",
    "a thread that fails": (
        "import threading\nfrom engine.failures import log_thread_failures\nlog_thread_failures()\n"
        "t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()"
    ),
    "kafka-python": "logging.getLogger('kafka.x').critical('down')",
    "a program that ends": (
        "from engine.failures import one_line_each\nwith one_line_each('ousel-engine'):\n    raise SystemExit('a\\nb')"
    ),
    "a full disk": (
        "from engine.failures import one_line_each\nwith one_line_each('ousel-engine'):\n    raise OSError(28, 'Full')"
    ),
    "a wrong value": (
        "from engine.failures import WrongValue, one_line_each\nwith one_line_each('x'):\n    raise WrongValue('wrong')"
    ),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_line_of_every_path_is_one_object_with_time_level_logger_and_message(path: str) -> None:
    (text,) = logged(PATHS[path], "json")
    line = json.loads(text)
    assert datetime.fromisoformat(line["time"]).tzinfo is not None
    assert line["level"] in ("info", "warning", "error", "critical")
    assert line["logger"] and line["message"]
    assert set(line) <= {"time", "level", "logger", "message", "exception", "stack", *FIELDS}
    assert ("exception" in line) == (path in ("an exception", "an error that nobody has caught", "a thread that fails"))


def test_what_a_line_is_about_stands_in_fields_of_its_own() -> None:
    script = "from engine.log_fields import at, of_model\n"
    script += "log.info('x', extra=at('t', 1, 2))\nlog.info('x', extra=of_model(7))\nlog.info('x')"
    first, second, third = (json.loads(line) for line in logged(script, "json"))
    assert (first["topic"], first["partition"], first["offset"]) == ("t", 1, 2)
    assert second["model_version"] == 7 and "topic" not in second
    assert not {*FIELDS} & {*third}


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_names_the_request_that_is_answered(form: str) -> None:
    script = "from engine.log_fields import current_request\nlog.info('a')\ncurrent_request.set('r-1')\nlog.info('b')"
    first, second = logged(script, form)
    assert "r-1" not in first
    assert second.endswith("b [request r-1]") if form == "text" else json.loads(second)["request_id"] == "r-1"


def test_a_text_line_begins_with_the_time_and_its_zone() -> None:
    (line,) = logged("log.warning('x')", "text")
    time, rest = line.split(" ", 1)
    assert datetime.fromisoformat(time).tzinfo is not None and rest == "WARNING x: x"


def test_the_form_is_known_to_whoever_starts_another_process() -> None:
    script = "from engine.log_output import log_form\nlog.info(log_form())"
    assert json.loads(logged(script, "json")[0])["message"] == "json"
    assert logged(script, "text")[0].endswith(": text")
