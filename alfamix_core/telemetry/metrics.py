"""The catalogue of metrics: name, type, labels, meaning and source of each.

docs/metrics.md is generated from it, the exposition accepts no other metric, and a test checks rules and dashboards
against it.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter"]
Source = Literal["project", "trigger", "exporter"]

PREFIX = "alfamix_"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Name in Prometheus.
        kind: A gauge, or a counter, which only grows.
        help: Meaning and range of the values.
        labels: Labels besides ``project``, which all metrics except those of the exporter have.
        unit: Unit of the values; empty for a count or a state.
        source: "project" if the metric is derived from the project's files, served by the exporter, and published by
            finish; "trigger" or "exporter" if it is about that process.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    source: Source = "project"

    @property
    def all_labels(self) -> tuple[str, ...]:
        """All labels, ``project`` first."""
        return self.labels if self.source == "exporter" else ("project", *self.labels)


_ALL: dict[str, Metric] = {}


def _gauge(name: str, text: str, *labels: str, unit: str = "", source: Source = "project") -> Metric:
    return _add(Metric(PREFIX + name, "gauge", text, labels, unit, source))


def _counter(name: str, text: str, *labels: str, unit: str = "", source: Source = "project") -> Metric:
    return _add(Metric(PREFIX + name, "counter", text, labels, unit, source))


def _add(metric: Metric) -> Metric:
    if metric.name in _ALL:
        raise ValueError(f"{metric.name} is defined twice")
    _ALL[metric.name] = metric
    return metric


# rounds
ROUND_STATE = _gauge(
    "round_state",
    "1 for the state of the newest round, 0 for the other states: planned, failed, lost (planned, and no run works on "
    "it), exported, closed or abandoned",
    "state",
)
ROUND_NUMBER = _gauge("round_number", "Number of the newest round; 0 before the first")
ROUNDS = _counter("rounds_total", "Rounds exported", "strategy")
ROUND_LAST_START = _gauge(
    "round_last_start_timestamp_seconds", "Time at which the newest round was planned, in Unix time", unit="seconds"
)
ROUND_LAST_SUCCESS = _gauge(
    "round_last_success_timestamp_seconds", "Time at which a round was last exported, in Unix time", unit="seconds"
)
ROUND_LAST_DURATION = _gauge(
    "round_last_duration_seconds", "Time from plan to export of the last exported round", unit="seconds"
)
LOCK_HELD = _gauge("lock_held", "1 while a run holds the project's lock")
LOCK_EXPIRES = _gauge(
    "lock_expires_timestamp_seconds",
    "Time at which the lock expires, in Unix time; absent if it is free",
    unit="seconds",
)

# stages of the last exported round
STAGE_SECONDS = _gauge("stage_duration_seconds", "Time spent in a stage, summed over shards", "stage", unit="seconds")
STAGE_ROWS = _gauge("stage_rows", "Samples that a stage processed, summed over shards", "stage")
STAGE_RATE = _gauge("stage_rows_per_second", "Samples that a stage processed per second within a shard", "stage")
STAGE_READ = _gauge("stage_read_bytes", "Bytes of samples that a stage read", "stage", unit="bytes")
STAGE_MEMORY = _gauge("stage_peak_memory_bytes", "Peak resident memory of a stage's process", "stage", unit="bytes")
STAGE_GPU_SECONDS = _gauge(
    "stage_gpu_seconds", "Time spent in a stage that held GPUs, times their number", "stage", unit="seconds"
)
STAGE_GPU_MEMORY = _gauge(
    "stage_gpu_peak_memory_bytes", "Peak memory that a stage reserved on a GPU", "stage", unit="bytes"
)
STAGE_RETRIES = _gauge("stage_retries", "Attempts at a stage's shards beyond the first", "stage")

# data
SAMPLES = _gauge(
    "data_samples",
    "Samples by state: pool, queried, labelled, skipped, disputed, quarantined, withdrawn, reserve (for the "
    "audit) or held_out; split is train, val, test or audit for labelled samples, and empty for the others",
    "state",
    "split",
)
CLASS_LABELS = _gauge(
    "data_class_labels", "Labels by class in all splits, as of the last exported round; at most 100 classes", "class"
)
OLDEST_WAITING_DROP = _gauge(
    "data_oldest_waiting_drop_age_seconds",
    "Age of the oldest complete drop that no round has seen; 0 if there is none",
    unit="seconds",
)
WAITING_DROPS = _gauge("data_waiting_drops", "Complete drops that no round has seen")
SET_ASIDE = _gauge(
    "data_set_aside", "Inbox files, and single lines of manifests, that are set aside because they cannot be used"
)
VANISHED_LINES = _gauge(
    "data_vanished_lines",
    "Lines that were loaded and that their file, changed since, no longer holds; they still count",
)
DELETED_FILES = _gauge(
    "data_deleted_files", "Inbox files that were loaded and deleted since; their content still counts"
)
ROUND_QUARANTINED = _gauge(
    "round_quarantined_ratio", "Share of the last round's samples that could not be read, 0 to 1"
)
QUARANTINE_LIMIT = _gauge(
    "round_quarantine_limit_ratio", "limits.quarantine_share, the share beyond which a round fails, 0 to 1"
)

# queue
OPEN_QUERIES = _gauge("queue_open_queries", "Questions that are undecided and have not expired")
MAX_OPEN = _gauge(
    "queue_max_open_queries",
    "queue.max_open, the number of open questions beyond which no round starts; absent if there is no limit",
)
LAST_ANSWER = _gauge(
    "queue_last_answer_timestamp_seconds",
    "Time of the newest answer, or of the newest question if there is no answer yet, in Unix time",
    unit="seconds",
)
ANSWERS = _counter("queue_answers_total", "Answers that count, by kind: label, skip, cannot_label or withdraw", "kind")
ROUND_ANSWERED = _gauge(
    "queue_round_answered_ratio", "Share of the last exported round's questions that are decided, 0 to 1"
)
ANSWER_TIME = _gauge(
    "queue_answer_time_seconds",
    "Time from question to answer over the newest 1,000 label events: percentiles 50 and 90",
    "percentile",
    unit="seconds",
)
ANNOTATOR_AGREEMENT = _gauge(
    "queue_annotator_agreement_ratio",
    "Share of agreeing pairs among pairs of answers by two annotators to one sample, 0 to 1; absent if there are none",
)

# selection of the last exported round
BUDGET_QUERIES = _gauge("round_budget_queries", "budget, the number of questions that a round may ask")
QUERIES = _gauge("round_queries", "Questions that the last exported round asked")
QUERIES_TOTAL = _counter("queries_total", "Questions asked in all rounds")
CANDIDATES = _gauge(
    "selection_candidates", "Samples among which the strategy chose; absent if the strategy has no candidates"
)
CAP = _gauge("selection_cap_ratio", "Cap on the mixing ratio of ALFA-Mix at which there were enough candidates, 0 to 1")
FILLED = _gauge("selection_filled_ratio", "Share of the queries that are not among the strategy's candidates, 0 to 1")
SHORT_BY = _gauge("selection_short_by", "Number of queries by which the round fell short of the budget")

# model of the last exported round
MODEL_METRIC = _gauge(
    "model_metric",
    "Accuracy or macro_f1 of the newest model on the split test or audit, 0 to 1",
    "split",
    "metric",
)
MODEL_SAMPLES = _gauge("model_samples", "Samples over which the metrics of a split are computed", "split")
MODEL_RECALL = _gauge(
    "model_class_recall_ratio", "Recall of the newest model on test, 0 to 1; at most 100 classes", "class"
)
CALIBRATION = _gauge(
    "model_expected_calibration_error", "Expected calibration error of the newest model, 0 (perfect) to 1", "split"
)
GAIN = _gauge(
    "model_gain", "promotion.metric of the newest model minus that of the champion it was compared with, -1 to 1"
)
AGREEMENT = _gauge(
    "model_agreement_ratio", "Share of test samples on which the newest model and the champion agree, 0 to 1"
)
CHAMPION_ROUND = _gauge("champion_round", "Round of the champion; 0 if there is none")
CHAMPION_METRIC = _gauge("champion_metric", "Metric of the champion on test at its promotion, 0 to 1", "metric")
PROMOTIONS = _counter("model_promotions_total", "Models promoted by the gate of a round")

# drift of the last exported round
DRIFT = _gauge(
    "drift_embedding_distance_ratio",
    "Unbiased distance between the mean embeddings of the pool's newest drops (those since the previous round, or else "
    "the last ones) and of the labelled training samples, in units of the labelled samples' root mean square distance "
    "from their mean; 0 is no drift",
)
DRIFT_CLASSES = _gauge(
    "drift_predicted_classes_ratio",
    "Total variation distance between the shares of the classes predicted for the pool in this round and in the "
    "previous one, 0 to 1",
)

# cost
GPU_SECONDS = _counter("cost_gpu_seconds_total", "GPU time of all exported rounds", unit="seconds")
COMPUTE_SECONDS = _counter(
    "cost_stage_seconds_total", "Time spent in the stages of all exported rounds", unit="seconds"
)
LABELS = _gauge("cost_labels", "Labels from annotators that count")
LABELS_PER_POINT = _gauge(
    "cost_labels_per_point",
    "Training labels per 0.01 of promotion.metric gained between the first evaluated round and the newest; absent if "
    "nothing was gained",
)
BUDGET_USED = _gauge(
    "budget_used_ratio",
    "Share spent of a budget, 0 to 1: labels, rounds_per_day or labels_per_day; absent if the budget is not set",
    "budget",
)

# trigger
TRIGGER_EVENTS = _counter(
    "trigger_events_total", "Manifests and label batches noticed, by source: poll or sqs", "source", source="trigger"
)
TRIGGER_MESSAGES = _counter(
    "trigger_messages_total", "SQS messages read, by kind: relevant, elsewhere or malformed", "kind", source="trigger"
)
TRIGGER_CONSIDERED = _counter(
    "trigger_considered_total",
    "Times the project was asked whether a round is due, by decision: plan, resume, idle or busy",
    "decision",
    source="trigger",
)
TRIGGER_ERRORS = _counter(
    "trigger_errors_total",
    "Errors that the trigger survived, by source: the project's store or engine, or the messages",
    "source",
    source="trigger",
)
TRIGGER_STARTS = _counter("trigger_starts_total", "Runs started", source="trigger")
TRIGGER_PENDING = _gauge("trigger_pending", "1 while something new waits for a run", source="trigger")
TRIGGER_LAG = _gauge(
    "trigger_lag_seconds",
    "Time for which the oldest event has waited for a run; 0 if none waits",
    unit="seconds",
    source="trigger",
)
TRIGGER_LOOKED = _gauge(
    "trigger_last_look_timestamp_seconds",
    "Time at which the project was last listed, in Unix time",
    unit="seconds",
    source="trigger",
)
TRIGGER_STALE = _gauge(
    "trigger_stale_runs",
    "Runs that Kubeflow calls unfinished long after their time limit, and that are taken as over",
    source="trigger",
)
TRIGGER_ROUND = _gauge("trigger_last_started_round", "Round of the last run that was started", source="trigger")

# exporter
EXPORTER_UP = _gauge(
    "exporter_project_up",
    "1 if the last attempt to read the project succeeded, else 0",
    "project_uri",
    source="exporter",
)
EXPORTER_READ = _gauge(
    "exporter_last_read_timestamp_seconds",
    "Time at which the project was last read, in Unix time",
    "project_uri",
    unit="seconds",
    source="exporter",
)
EXPORTER_SECONDS = _gauge(
    "exporter_read_duration_seconds",
    "Duration of the last read of the project",
    "project_uri",
    unit="seconds",
    source="exporter",
)

ALL: tuple[Metric, ...] = tuple(_ALL.values())
