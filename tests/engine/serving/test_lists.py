"""Bytes against the messages that protobuf makes of the same list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ousel.v1 import event_pb2
from ousel.v1 import recommender_service_pb2 as pb

from engine.ranking.query import Cause, Origin, Position, RankedItem, Ranking, Source
from engine.serving import lists
from engine.serving.lists import MOST_KEPT_CHARS, list_bytes, passes_bytes, response_bytes, update_bytes

TEXTS = st.text(st.characters(codec="utf-8"), max_size=300)
SOURCES = st.lists(st.sampled_from(Source), unique=True).map(lambda found: tuple(sorted(found)))
SCORES = st.floats(width=32, allow_nan=False) | st.floats(-1e30, 1e30) | st.sampled_from([0.0, -0.0, 1e-60])
rankings = st.builds(
    Ranking,
    st.lists(st.builds(RankedItem, TEXTS, TEXTS, SCORES, SOURCES), max_size=5).map(tuple),
    st.sampled_from(Origin),
    st.booleans(),
    st.sampled_from([0, 1, 127, 128, 2**40]),
    st.lists(
        st.builds(Position, TEXTS, st.integers(0, 2**31 - 1), st.integers(-1, 2**63 - 1)), max_size=3
    ).map(tuple),
)  # fmt: skip


def message(ranking: Ranking) -> pb.RecommendationList:
    items = [
        pb.Recommendation(item_id=item.item_id, title=item.title, score=item.score, sources=item.sources)
        for item in ranking.items
    ]
    reflects = [
        event_pb2.LogPosition(topic=at.topic, partition=at.partition, offset=at.offset) for at in ranking.reflects
    ]
    return pb.RecommendationList(
        items=items, origin=ranking.origin, known=ranking.known, model_version=ranking.model_version, reflects=reflects
    )


@given(ranking=rankings, cause=st.sampled_from(Cause))
def test_bytes_are_those_of_the_messages(ranking, cause):
    plain = message(ranking)
    assert list_bytes(ranking) == plain.SerializeToString()
    assert response_bytes(ranking) == pb.RecommendResponse(list=plain).SerializeToString()
    assert update_bytes(ranking, cause) == pb.StreamRecommendationsResponse(list=plain, cause=cause).SerializeToString()


def test_a_title_that_changes_is_the_one_that_is_written():
    one = Ranking((RankedItem("a", "old", 1.0, ()),), Origin.MODEL, True, 1, ())
    two = Ranking((RankedItem("a", "new", 1.0, ()),), Origin.MODEL, True, 1, ())
    titles = [pb.RecommendationList.FromString(list_bytes(ranking)).items[0].title for ranking in (one, two, one)]
    assert titles == ["old", "new", "old"]


@pytest.mark.parametrize(("chars", "kept"), [(MOST_KEPT_CHARS, 1), (MOST_KEPT_CHARS + 1, 0), (1024, 0)])
def test_long_titles_are_written_and_not_kept_so_that_what_is_kept_is_bounded_in_bytes(chars, kept):
    title = "ü" * (chars - len("long"))
    before = lists._kept_around.cache_info().currsize
    ranking = Ranking((RankedItem("long", title, 0.5, ()),), Origin.MODEL, True, 1, ())
    assert pb.RecommendResponse.FromString(response_bytes(ranking)).list.items[0].title == title
    assert lists._kept_around.cache_info().currsize == before + kept


def test_a_serializer_still_takes_messages():
    serialize = passes_bytes(event_pb2.LogPosition.SerializeToString)
    position = event_pb2.LogPosition(offset=3)
    assert serialize(position) == serialize(position.SerializeToString()) == position.SerializeToString()
