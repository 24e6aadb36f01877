"""`ousel-engine dead-letters`: the records that broke a rule, with the reason and the place of each."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from kafka.errors import KafkaError

from engine.config import KafkaConfig, load_config
from engine.events.connection import connection_settings
from engine.events.diagnosis import connection_problem
from engine.events.letter_reader import FoundLetter, LetterReader
from engine.failures import WrongValue
from engine.log_output import one_line
from engine.log_start import start_log
from engine.signals import stopping

_VALUE_CHARS = 200
# Anybody who may write to the topic may write such headers; those of the engine are numbers of 64 bits.
_NUMBER = re.compile("[0-9]{1,19}")


def dead_letters(config: Path | None, limit: int, follow: bool, as_json: bool) -> None:
    """Shows the newest dead letters, the newest last. Nothing is changed, and no consumer group is used.

    Args:
        config: the file of settings.
        limit: how many of the newest are shown.
        follow: whether letters that come are shown, too, until a signal ends it.
        as_json: one JSON object a line in place of text.

    Raises:
        WrongValue: a setting is wrong.
        SystemExit: the topic can't be read.
    """
    try:
        settings = load_config(config)
    except ValueError as error:
        raise WrongValue(f"ousel-engine dead-letters: {error}") from None
    start_log(settings)
    try:
        _show(settings.kafka, limit, follow, _json if as_json else _text)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # The reader of the output has seen enough; Python's own flush at the exit must not fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (KafkaError, LookupError) as error:
        problem = None
        if isinstance(error, KafkaError):
            problem = connection_problem(settings.kafka, connection_settings(settings.kafka))
        reason = error.args[0] if isinstance(error, LookupError) else error
        raise SystemExit(f"ousel-engine dead-letters: {problem or reason}") from None


def _show(config: KafkaConfig, limit: int, follow: bool, form: Callable[[FoundLetter], str]) -> None:
    # A KeyboardInterrupt that is raised inside the Kafka client can leave it in a state in which it can't be closed.
    with closing(LetterReader(config)) as reader, stopping() as stop:
        newest = reader.newest(limit, stop)
        coming: Iterable[FoundLetter] = reader.following(stop) if follow else ()
        for letter in itertools.chain(newest, coming):
            print(form(letter), flush=follow)
            if stop.is_set():
                break
        if not newest and not follow and not stop.is_set():
            print(f"no dead letters in topic {config.dead_letters_topic!r}", file=sys.stderr)
        sys.stdout.flush()


def _text(letter: FoundLetter) -> str:
    headers = letter.headers
    place = f"{headers.get('topic', '?')}[{headers.get('partition', '?')}]@{headers.get('offset', '?')}"
    if "last_offset" in headers:
        place += f"-{headers['last_offset']}"
    value = "left out: the topic did not take it" if "left_out" in headers else _shown(letter.value)
    size = f" ({one_line(headers['truncated'])} bytes in all)" if "truncated" in headers else ""
    reason = one_line(headers.get("reason", "without a reason"))
    return f"{_time(letter)}  {one_line(place)}  {reason}\n    key {_shown(letter.key)}  value {value}{size}"


def _json(letter: FoundLetter) -> str:
    numbers = ("partition", "offset", "timestamp", "last_offset", "truncated")
    fields: dict[str, object] = {
        name: int(text) if name in numbers and _NUMBER.fullmatch(text) else text
        for name, text in letter.headers.items()
    }
    fields["written"] = _time(letter)
    for name, data in (("key", letter.key), ("value", letter.value)):
        try:
            fields[name] = None if data is None else data.decode()
        except UnicodeDecodeError:
            fields[f"{name}_base64"] = base64.b64encode(data or b"").decode()
    return json.dumps(fields, ensure_ascii=False)


def _time(letter: FoundLetter) -> str:
    try:
        return datetime.fromtimestamp(letter.written_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError):  # A producer may give its records any time.
        return f"{letter.written_ms} ms since 1970"


def _shown(data: bytes | None) -> str:
    """The beginning of a key or a value, without control characters, which a terminal would obey."""
    if data is None:
        return "none"
    text = one_line(data[: 4 * _VALUE_CHARS].decode("utf-8", "backslashreplace"))
    cut = len(text) > _VALUE_CHARS or len(data) > 4 * _VALUE_CHARS
    return (text[:_VALUE_CHARS] + "...") if cut else text or "empty"
