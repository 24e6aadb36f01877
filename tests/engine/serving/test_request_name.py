from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from engine.log_fields import current_request
from engine.serving.request_name import name_request


@pytest.fixture(autouse=True)
def no_request_left() -> Iterator[None]:
    """Lines that later tests log are not of a request of this one."""
    token = current_request.set(None)
    yield
    current_request.reset(token)


def call(**metadata: Any) -> SimpleNamespace:
    pairs = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
    return SimpleNamespace(invocation_metadata=lambda: pairs)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("4bf9-1", "4bf9-1"),
        ("a b\n\x1b[31m", "a_b___31m"),
        ("ü" * 3, "___"),
        ("x" * 900, "x" * 64),
    ],
)
def test_a_callers_name_is_taken_short_and_clean(given: str, name: str) -> None:
    assert str(name_request(call(x_request_id=given))) == name


@pytest.mark.parametrize("metadata", [{}, {"x_request_id": ""}, {"x_request_id": b"\xff"}, {"other": "x"}])
def test_a_call_without_a_name_is_given_one_that_stays(metadata: dict[str, Any]) -> None:
    name = name_request(call(**metadata))
    assert len(str(name)) == 32 and str(name) == str(name)
    assert str(name) != str(name_request(call()))


def test_no_metadata_are_read_after_the_call_has_begun() -> None:
    context = call(x_request_id="4bf9-1")
    name = name_request(context)
    del context.invocation_metadata
    assert str(name) == "4bf9-1"


def test_calls_side_by_side_have_each_its_own() -> None:
    async def named(given: str) -> str:
        name_request(call(x_request_id=given))
        await asyncio.sleep(0)
        return str(current_request.get())

    async def both() -> list[str]:
        return await asyncio.gather(named("a"), named("b"))

    assert asyncio.run(both()) == ["a", "b"]
