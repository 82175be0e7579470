"""Every metric, once: its name, type, labels and meaning, and who sets it.

docs/metrics.md is made from it, the exposition knows no other, and a test holds rules and dashboards to it.
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
        name: as Prometheus shows it.
        kind: a gauge, or a counter, which only grows.
        help: what it says, with its range.
        labels: beside ``project``, which every metric but those of the exporter has.
        unit: of its values; empty for a count or a state.
        source: "project": derived from the project's files, served by the exporter, and pushed by export and finish;
            "trigger" and "exporter": of that process alone.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    source: Source = "project"

    @property
    def all_labels(self) -> tuple[str, ...]:
        """Its labels, ``project`` first."""
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
    "1 for the state of the newest round, 0 for the others: planned, failed, lost (planned, and no run works on it), "
    "exported, closed or abandoned",
    "state",
)
ROUND_NUMBER = _gauge("round_number", "The newest round; 0 before the first")
ROUNDS = _counter("rounds_total", "Rounds that were exported", "strategy")
ROUND_LAST_START = _gauge(
    "round_last_start_timestamp_seconds", "When the newest round was planned, in Unix time", unit="seconds"
)
ROUND_LAST_SUCCESS = _gauge(
    "round_last_success_timestamp_seconds", "When a round was last exported, in Unix time", unit="seconds"
)
ROUND_LAST_DURATION = _gauge(
    "round_last_duration_seconds", "From the plan to the export of the last exported round", unit="seconds"
)
LOCK_HELD = _gauge("lock_held", "1 while a run holds the project's lock")
LOCK_EXPIRES = _gauge(
    "lock_expires_timestamp_seconds",
    "Until when the lock is held, in Unix time; absent when it is free",
    unit="seconds",
)

# stages, of the last exported round
STAGE_SECONDS = _gauge("stage_duration_seconds", "Time in a stage, shards summed", "stage", unit="seconds")
STAGE_ROWS = _gauge("stage_rows", "Samples that a stage worked on, shards summed", "stage")
STAGE_RATE = _gauge("stage_rows_per_second", "Samples a second of a stage, within a shard", "stage")
STAGE_READ = _gauge("stage_read_bytes", "Bytes of samples that a stage read", "stage", unit="bytes")
STAGE_MEMORY = _gauge("stage_peak_memory_bytes", "Largest resident memory of a stage's process", "stage", unit="bytes")
STAGE_GPU_SECONDS = _gauge(
    "stage_gpu_seconds", "Time in a stage that held a GPU, times its GPUs", "stage", unit="seconds"
)
STAGE_GPU_MEMORY = _gauge(
    "stage_gpu_peak_memory_bytes", "Largest memory reserved on a GPU by a stage", "stage", unit="bytes"
)
STAGE_RETRIES = _gauge("stage_retries", "Attempts of a stage's shards beyond the first", "stage")

# data
SAMPLES = _gauge(
    "data_samples",
    "Samples by state: pool, queried, labelled, skipped, disputed, quarantined, withdrawn or held_out; labelled ones "
    "by split (train, val, test, audit), the others with an empty split",
    "state",
    "split",
)
CLASS_LABELS = _gauge(
    "data_class_labels", "Labels of each class in every split, of the last exported round; at most 100 classes", "class"
)
OLDEST_WAITING_DROP = _gauge(
    "data_oldest_waiting_drop_age_seconds",
    "Age of the oldest complete drop that no round has seen; 0 for none",
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
    "data_deleted_files", "Inbox files that were loaded and deleted since; what they said still counts"
)
ROUND_QUARANTINED = _gauge(
    "round_quarantined_ratio", "Share of the last round's samples that could not be read, 0 to 1"
)
QUARANTINE_LIMIT = _gauge("round_quarantine_limit_ratio", "limits.quarantine_share: beyond it a round fails, 0 to 1")

# queue
OPEN_QUERIES = _gauge("queue_open_queries", "Questions without a decision that have not expired")
MAX_OPEN = _gauge("queue_max_open_queries", "queue.max_open: with more open questions no round starts; absent for none")
LAST_ANSWER = _gauge(
    "queue_last_answer_timestamp_seconds",
    "When the newest answer was given, or the newest question asked if nobody has answered, in Unix time",
    unit="seconds",
)
ANSWERS = _counter("queue_answers_total", "Answers that count, by kind: label, skip, cannot_label or withdraw", "kind")
ROUND_ANSWERED = _gauge("queue_round_answered_ratio", "Share of the last exported round's questions decided, 0 to 1")
ANSWER_TIME = _gauge(
    "queue_answer_time_seconds",
    "From question to answer, among the newest 1,000 label events: percentile 50 and 90",
    "percentile",
    unit="seconds",
)
ANNOTATOR_AGREEMENT = _gauge(
    "queue_annotator_agreement_ratio",
    "Share of pairs of answers by two annotators to one sample that agree, 0 to 1; absent without such a pair",
)

# selection, of the last exported round
BUDGET_QUERIES = _gauge("round_budget_queries", "budget.per_round: questions that a round may ask")
QUERIES = _gauge("round_queries", "Questions that the last exported round asked")
QUERIES_TOTAL = _counter("queries_total", "Questions asked in all rounds")
CANDIDATES = _gauge("selection_candidates", "Samples that the strategy chose among; absent where it has no such set")
CAP = _gauge(
    "selection_cap_ratio", "ALFA-Mix: the cap on the mixing ratio at which there were enough candidates, 0 to 1"
)
FILLED = _gauge("selection_filled_ratio", "Share of the queries beyond the strategy's candidates, 0 to 1")
SHORT_BY = _gauge("selection_short_by", "Queries fewer than the budget")

# model, of the last exported round
MODEL_METRIC = _gauge(
    "model_metric",
    "A metric of the newest model: accuracy or macro_f1, 0 to 1, on the split test or audit",
    "split",
    "metric",
)
MODEL_SAMPLES = _gauge("model_samples", "Samples behind the metrics of a split", "split")
MODEL_RECALL = _gauge(
    "model_class_recall_ratio", "Recall of the newest model on test, 0 to 1; at most 100 classes", "class"
)
CALIBRATION = _gauge(
    "model_expected_calibration_error", "Expected calibration error of the newest model, 0 is perfect, to 1", "split"
)
GAIN = _gauge(
    "model_gain", "promotion.metric of the newest model less that of the champion it was compared with, -1 to 1"
)
AGREEMENT = _gauge("model_agreement_ratio", "Share of test samples on which newest model and champion agree, 0 to 1")
CHAMPION_ROUND = _gauge("champion_round", "The round whose model serves; 0 for none")
CHAMPION_METRIC = _gauge("champion_metric", "A metric of the champion on test when it was promoted, 0 to 1", "metric")
PROMOTIONS = _counter("model_promotions_total", "Models promoted by a round's gate")

# drift, of the last exported round
DRIFT = _gauge(
    "drift_embedding_distance_ratio",
    "Distance of the mean embedding of the pool's newest drops (those that came since the round before; until others "
    "come, of the last that came) from that of the labelled training samples, unbiased, in units of the labelled "
    "samples' root mean square distance from their mean; 0 is none",
)
DRIFT_CLASSES = _gauge(
    "drift_predicted_classes_ratio",
    "Total variation distance between the shares of the classes predicted for the pool in this round and in the one "
    "before, 0 to 1",
)

# cost
GPU_SECONDS = _counter("cost_gpu_seconds_total", "GPU time of all exported rounds", unit="seconds")
COMPUTE_SECONDS = _counter("cost_stage_seconds_total", "Time in stages of all exported rounds", unit="seconds")
LABELS = _gauge("cost_labels", "Labels that annotators have given and that count")
LABELS_PER_POINT = _gauge(
    "cost_labels_per_point",
    "Training labels for each 0.01 of promotion.metric between the first measured round and the newest; absent unless "
    "something was gained",
)
BUDGET_USED = _gauge(
    "budget_used_ratio",
    "Share spent of a budget that is set, 0 to 1: labels, rounds_per_day or labels_per_day",
    "budget",
)

# of the trigger
TRIGGER_EVENTS = _counter(
    "trigger_events_total", "Manifests and label batches noticed, by poll or sqs", "source", source="trigger"
)
TRIGGER_MESSAGES = _counter(
    "trigger_messages_total", "SQS messages read: relevant, elsewhere or malformed", "kind", source="trigger"
)
TRIGGER_CONSIDERED = _counter(
    "trigger_considered_total",
    "Times the project was asked whether a round is due: plan, resume, idle or busy",
    "decision",
    source="trigger",
)
TRIGGER_ERRORS = _counter(
    "trigger_errors_total",
    "Errors after which it went on: of the project's store or engine, or of the messages",
    "source",
    source="trigger",
)
TRIGGER_STARTS = _counter("trigger_starts_total", "Runs started", source="trigger")
TRIGGER_PENDING = _gauge("trigger_pending", "1 while something new waits for a run", source="trigger")
TRIGGER_LAG = _gauge(
    "trigger_lag_seconds",
    "For how long the oldest news has waited for a run; 0 when none waits",
    unit="seconds",
    source="trigger",
)
TRIGGER_LOOKED = _gauge(
    "trigger_last_look_timestamp_seconds",
    "When the project was last listed, in Unix time",
    unit="seconds",
    source="trigger",
)
TRIGGER_ROUND = _gauge("trigger_last_started_round", "The round of the run started last", source="trigger")

# of the exporter
EXPORTER_UP = _gauge(
    "exporter_project_up", "1 if the project could be read at the last try", "project_uri", source="exporter"
)
EXPORTER_READ = _gauge(
    "exporter_last_read_timestamp_seconds",
    "When the project was last read, in Unix time",
    "project_uri",
    unit="seconds",
    source="exporter",
)
EXPORTER_SECONDS = _gauge(
    "exporter_read_duration_seconds",
    "Time of the last reading of the project",
    "project_uri",
    unit="seconds",
    source="exporter",
)

ALL: tuple[Metric, ...] = tuple(_ALL.values())
