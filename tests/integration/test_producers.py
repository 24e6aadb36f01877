"""Other people's producers: whatever they compress, commit, abort or damage, the log is read and the engine goes on."""

from __future__ import annotations

import os
import shutil
import struct
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import ousel
import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from ousel.v1 import catalog_pb2, event_pb2

from deploy.local.raw_batches import send_raw, signed
from deploy.local.stock_producers import ConfluentProducer, JavaProducer, KafkaPythonProducer, StockProducer, ToSend
from engine.config import KafkaConfig
from engine.events.connection import connection_settings
from engine.events.kafka import KafkaSource
from engine.events.topics import ensure_topics
from tests.engine.events.batches import batch_of
from tests.integration.conftest import SECURITY, StartBroker
from tests.integration.engines import DEADLINE_S, EngineProcess, running, until
from tests.integration.test_kafka import drain, poll_until, started

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(SECURITY != "PLAINTEXT", reason="the stock producers are set up without TLS and password"),
]
CODECS = ["gzip", "snappy", "lz4", "zstd"]
PRODUCERS = ["confluent", "kafka-python", "java"]


def producer_of(name: str, bootstrap: str, codec: str, transactional_id: str | None = None) -> StockProducer:
    if name == "java":
        home = os.environ.get("KAFKA_HOME")
        if not home:
            pytest.skip("KAFKA_HOME names no Apache Kafka, whose jars have the producer")
        return JavaProducer(bootstrap, codec, transactional_id, home=Path(home))
    kinds = {"confluent": ConfluentProducer, "kafka-python": KafkaPythonProducer}
    return kinds[name](bootstrap, codec, transactional_id)


def events(topic: str, name: str, count: int, user: str = "") -> list[ToSend]:
    """Events of different users, long enough to be worth compressing."""
    return [
        ToSend(
            topic,
            (user or f"{name}-{n}").encode(),
            event_pb2.Event(
                event_id=f"{name}-{n}", user_id=user or f"{name}-{n}", item_id=f"item-{n % 7}", session_id="s" * 200
            ).SerializeToString(),
        )
        for n in range(count)
    ]


def sent(source: KafkaSource, count: int) -> list[tuple[bytes | None, bytes | None]]:
    return sorted((record.key, record.value) for record in drain(source, count))


@pytest.mark.parametrize("name", PRODUCERS)
def test_every_codec_of_every_producer_is_read(kafka_config: KafkaConfig, name: str) -> None:
    written = []
    for codec in CODECS:
        with closing(producer_of(name, kafka_config.bootstrap, codec)) as producer:
            records = events(kafka_config.events_topic, codec, 30)
            producer.write(records)
            written += records
    with closing(started(kafka_config)) as source:
        assert sent(source, len(written)) == sorted((one.key, one.value) for one in written)
        assert source.caught_up()
        assert (source.lag(), source.held()) == (0, {})


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_that_the_topic_asks_for_is_read(kafka_config: KafkaConfig, codec: str) -> None:
    if not os.environ.get("KAFKA_HOME"):
        pytest.skip("the embedded broker stores batches as they come")
    with closing(KafkaAdminClient(**connection_settings(kafka_config))) as admin:
        for topic in (kafka_config.events_topic, kafka_config.items_topic):
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"compression.type": codec})])
    written = events(kafka_config.events_topic, codec, 30)
    item = catalog_pb2.Item(item_id="item-1", title="t" * 300).SerializeToString()
    with closing(ConfluentProducer(kafka_config.bootstrap, "none")) as producer:
        producer.write([*written, ToSend(kafka_config.items_topic, b"item-1", item)])
    with closing(started(kafka_config)) as source:
        assert sent(source, len(written) + 1) == sorted([*((one.key, one.value) for one in written), (b"item-1", item)])


@pytest.mark.parametrize("name", PRODUCERS)
def test_only_what_was_committed_is_read_and_a_log_that_ends_in_a_marker_has_no_lag(
    kafka_config: KafkaConfig, name: str
) -> None:
    topic = kafka_config.events_topic
    kept = events(topic, "kept", 9)
    with closing(producer_of(name, kafka_config.bootstrap, "lz4", f"t-{topic}")) as producer:
        producer.transact(kept[:5], commit=True)
        producer.transact(events(topic, "dropped", 20), commit=False)
        producer.transact(kept[5:], commit=True)
        producer.transact(events(topic, "gone", 20), commit=False)
    with closing(started(kafka_config)) as source:
        assert sent(source, len(kept)) == sorted((one.key, one.value) for one in kept)
        assert poll_until(source, source.caught_up) == []
        assert source.lag() == 0
        ends = {partition: end for partition, end in source.stable_offsets().items() if partition[0] == topic}
        assert sum(ends.values()) > len(kept) + 40  # markers have offsets, too


def test_an_open_transaction_holds_nobody_up_and_counts_once_it_is_committed(kafka_config: KafkaConfig) -> None:
    topic = kafka_config.events_topic
    before, within, behind = events(topic, "before", 5), events(topic, "within", 5), events(topic, "behind", 5)
    with closing(ConfluentProducer(kafka_config.bootstrap, "zstd", f"t-{topic}")) as open_producer:
        with closing(ConfluentProducer(kafka_config.bootstrap, "zstd")) as other:
            other.write(before)
            open_producer._producer.begin_transaction()
            open_producer.write(within)
            other.write(behind)
        with closing(started(kafka_config)) as source:
            assert len(drain(source, 5)) >= 5
            poll_until(source, source.caught_up)
            assert source.lag() == 0  # what may not be read yet is no lag
            open_producer._producer.commit_transaction(60)
            rest = drain(source, 10)
            assert {record.key for record in rest} <= {one.key for one in within + behind}


def events_of(client: ousel.Client, user: str) -> int:
    """How many events the engine holds of a user."""
    return sum(len(subject.history) for subject in client.export_user(user).subjects)


def test_the_engine_folds_what_all_of_them_commit_and_nothing_else(kafka_config: KafkaConfig, tmp_path: Path) -> None:
    topic = kafka_config.events_topic
    apache = bool(os.environ.get("KAFKA_HOME"))
    names = PRODUCERS if apache else PRODUCERS[:2]
    with closing(producer_of("confluent", kafka_config.bootstrap, "gzip", f"first-{topic}")) as producer:
        producer.transact(events(topic, "ghost", 5, user="ghost"), commit=False)
    with (
        running(kafka_config, tmp_path / "engine.log") as engine,  # ready, though all the log has was aborted
        ousel.Client(engine.address, timeout_s=30) as client,
    ):
        folded = 0
        for name in names:
            for codec in CODECS:
                # The embedded broker lists what a producer aborted for ever, so what it commits later is lost there.
                transactional = f"{name}-{topic}" if codec == "lz4" and apache else None
                with closing(producer_of(name, kafka_config.bootstrap, codec, transactional)) as producer:
                    real = events(topic, f"{name}-{codec}", 20)
                    if transactional:
                        producer.transact(events(topic, f"{name}-a", 10, user="ghost"), commit=False)
                        producer.transact(real, commit=True)
                        producer.transact(events(topic, f"{name}-b", 10, user="ghost"), commit=False)
                    else:
                        producer.write(real)
                    folded += len(real)
        until(lambda: client.status().events_folded >= folded, lambda: client.status())
        until(lambda: client.status().lag == 0)
        status = client.status()
        assert (status.events_folded, status.events_dead_lettered) == (folded, 0)
        assert events_of(client, "ghost") == 0
        assert events_of(client, f"{names[0]}-lz4-3") == 1


def test_a_log_of_more_than_100_mb_is_read(kafka_config: KafkaConfig) -> None:
    """The embedded broker answers with all that its log holds; kafka-python refuses more than 100 MB by default."""
    count, size = 1150, 100_000
    with closing(ConfluentProducer(kafka_config.bootstrap, "none")) as producer:
        producer.write([ToSend(kafka_config.events_topic, b"u", bytes([n % 256]) * size) for n in range(count)])
    with closing(started(kafka_config)) as source:
        found = 0
        while found < count:
            records = source.poll(DEADLINE_S)
            assert records, f"nothing came after {found} records"
            assert sum(len(one.value or b"") for one in records) <= kafka_config.max_poll_bytes + size
            found += len(records)


@contextmanager
def without(package: str, tmp_path: Path) -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """The environment of an installation without a package, and a call that installs it."""
    folder = tmp_path / "without"
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(f"raise ImportError('{package} is not installed')\n")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    yield {"PYTHONPATH": path}, lambda: shutil.rmtree(folder)


def metrics(engine: EngineProcess) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.metrics_port}/metrics", timeout=30) as page:
        return page.read().decode().splitlines()


def held(engine: EngineProcess) -> list[str]:
    return [line for line in metrics(engine) if line.startswith("ousel_partition_held{") and line.endswith(" 1.0")]


def test_a_codec_that_is_not_installed_holds_its_partitions_until_it_is(
    kafka_config: KafkaConfig, tmp_path: Path
) -> None:
    topic, items = kafka_config.events_topic, kafka_config.items_topic
    plain = events(topic, "plain", 40)
    item = catalog_pb2.Item(item_id="item-1", title="t" * 300).SerializeToString()
    with closing(ConfluentProducer(kafka_config.bootstrap, "none")) as producer:
        where = producer.write(plain)
        partition = where[0][0]
    later = [one for one, (at, _) in zip(plain, where, strict=True) if at == partition]
    with closing(ConfluentProducer(kafka_config.bootstrap, "zstd")) as producer:
        again = [
            one._replace(value=one.value.replace(b"plain", b"later")) for one in later
        ]  # same users, so same place
        assert {at for at, _ in producer.write(again)} == {partition}
        producer.write([ToSend(items, b"item-1", item)])
    with (
        without("zstandard", tmp_path) as (environment, install),
        running(kafka_config, tmp_path / "engine.log", **environment) as engine,
        ousel.Client(engine.address, timeout_s=30) as client,
    ):
        until(lambda: client.status().events_folded == len(plain), lambda: client.status())
        until(lambda: len(held(engine)) == 2, engine.log)
        log = engine.log()
        assert f"{topic}[{partition}] can't be read on from offset {len(later)}: it is compressed with zstd" in log
        assert "install the package zstandard" in log
        assert f"{items}[0] can't be read on" in log
        assert client.status().lag == len(later) + 1
        install()
        until(lambda: client.status().events_folded == len(plain) + len(later), engine.log)
        until(lambda: client.status().items_folded == 1 and not held(engine), engine.log)
        assert client.status().lag == 0


def test_a_damaged_batch_is_one_dead_letter_and_reading_goes_on(kafka_config: KafkaConfig, tmp_path: Path) -> None:
    """Its checksum is right, so that the broker takes it: Apache Kafka looks into compressed batches, others don't."""
    topic = kafka_config.events_topic
    pairs = [(one.key, one.value) for one in events(topic, "good", 10)]
    damaged = batch_of(pairs, "gzip")[:200]
    struct.pack_into(">i", damaged, 8, len(damaged) - 12)
    code = send_raw(kafka_config.bootstrap, topic, 0, bytes(signed(damaged)))
    if code:
        pytest.skip(f"the broker refuses it with error code {code}")
    assert send_raw(kafka_config.bootstrap, topic, 0, bytes(batch_of(pairs, "gzip"))) == 0
    with closing(started(kafka_config)) as source:
        # Its end may be told too early at first: a broker decides a moment after its answer that all of it is stable.
        records = poll_until(source, lambda: source.stable_offsets()[topic, 0] == 20 and not source.lag())
    flaws = [record.flaw for record in records if record.flaw]
    assert [flaw.last_offset for flaw in flaws] == [9], [(record.offset, record.flaw) for record in records]
    assert len(records) - 1 + flaws[0].records == 20


def test_a_batch_that_rots_on_the_brokers_disk_is_one_dead_letter(start: StartBroker, tmp_path: Path) -> None:
    with start(tmp_path / "broker") as broker:
        kafka = KafkaConfig(**broker.client_settings(), events_partitions=1)
        ensure_topics(kafka)
        with closing(ConfluentProducer(broker.bootstrap, "none")) as producer:
            for name in ("first", "rotten", "last"):
                producer.write(events(kafka.events_topic, name, 6))
        spoil(tmp_path / "broker", b"rotten-3")
        with running(kafka, tmp_path / "engine.log") as engine, ousel.Client(engine.address, timeout_s=30) as client:
            status = client.status()
            assert (status.events_folded, status.events_dead_lettered, status.lag) == (12, 6, 0)
            assert 'ousel_dead_letters_total{topic="ousel.events"} 6.0' in metrics(engine)


def spoil(folder: Path, mark: bytes) -> None:
    """Changes a byte of a log's file where it says this."""
    for path in folder.rglob("*"):
        if path.is_file() and (place := path.read_bytes().find(mark)) >= 0:
            with path.open("r+b") as file:
                file.seek(place)
                file.write(b"R")
            return
    pytest.skip("the broker keeps its log in a form of its own")
