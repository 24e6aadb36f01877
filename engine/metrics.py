"""Every Prometheus metric of the engine. docs/metrics.md explains each for operators."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

from engine.objectives import FRESHNESS, LATENCY

_MS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# Closer together where objectives lie, so that a quantile near one of them is told well.
_SERVED_BUCKETS = tuple(
    sorted({*_MS_BUCKETS, 0.03, 0.075, 0.15, 0.3, 0.75, 30.0, FRESHNESS.within_s, LATENCY.within_s})
)

BUILD_INFO = Gauge("ousel_build_info", "1, with the build of this process", ["program", "version", "python", "torch"])
CONFIG_INFO = Gauge(
    "ousel_config_info",
    "1, with a digest of the settings that shape lists, and some of them",
    ["settings", "share", "device", "precision"],
)
MEMORY_LIMIT = Gauge("ousel_memory_limit_bytes", "Memory that this process may take: its control group's or all")
READER_MEMORY = Gauge("ousel_reader_memory_bytes", "Resident memory of the process that reads the log for the engine")
DISK_FREE = Gauge("ousel_disk_free_bytes", "Bytes left on the disk of a folder that is written to", ["folder"])
DISK_SIZE = Gauge("ousel_disk_size_bytes", "Bytes of the disk of a folder that is written to", ["folder"])

EVENTS_FOLDED = Counter("ousel_events_folded", "Events folded into the state")
ITEMS_FOLDED = Counter("ousel_items_folded", "Catalog records folded into the state")
RECORDS_POLLED = Counter("ousel_records_polled", "Records that the log has handed over", ["topic"])
RECORDS = Counter("ousel_records", "Records that were polled, by what became of them", ["topic", "outcome"])
DEAD_LETTERS = Counter("ousel_dead_letters", "Records set aside because they broke a rule", ["topic"])
DEAD_LETTERS_WRITTEN = Counter("ousel_dead_letters_written", "Dead letters that their topic has taken")
DEAD_LETTERS_REPEATED = Counter("ousel_dead_letters_repeated", "Dead letters that their topic had from an earlier run")
DEAD_LETTERS_PENDING = Gauge("ousel_dead_letters_pending", "Dead letters that are not written yet")
DEAD_LETTER_FAILURES = Counter("ousel_dead_letter_failures", "Times that the topic did not take a dead letter")
UNKNOWN_FIELDS = Counter(
    "ousel_unknown_fields", "Records that bear fields which nothing reads; each is also folded or set aside", ["topic"]
)
LAG = Gauge("ousel_lag_records", "Records in the log that are not folded yet", ["topic", "partition"])
STABLE_OFFSET = Gauge(
    "ousel_last_stable_offset",
    "One past the last offset that may be read; behind it, transactions are still open",
    ["topic", "partition"],
)
HELD = Gauge(
    "ousel_partition_held",
    "1 while a partition can't be read further, since a codec is missing or an answer is damaged",
    ["topic", "partition"],
)
READY = Gauge("ousel_ready", "1 once the engine has caught up with the log, and while the log answers")
WRITES_WAITING = Gauge("ousel_writes_waiting", "Events that wait for the log to acknowledge them")
WRITES_WAITING_BYTES = Gauge("ousel_writes_waiting_bytes", "Bytes of the events that wait for the log")
KAFKA_REACHABLE = Gauge(
    "ousel_kafka_reachable", "1 while a broker has answered the process that reads the log in the last 10 s"
)
LOG_AGE = Gauge("ousel_log_age_seconds", "Time since a broker last answered the process that reads the log")
TOPIC_PROBLEMS = Gauge("ousel_topic_problems", "Settings of topics that will lose data or keep engines from sharing")
CAUGHT_UP = Gauge("ousel_caught_up", "0 while the engine replays partitions that it has got, at its start or later")
STEP_SECONDS = Histogram("ousel_step_seconds", "Time of each stage of a step", ["stage"], buckets=_MS_BUCKETS)
STEP_FAILURES = Counter("ousel_step_failures", "Stages of a step that failed and were skipped", ["stage"])
FRESHNESS_SECONDS = Histogram(
    "ousel_freshness_seconds", "From an event's log record to the list that reflects it", buckets=_SERVED_BUCKETS
)
USERS = Gauge("ousel_users", "Users and anonymous sessions held in memory")
ITEMS = Gauge("ousel_items", "Items held in memory")
ITEMS_AVAILABLE = Gauge("ousel_items_available", "Items that may be recommended now")
ITEMS_WAITING = Gauge(
    "ousel_items_waiting", "Items that become available, or cease to be, at a later time that their record names"
)
USERS_LIMIT = Gauge("ousel_users_limit", "Users and anonymous sessions that the partitions read here may hold")
ITEMS_LIMIT = Gauge("ousel_items_limit", "Items that one partition may hold")
USERS_EVICTED = Counter("ousel_users_evicted", "Users and anonymous sessions forgotten because others came")
ITEMS_EVICTED = Counter("ousel_items_evicted", "Items forgotten by a partition because others came")
TARGETS = Gauge("ousel_targets", "Users and entities that relations lead to, held in memory")
TARGETS_LIMIT = Gauge("ousel_targets_limit", "Users and entities that relations of one partition may lead to")
CATALOG_EVICTED = Counter("ousel_catalog_evicted", "Catalog records forgotten because others came")
CATALOG_WANTED = Gauge("ousel_catalog_wanted", "Items named by events whose records a full catalog may have dropped")
CATALOG_RECALLED = Counter("ousel_catalog_recalled", "Catalog records brought back from the topic for these items")
TARGETS_EVICTED = Counter("ousel_targets_evicted", "Targets of relations forgotten by a partition because others came")
USERS_FORGOTTEN = Counter("ousel_users_forgotten", "Users and anonymous sessions forgotten because that was asked for")
DUPLICATES = Counter("ousel_events_duplicate", "Events that a producer has repeated, and that were folded once")
REDELIVERED = Counter("ousel_records_redelivered", "Records that the log has handed over again, and that were skipped")
PARTITIONS = Gauge("ousel_partitions", "Partitions of the events topic that are read here")
SNAPSHOT_SECONDS = Histogram(
    "ousel_snapshot_seconds",
    "Time to write a snapshot",
    buckets=(0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)
SNAPSHOT_TIME = Gauge("ousel_snapshot_timestamp_seconds", "When the newest snapshot was written, since 1970")
SNAPSHOT_FAILURES = Counter("ousel_snapshot_failures", "Snapshots that could not be written")
DIRTY_ROWS = Gauge("ousel_dirty_rows", "Embeddings waiting to be recomputed")
EMBEDDED_ROWS = Counter("ousel_embedded_rows", "Embeddings recomputed")
SESSIONS_CACHED = Gauge("ousel_sessions_cached", "Sessions whose keys and values are kept")
SESSIONS_EVICTED = Counter("ousel_sessions_evicted", "Sessions that gave their place in the cache to others")
SESSIONS_ENCODED = Counter("ousel_sessions_encoded", "Sessions asked of the cache, by what was computed", ["how"])
_SESSION_QUERIES = Counter("ousel_session_queries", "Queries of sessions asked for, by where they came from", ["how"])
QUERIES_KEPT, QUERIES_ENCODED = _SESSION_QUERIES.labels("kept"), _SESSION_QUERIES.labels("encoded")
MODEL_VERSION = Gauge("ousel_model_version", "Version of the serving model, 0 before the first")
MODEL_TIME = Gauge(
    "ousel_model_timestamp_seconds", "When the serving model was accepted, since 1970; 0 before the first"
)
MODEL_PUSHES = Counter("ousel_model_pushes", "Pushed models by outcome", ["outcome"])
MODEL_ROLL_BACKS = Counter("ousel_model_roll_backs", "Times that this engine was asked to take the serving model back")
MODEL_BUILDS = Counter(
    "ousel_model_builds", "Models that the registry names, by what this engine made of them", ["outcome"]
)
MODEL_BUILD_PROGRESS = Gauge("ousel_model_build_progress_ratio", "How far the build of a model is; 1 without one")
MODEL_REFUSED = Gauge("ousel_model_refused", "1 while this engine does not take the model that is to serve")
REGISTRY_PROBLEM = Gauge("ousel_registry_problem", "1 while this engine can't follow the registry of models")
SWAP_SECONDS = Histogram(
    "ousel_swap_seconds",
    "From the announcement of a model being read to this engine serving it",
    buckets=(0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0),
)
INDEX_SIZE = Gauge("ousel_index_items", "Items in the index")
INDEX_DELTA = Gauge("ousel_index_delta_items", "Items that are searched exactly until the next rebuild")
INDEX_REBUILDS = Counter("ousel_index_rebuilds", "Index graphs built and swapped in")
INDEX_REBUILD_FAILURES = Counter("ousel_index_rebuild_failures", "Rebuilds of the serving index that failed")
INDEX_REBUILD_SECONDS = Histogram(
    "ousel_index_rebuild_seconds",
    "Time to build a graph aside",
    buckets=(0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
INDEX_RECALL = Gauge("ousel_index_recall_ratio", "Recall@100 of the index graph, measured when it was built")
INDEX_LIVE_RECALL = Gauge("ousel_index_live_recall_ratio", "Recall@100 of the latest sampled searches; NaN before one")
INDEX_PROBES = Counter("ousel_index_probes", "Searches of the serving index that were compared with an exact one")
INDEX_UNREACHABLE = Gauge("ousel_index_unreachable_items", "Items that the graph did not find when it was built")
STREAMS = Gauge("ousel_streams", "Open recommendation streams")
STREAMS_STALE = Gauge("ousel_streams_stale", "Streams whose list waits to be made again because the catalog changed")
LISTS = Counter("ousel_lists", "Lists made, for calls and for streams, by what ordered them", ["origin"])
LISTS_EMPTY = Counter("ousel_lists_empty", "Lists made that hold no item")
LIVE_LISTS = Gauge("ousel_live_lists", "Lists of users and sessions that wait for the event that judges them")
LIVE_JUDGED = Counter("ousel_live_judged", "Lists judged by the next event of their user, by model", ["version"])
LIVE_HITS = Counter("ousel_live_hits", "Judged lists that held the item of that event", ["version"])
LIVE_RECIPROCAL_RANKS = Counter("ousel_live_reciprocal_ranks", "Sum of 1 over the place of that item", ["version"])
LIVE_COVERAGE = Gauge(
    "ousel_live_coverage_ratio", "Share of the available items that stood in lists of the last full hour", ["version"]
)
STREAMS_AGED = Counter("ousel_streams_aged", "Streams that were ended because they had been open for long enough")
LISTS_PUSHED = Counter("ousel_lists_pushed", "Lists pushed on streams", ["cause"])
LISTS_REPLACED = Counter("ousel_lists_replaced", "Lists that a newer one replaced before a slow reader took them")
CALLS = Counter("ousel_calls", "gRPC calls by method and status code", ["method", "code"])
CALLS_UNSEEN = Gauge(
    "ousel_calls_unseen", "gRPC calls that wait to be taken up, and those that gRPC cancelled before they were"
)
REQUEST_SECONDS = Histogram("ousel_request_seconds", "Latency of unary gRPC calls", ["method"], buckets=_SERVED_BUCKETS)
HEALTH_STREAMS_REFUSED = Counter(
    "ousel_health_streams_refused", "Streams of health and of reflection that were refused", ["method"]
)
METRICS_CONNECTIONS_REFUSED = Counter(
    "ousel_metrics_connections_refused", "Connections to the metrics port that were closed because too many were open"
)
CERTIFICATE_EXPIRY = Gauge(
    "ousel_certificate_expiry_timestamp_seconds", "When the certificate in force ends, since 1970; 0 without TLS"
)
CERTIFICATE_RELOAD_FAILURES = Counter(
    "ousel_certificate_reload_failures", "Times that changed files of tls could not be used, so the ones before stayed"
)
CALLS_SILENT = Gauge("ousel_calls_silent", "Calls and streams that have not brought their first message yet")
EXPORTS_WAITING = Gauge("ousel_exports_waiting", "Calls that wait for all that is held about a user")
QUERIES_WAITING = Gauge("ousel_queries_waiting", "Calls waiting for their list, and for no record")
CALLS_WAITING = Gauge("ousel_calls_waiting", "Calls waiting for a record that is not folded yet")
CALLS_WAITED = Counter("ousel_calls_waited", "Calls that asked to wait for a record, by how that ended", ["how"])
CALLS_REFUSED = Counter(
    "ousel_calls_refused",
    "Calls turned away before a servicer saw them, by the reason and the role that they need",
    ["reason", "role"],
)
CLIENTS = Gauge("ousel_clients", "Clients with limits that have a call open or had one lately")
TOKENS = Gauge("ousel_tokens", "Tokens that are in force")
TOKENS_FILE_PROBLEM = Gauge(
    "ousel_tokens_file_problem", "1 while the tokens file can't be used, so that the tokens of before stay in force"
)


class _Stages(dict[str, Histogram]):
    """The timer of each stage, kept: finding it by its label costs as much as using it."""

    def __missing__(self, stage: str) -> Histogram:
        self[stage] = found = STEP_SECONDS.labels(stage)
        return found


_stages = _Stages()


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Adds what a stage of a step takes to STEP_SECONDS."""
    began_s = time.perf_counter()
    try:
        yield
    finally:
        _stages[stage].observe(time.perf_counter() - began_s)
