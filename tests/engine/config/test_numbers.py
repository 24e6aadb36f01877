"""Every number of the configuration lies between two bounds, and neither infinity nor "not a number" is one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, get_args

import annotated_types
import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from engine.config import Config, ConfigError, EventsConfig, Section, load_config, load_settings
from engine.config.events import MAX_WEIGHT
from trainer.config import TrainerConfig

LOWER, UPPER = (annotated_types.Ge, annotated_types.Gt), (annotated_types.Le, annotated_types.Lt)


def sections() -> dict[str, type[BaseModel]]:
    fields = Config.model_fields | TrainerConfig.model_fields
    return {
        name: field.annotation
        for name, field in fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def settings() -> Iterator[tuple[str, FieldInfo]]:
    for section, kind in sections().items():
        for name, field in kind.model_fields.items():
            yield f"{section}.{name}", field


def numbers(annotation: Any, metadata: list[Any]) -> Iterator[list[Any]]:
    """The constraints of every number that a type is or holds: of a table's values and a list's elements, too."""
    if hasattr(annotation, "__metadata__"):
        yield from numbers(annotation.__origin__, [*metadata, *flat(annotation.__metadata__)])
    elif annotation in (int, float):
        yield metadata
    else:
        optional = type(None) in get_args(annotation)
        for part in get_args(annotation):
            yield from numbers(part, metadata if optional else [])


def flat(metadata: tuple[Any, ...]) -> list[Any]:
    return [part for one in metadata for part in (one.metadata if isinstance(one, FieldInfo) else [one])]


def unbounded(fields: Iterator[tuple[str, FieldInfo]]) -> list[str]:
    return [
        name
        for name, field in fields
        for constraints in numbers(field.annotation, field.metadata)
        if not all(any(isinstance(one, side) for one in constraints) for side in (LOWER, UPPER))
    ]


def test_every_number_of_every_section_has_a_lower_and_an_upper_bound():
    assert unbounded(settings()) == []
    counted = sum(1 for _, field in settings() for _ in numbers(field.annotation, field.metadata))
    assert counted > 80  # else the walk has lost its way


def test_the_walk_finds_a_number_without_a_bound_wherever_it_stands():
    class Careless(Section):
        timeout_s: float = 1.0
        limit: int | None = None
        weights: dict[str, float] = Field(default_factory=dict)
        lives: tuple[float, ...] = ()
        name: str = ""
        on: bool = True

    assert unbounded(iter(Careless.model_fields.items())) == ["timeout_s", "limit", "weights", "lives"]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_number_is_infinite_or_not_a_number(value):
    checked = 0
    for section, kind in sections().items():
        for name, field in kind.model_fields.items():
            if not list(numbers(field.annotation, field.metadata)):
                continue
            given: Any = value
            if isinstance(field.default, dict):
                given = dict.fromkeys(field.default, value)
            elif isinstance(field.default, tuple):
                given = (value,)
            with pytest.raises(ValidationError) as error:
                TypeAdapter(kind).validate_python({name: given})
            assert name in str(error.value), f"{section}.{name}"
            checked += 1
    assert checked > 80


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "Infinity", "1e999"])
@pytest.mark.parametrize(
    "name", ["STATE__SESSION_GAP_S", "SNAPSHOT__INTERVAL_S", "SERVING__GRACE_S", "SERVING__MAX_WAIT_MS"]
)
def test_a_duration_in_a_variable_is_finite(name, text, monkeypatch):
    monkeypatch.setenv(f"OUSEL_{name}", text)
    with pytest.raises(ConfigError, match=name.lower().replace("__", r"\.")):
        load_config()


@pytest.mark.parametrize("section", ["kinds", "relations"])
@pytest.mark.parametrize("weight", [math.inf, math.nan, MAX_WEIGHT * 1.01, "nan", "-1"])
def test_weights_of_kinds_and_relations_are_finite_and_within_bounds(section, weight):
    with pytest.raises(ValidationError, match=section):
        EventsConfig(**{section: {"view": 1.0, "follows": 1.0, "has": 1.0, "bad": weight}})


@pytest.mark.parametrize("section", ["kinds", "relations"])
def test_a_negative_weight_is_refused_with_the_reason_that_dislikes_are_not_here_yet(section, tmp_path):
    file = tmp_path / "ousel.toml"
    file.write_text(f"[events.{section}]\nview = 1\nfollows = 1\nhas = 1\nremove = -1\n")
    for kind in (Config, TrainerConfig):
        with pytest.raises(ConfigError, match=r"the weight of 'remove' must be >= 0, got -1: .*dislikes"):
            load_settings(kind, file)


def test_weights_may_be_0_and_large():
    kinds = EventsConfig(kinds={"view": 0, "purchase": MAX_WEIGHT}).kinds
    assert kinds == {"view": 0.0, "purchase": MAX_WEIGHT}


def test_a_kind_has_a_name():
    with pytest.raises(ValidationError, match="kinds"):
        EventsConfig(kinds={"view": 1.0, "": 1.0})


def test_a_training_that_could_never_begin_is_refused(monkeypatch):
    monkeypatch.setenv("OUSEL_TRAINER__MIN_EVENTS", "1000")
    monkeypatch.setenv("OUSEL_TRAINER__MAX_LOG_EVENTS", "999")
    with pytest.raises(ConfigError, match=r"min_events must be <= max_log_events \(999\)"):
        load_settings(TrainerConfig, None)
