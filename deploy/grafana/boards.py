"""The dashboards: overview, engine, model, index and streams."""

from __future__ import annotations

from deploy.grafana.panel import Board, graph, stat
from engine.objectives import AVAILABILITY, FRESHNESS, LATENCY

_ENGINES = '{instance=~"$instance"}'
_RECOMMEND = 'instance=~"$instance",method="RecommenderService/Recommend"'


def _rate(metric: str, labels: str = "", window: str = "$__rate_interval") -> str:
    chosen = f'instance=~"$instance",{labels}' if labels else 'instance=~"$instance"'
    return f"rate({metric}{{{chosen}}}[{window}])"


def _quantile(quantile: float, histogram: str, by: str = "", labels: str = "") -> str:
    groups = f"le,{by}" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({groups}) ({_rate(f'{histogram}_bucket', labels)}))"


def _share(part: str, whole: str, by: str = "") -> str:
    groups = f" by ({by})" if by else ""
    return f"sum{groups} ({part}) / sum{groups} ({whole})"


OVERVIEW = Board(
    "ousel-overview", "Ousel: overview", "Whether apps get what they are promised, and where to look if not.",
    (
        ("Objectives", (
            stat("Engines ready", "none", "Engines that have caught up with the log and to which brokers answer.",
                 f"sum(ousel_ready{_ENGINES})"),
            stat("Alerts", "none", "Alerts of Ousel that fire now.",
                 'count(ALERTS{alertname=~"Ousel.*",alertstate="firing"}) or vector(0)'),
            stat("Calls answered, 1 h", "percentunit",
                 f"Calls that did not fail by the engine's own fault; the objective is {AVAILABILITY:.1%}.",
                 "1 - (" + _share(_rate("ousel_calls_total", 'code=~"INTERNAL|UNAVAILABLE|UNKNOWN"', "1h"),
                                  _rate("ousel_calls_total", "", "1h")) + " or vector(0))"),
            stat("Model", "none", "Version of the newest serving model.", f"max(ousel_model_version{_ENGINES})"),
        )),
        ("What users see", (
            graph("Lists within the objective of freshness", "percentunit",
                  f"Share of the lists that came within {FRESHNESS.within_s:g} s of their event; the objective is"
                  f" {FRESHNESS.share:.0%}.",
                  ("lists", _share(_rate("ousel_freshness_seconds_bucket", f'le="{FRESHNESS.within_s}"'),
                                   _rate("ousel_freshness_seconds_count"))),
                  least=FRESHNESS.share),
            graph("Calls within the objective of latency", "percentunit",
                  f"Share of the calls of Recommend that took at most {LATENCY.within_s:g} s; the objective is"
                  f" {LATENCY.share:.0%}.",
                  ("calls", f'sum (rate(ousel_request_seconds_bucket{{{_RECOMMEND},le="{LATENCY.within_s}"}}'
                            f"[$__rate_interval])) / sum (rate(ousel_request_seconds_count{{{_RECOMMEND}}}"
                            "[$__rate_interval]))"), least=LATENCY.share),
            graph("Freshness", "s", "From an event's log record to the list that reflects it.",
                  ("p50", _quantile(0.5, "ousel_freshness_seconds")),
                  ("p99", _quantile(0.99, "ousel_freshness_seconds"))),
            graph("Latency of Recommend", "s", "As the server sees it.",
                  ("p50", _quantile(0.5, "ousel_request_seconds", labels='method="RecommenderService/Recommend"')),
                  ("p99", _quantile(0.99, "ousel_request_seconds", labels='method="RecommenderService/Recommend"'))),
        )),
        ("Traffic", (
            graph("Calls", "reqps", "By method and status code; a stream counts when it ends.",
                  ("{{method}} {{code}}", f"sum by (method, code) ({_rate('ousel_calls_total')})")),
            graph("Events folded", "cps", "What the engines read of the log and fold into their state.",
                  ("{{instance}}", f"sum by (instance) ({_rate('ousel_events_folded_total')})")),
            graph("Lag", "none", "Records in the log that are not folded yet.",
                  ("{{instance}}", f"sum by (instance) (ousel_lag_records{_ENGINES})")),
            graph("Records set aside", "cps", "Records that broke a rule, by topic.",
                  ("{{topic}}", f"sum by (topic) ({_rate('ousel_dead_letters_total')})")),
        )),
    ),
)  # fmt: skip

ENGINE = Board(
    "ousel-engine", "Ousel: engine", "Where an engine's time and memory go, and how far it has read.",
    (
        ("Steps", (
            graph("Time of each stage", "percentunit", "Share of one core that each stage of a step takes.",
                  ("{{stage}}", f"sum by (stage) ({_rate('ousel_step_seconds_sum')})")),
            graph("Longest stages", "s", "99th percentile of each stage.",
                  ("{{stage}}", _quantile(0.99, "ousel_step_seconds", "stage"))),
            graph("Backlog of embeddings", "none", "Users and items that wait to be recomputed.",
                  ("{{instance}}", f"ousel_dirty_rows{_ENGINES}")),
            graph("Stages that failed", "cps", "Must stay 0: each is a bug.",
                  ("{{stage}}", f"sum by (stage) ({_rate('ousel_step_failures_total')})")),
        )),
        ("The log", (
            graph("Lag by partition", "none", "One partition alone: a hot key.",
                  ("{{topic}} {{partition}}", f"sum by (topic, partition) (ousel_lag_records{_ENGINES})")),
            graph("Records by what became of them", "cps", "Every record that was polled is one of these.",
                  ("{{topic}} {{outcome}}", f"sum by (topic, outcome) ({_rate('ousel_records_total')})")),
            graph("Time since a broker answered", "s", "Lists are as old as this, whatever the lag says.",
                  ("{{instance}}", f"ousel_log_age_seconds{_ENGINES}")),
            graph("Ready and caught up", "none", "1 where it is; health says the first.",
                  ("ready {{instance}}", f"ousel_ready{_ENGINES}"),
                  ("caught up {{instance}}", f"ousel_caught_up{_ENGINES}")),
        )),
        ("Memory and state", (
            graph("Memory", "bytes", "Resident memory of the engine and of its reader, and what both may take.",
                  ("engine {{instance}}", 'process_resident_memory_bytes{instance=~"$instance"}'),
                  ("reader {{instance}}", f"ousel_reader_memory_bytes{_ENGINES}"),
                  ("limit {{instance}}", f"ousel_memory_limit_bytes{_ENGINES}")),
            graph("Processor", "percentunit", "Of one core, the reading process not included.",
                  ("{{instance}}", _rate("process_cpu_seconds_total"))),
            graph("Users and items", "none", "Held in memory, with their limits.",
                  ("users", f"sum(ousel_users{_ENGINES})"), ("users at most", f"sum(ousel_users_limit{_ENGINES})"),
                  ("items", f"max(ousel_items{_ENGINES})"), ("items at most", f"max(ousel_items_limit{_ENGINES})")),
            graph("Evicted", "cps", "What made room for others.",
                  ("users", f"sum({_rate('ousel_users_evicted_total')})"),
                  ("items", f"sum({_rate('ousel_items_evicted_total')})"),
                  ("catalog records", f"sum({_rate('ousel_catalog_evicted_total')})")),
        )),
        ("Snapshots", (
            graph("Age of the newest snapshot", "s", "What a restart must read of the log again.",
                  ("{{instance}}", f"time() - (ousel_snapshot_timestamp_seconds{_ENGINES} > 0)")),
            graph("Time to write one", "s", "After it was copied; median and 99th percentile.",
                  ("p50", _quantile(0.5, "ousel_snapshot_seconds")),
                  ("p99", _quantile(0.99, "ousel_snapshot_seconds"))),
            graph("Snapshots that failed", "cps", "The one before still counts.",
                  ("{{instance}}", _rate("ousel_snapshot_failures_total"))),
            graph("Disk that is left", "percentunit", "Of the disk that snapshots are written to.",
                  ("{{folder}} {{instance}}",
                   f"ousel_disk_free_bytes{_ENGINES} / ousel_disk_size_bytes{_ENGINES}"), least=0.1),
        )),
    ),
)  # fmt: skip

_JUDGED = "sum by (version) (" + _rate("ousel_live_judged_total") + ")"
MODEL = Board(
    "ousel-model", "Ousel: model", "Which model serves, what users make of its lists, and what the trainer does.",
    (
        ("Versions", (
            graph("Serving version", "none", "It falls at a roll back.",
                  ("{{instance}}", f"ousel_model_version{_ENGINES}")),
            graph("Age of the model", "s", "Since it was built here.",
                  ("{{instance}}", f"time() - (ousel_model_timestamp_seconds{_ENGINES} > 0)")),
            graph("Pushes", "none", "In the last hour, by outcome.",
                  ("{{outcome}}", 'sum by (outcome) (increase(ousel_model_pushes_total{instance=~"$instance"}[1h]))')),
            graph("Time to swap", "s", "From the last chunk of a push to the new model serving, in the last hour.",
                  ("mean", 'sum(increase(ousel_swap_seconds_sum{instance=~"$instance"}[1h]))'
                           ' / sum(increase(ousel_swap_seconds_count{instance=~"$instance"}[1h]))')),
        )),
        ("Live quality of the lists that were sent", (
            graph("Hit rate", "percentunit", "Of the lists that the next event has judged; version 0: no model.",
                  ("version {{version}}", f"sum by (version) ({_rate('ousel_live_hits_total')}) / {_JUDGED}")),
            graph("Mean reciprocal rank", "none", "1 where the item always comes first.",
                  ("version {{version}}",
                   f"sum by (version) ({_rate('ousel_live_reciprocal_ranks_total')}) / {_JUDGED}")),
            graph("Coverage", "percentunit", "Share of the available items that lists of the last full hour held.",
                  ("version {{version}}", f"max by (version) (ousel_live_coverage_ratio{_ENGINES})")),
            graph("Lists judged", "cps", "The figures beside this one rest on so many.",
                  ("version {{version}}", _JUDGED)),
        )),
        ("Lists", (
            graph("Lists by what ordered them", "cps", "Where a model serves, popularity is for users nobody knows.",
                  ("{{origin}}", f"sum by (origin) ({_rate('ousel_lists_total')})")),
            graph("Empty lists", "cps", "Should be none.", ("{{instance}}", _rate("ousel_lists_empty_total"))),
        )),
        ("Trainer", (
            graph("Training", "none", "1 while a training runs.", ("{{instance}}", "ousel_trainer_training")),
            graph("Models judged", "none", "In the last hour, by the gate's verdict.",
                  ("{{outcome}}", "sum by (outcome) (increase(ousel_trainer_models_total[1h]))")),
            graph("Figures of the newest model", "none", "On the newest part of the log, as the training judged it.",
                  ("{{name}}", 'ousel_trainer_model_figure{name=~".*(ndcg|hit_rate).*"}')),
            graph("Records not read yet", "none", "None are read during a training.",
                  ("{{instance}}", "ousel_trainer_lag_records")),
        )),
    ),
)  # fmt: skip

INDEX = Board(
    "ousel-index", "Ousel: index", "Whether searches find what they should, and what keeping the index costs.",
    (
        ("Recall", (
            graph("Recall@100 of searches", "percentunit", "Of the latest sampled searches, beside an exact one.",
                  ("{{instance}}", f"ousel_index_live_recall_ratio{_ENGINES}"), least=0.99),
            graph("Recall@100 of the graph", "percentunit", "Measured when it was built.",
                  ("{{instance}}", f"ousel_index_recall_ratio{_ENGINES}"), least=0.99),
            graph("Items that the graph does not find", "none", "They are searched exactly.",
                  ("{{instance}}", f"ousel_index_unreachable_items{_ENGINES}")),
            graph("Searches compared", "cps", "With an exact one.",
                  ("{{instance}}", _rate("ousel_index_probes_total"))),
        )),
        ("Size and rebuilds", (
            graph("Items", "none", "In the index, and those that may be recommended now.",
                  ("index {{instance}}", f"ousel_index_items{_ENGINES}"),
                  ("available {{instance}}", f"ousel_items_available{_ENGINES}")),
            graph("Items searched exactly", "none", "New, or moved since the graph was built.",
                  ("{{instance}}", f"ousel_index_delta_items{_ENGINES}")),
            graph("Rebuilds", "none", "In the last hour, and those that failed.",
                  ("built", 'sum(increase(ousel_index_rebuilds_total{instance=~"$instance"}[1h]))'),
                  ("failed", 'sum(increase(ousel_index_rebuild_failures_total{instance=~"$instance"}[1h]))')),
            graph("Embeddings recomputed", "cps", "How far events spread through the graph.",
                  ("{{instance}}", _rate("ousel_embedded_rows_total"))),
        )),
    ),
)  # fmt: skip

STREAMS = Board(
    "ousel-streams", "Ousel: streams", "Streams and calls: how many, how they are served, and who is refused.",
    (
        ("Streams", (
            graph("Open streams", "none", "That have subscribed, and those that have not said a word yet.",
                  ("open {{instance}}", f"ousel_streams{_ENGINES}"),
                  ("silent {{instance}}", f"ousel_calls_silent{_ENGINES}")),
            graph("Lists pushed", "cps", "By the most urgent cause.",
                  ("{{cause}}", f"sum by (cause) ({_rate('ousel_lists_pushed_total')})")),
            graph("Lists replaced", "cps", "By a newer one before a slow reader took them.",
                  ("{{instance}}", _rate("ousel_lists_replaced_total"))),
            graph("Streams to be refreshed", "none", "Their lists wait because the catalog changed.",
                  ("{{instance}}", f"ousel_streams_stale{_ENGINES}")),
        )),
        ("Calls", (
            graph("Latency by method", "s", "99th percentile of unary calls.",
                  ("{{method}}", _quantile(0.99, "ousel_request_seconds", "method"))),
            graph("Calls that wait", "none", "For their list, for a record that is not folded yet, for an export.",
                  ("for a list", f"sum(ousel_queries_waiting{_ENGINES})"),
                  ("for a record", f"sum(ousel_calls_waiting{_ENGINES})"),
                  ("for an export", f"sum(ousel_exports_waiting{_ENGINES})")),
            graph("Calls refused or failed", "reqps", "By status code.",
                  ("{{code}}", "sum by (code) (" + _rate("ousel_calls_total", 'code!~"OK|CANCELLED"') + ")")),
            graph("Writes that wait for the log", "none", "Events that Track has sent and Kafka has not acknowledged.",
                  ("{{instance}}", f"ousel_writes_waiting{_ENGINES}")),
        )),
    ),
)  # fmt: skip

BOARDS = (OVERVIEW, ENGINE, MODEL, INDEX, STREAMS)
