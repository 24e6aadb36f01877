from __future__ import annotations

import pytest

from engine.checks.permissions import engine_needs, look_at_permissions, trainer_needs
from engine.config import KafkaConfig
from tests.engine.checks.brokers import ALL, FakeAdmin, answering

KAFKA = KafkaConfig()
EVENTS, ITEMS, LETTERS = KAFKA.events_topic, KAFKA.items_topic, KAFKA.dead_letters_topic
MODELS = "ousel.models"
TOPICS = {EVENTS: 4, ITEMS: 1, LETTERS: 1, MODELS: 1, "__consumer_offsets": 4}


def found(monkeypatch: pytest.MonkeyPatch, admin: FakeAdmin, config: KafkaConfig = KAFKA) -> list[tuple[str, str]]:
    answering(monkeypatch, "permissions", admin)
    needs = engine_needs(config, MODELS)
    return [(one.level.value, one.message) for one in look_at_permissions(config, needs, in_group=True)]


def without(right: str) -> list[str]:
    return [one for one in ALL if one != right]


def test_a_client_that_may_do_everything_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, FakeAdmin(TOPICS, group=ALL)) == [
        ("ok", "this client may do with the topics all that is needed")
    ]


@pytest.mark.parametrize(
    ("topic", "right", "level", "said"),
    [
        (EVENTS, "READ", "error", "no right READ on topic 'ousel.events': without it the engine does not start"),
        (EVENTS, "WRITE", "warning", "Track, ForgetUser and events on streams fail"),
        (ITEMS, "READ", "error", "the engine does not start"),
        (LETTERS, "WRITE", "error", "records that break a rule can't be kept"),
        (LETTERS, "READ", "error", "can't tell which letters are there already"),
        (MODELS, "READ", "error", "none serves but this engine's own copy of the last one"),
        (MODELS, "WRITE", "warning", "no model can be pushed, pinned or rolled back here"),
        (ITEMS, "DESCRIBE_CONFIGS", "warning", "no right DESCRIBE_CONFIGS on topic 'ousel.items'"),
    ],
)
def test_each_right_that_is_missing_is_named_with_what_fails_without_it(
    topic: str, right: str, level: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((got, line),) = found(monkeypatch, FakeAdmin(TOPICS, operations={topic: without(right)}, group=ALL))
    assert got == level and said in line and line.endswith("give the right")


def test_a_missing_topic_that_may_not_be_made_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = {name: count for name, count in TOPICS.items() if name != LETTERS}
    assert found(monkeypatch, FakeAdmin(topics, group=ALL))[0][0] == "ok"
    ((level, line),) = found(monkeypatch, FakeAdmin(topics, operations={LETTERS: without("CREATE")}, group=ALL))
    assert level == "error" and "no right CREATE on topic 'ousel.dead-letters', which does not exist" in line


@pytest.mark.parametrize("group", [None, without("READ")])
@pytest.mark.parametrize(("share", "level"), [(False, "warning"), (True, "error")])
def test_a_group_that_may_not_be_used_matters_where_engines_share(
    group: list[str] | None, share: bool, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((got, line),) = found(monkeypatch, FakeAdmin(TOPICS, group=group), KafkaConfig(share=share))
    assert got == level and "group 'ousel-engine'" in line


def test_a_group_that_is_not_there_yet_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = FakeAdmin(TOPICS, group=ALL)
    admin.is_group_missing = True
    assert [level for level, _ in found(monkeypatch, admin)] == ["ok"]
    assert admin.asked_for_groups == 1


def test_nobody_asks_for_a_group_before_there_are_any_since_that_makes_a_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = FakeAdmin({EVENTS: 4, ITEMS: 1, LETTERS: 1, MODELS: 1})
    assert found(monkeypatch, admin)[0][0] == "ok"
    assert admin.asked_for_groups == 0


def test_a_broker_that_tells_nobody_what_he_may_do_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = FakeAdmin(TOPICS, operations=dict.fromkeys(TOPICS), group=ALL)
    assert found(monkeypatch, admin) == [("ok", "the broker tells no client what it may do")]


def test_the_trainer_needs_to_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = FakeAdmin(TOPICS, operations={EVENTS: without("WRITE"), LETTERS: []})
    answering(monkeypatch, "permissions", admin)
    (one,) = look_at_permissions(KAFKA, trainer_needs(KAFKA), in_group=False)
    assert one.level == "ok" and admin.asked_for_groups == 0
