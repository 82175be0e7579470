"""rounds/<n>/round.json, and the names of rounds."""

from typing import Literal

from pydantic import AwareDatetime, Field

from alfamix_core.records.champion import Champion
from alfamix_core.records.project import Project
from alfamix_core.records.record import Record

State = Literal["planned", "failed", "exported", "closed", "abandoned"]
ObjectName = Literal["queries", "questions", "quarantine", "evaluation", "report"]
"""Names of what a round produces; quarantine is there only if a sample could not be read."""


class Counts(Record):
    """Numbers of samples by what is known of them, when the round was planned."""

    samples: int = Field(0, description="samples of all drops")
    pool: int = Field(0, description="samples that may be asked about")
    queried: int = Field(0, description="samples with an open question")
    train: int = Field(0, description="labelled samples of the train split")
    val: int = Field(0, description="labelled samples of the val split")
    test: int = Field(0, description="labelled samples of the test split")
    audit: int = Field(0, description="labelled samples of the audit split")
    skipped: int = Field(0, description="samples that annotators skipped or could not label")
    disputed: int = Field(0, description="samples on which annotators do not agree")
    quarantined: int = Field(0, description="samples that could not be read")
    withdrawn: int = Field(0, description="samples that must not be used any more")
    reserve: int = Field(
        0, description="samples of the audit reserve without a label: a round asks about audit.per_round"
    )
    held_out: int = Field(0, description="val and test samples without a label: never asked about")

    @property
    def labelled(self) -> int:
        """Labelled samples of every split."""
        return self.train + self.val + self.test + self.audit


class StageMeasures(Record):
    """What a stage takes."""

    seconds: float = Field(ge=0, description="duration, in seconds")
    rows: int = Field(0, ge=0, description="samples processed")
    bytes_read: int = Field(0, ge=0, description="bytes of samples read")
    peak_memory_bytes: int = Field(0, ge=0, description="peak resident memory of a process")
    gpu_seconds: float = Field(0.0, ge=0, description="seconds times the number of GPUs held")
    gpu_peak_memory_bytes: int = Field(0, ge=0, description="peak memory reserved on one GPU")


class StageTotal(StageMeasures):
    """Totals of a stage in a round: the sum over its shards, and the largest memory of any."""

    retries: int = Field(0, ge=0, description="attempts after each shard's first")


class Totals(Record):
    """Sums over all exported rounds, this one included, so that no reader needs all of them."""

    rounds: dict[str, int] = Field(default_factory=dict, description="exported rounds, by strategy")
    queries: int = Field(0, ge=0, description="questions asked")
    gpu_seconds: float = Field(0.0, ge=0, description="seconds times the number of GPUs held")
    stage_seconds: float = Field(0.0, ge=0, description="seconds of all stages and shards")
    promotions: int = Field(0, ge=0, description="rounds whose model passed the gate")
    first_metrics: dict[str, float] = Field(
        default_factory=dict, description="metrics of the first model that was measured"
    )
    first_train_labels: int = Field(0, ge=0, description="train labels of that model")


class Drift(Record):
    """Distance of new samples from labelled ones."""

    embedding_distance: float | None = Field(
        None,
        ge=0,
        description="distance of the last new drop, see the metric of that name; None: no labels, or no drop of two "
        "samples yet",
    )
    predicted_shares: dict[str, float] = Field(
        default_factory=dict, description="shares of the pool, by predicted class"
    )
    class_shift: float | None = Field(
        None, ge=0, le=1, description="total variation distance to the shares of the previous exported round"
    )


class Outcome(Record):
    """Result of the round; written by export."""

    queries: int = Field(description="number of questions asked")
    short_by: int = Field(0, description="number of queries missing from the budget")
    reason: str = Field("", description="human-readable reason for missing queries; empty when none are missing")
    strategy: str = Field(description="strategy that chose: the project's, or its cold start")
    summary: dict[str, float | int | str] = Field(default_factory=dict, description="the strategy's own summary")
    metrics: dict[str, float] = Field(
        default_factory=dict, description="metrics of the round's model on the test split"
    )
    audit: dict[str, float] = Field(default_factory=dict, description="metrics of the same model on the audit split")
    agreement: float | None = Field(
        None, ge=0, le=1, description="share of the test samples for which the earlier champion predicts the same"
    )
    promoted: bool = Field(False, description="whether the round's model passed the gate")
    quarantined: int = Field(0, description="samples that could not be read in this round")
    labels: dict[str, int] = Field(
        default_factory=dict, description="labelled samples of all splits, by class, when it was planned"
    )
    stages: dict[str, StageTotal] = Field(default_factory=dict, description="totals by stage")
    totals: Totals | None = Field(None, description="sums over the project up to this round")
    drift: Drift | None = Field(None, description="distance of new samples from labelled ones")
    exported_at: AwareDatetime = Field(description="moment of the export")


class Promotion(Record):
    """What a round's evaluation proposes about its model; the swap of round.json to exported makes it count."""

    promoted: bool = Field(description="whether the model passed the gate")
    reason: str = Field(description="human-readable reason, with the numbers")
    model: str = Field("", description="digest of the round's model; empty if it is untrained")
    encoder: str = Field("", description="identity of the model's frozen encoder; empty if its encoder is trained")
    metrics: dict[str, float] = Field(description="metrics of the round's model on the test split")
    champion_round: int | None = Field(None, description="round whose model it was compared with")
    champion_metrics: dict[str, float] = Field(
        default_factory=dict, description="metrics of that model on the same samples"
    )
    recalls: dict[str, float] = Field(
        default_factory=dict, description="recalls of the round's model, by class, if limited"
    )
    champion_recalls: dict[str, float] = Field(
        default_factory=dict, description="recalls of the champion on the same samples"
    )
    split: Literal["test", "audit"] = Field("test", description="split on which the two were compared")
    waits: bool = Field(False, description="whether nothing could be compared, so that `alfamix promote` decides")


class Round(Record):
    """rounds/<n>/round.json: the round's state; each swap of it raises the revision."""

    number: int = Field(ge=1, description="number of the round, from 1")
    revision: int = Field(ge=1, description="number raised by each swap, so that equal bytes never return")
    fence: int = Field(ge=1, description="fence of the lock under which it was last written")
    run_id: str = Field(description="run that works on it, or last did")
    state: State = Field(description="state of the round")
    reason: str = Field("", description="one line on why it failed or was abandoned")
    planned_at: AwareDatetime = Field(description="moment at which the round was planned")
    seed: int = Field(description="seed of this round's randomness, made of the project's seed and the number")
    versions: dict[str, int] = Field(description="versions of the ledger's tables that it reads, by name")
    ledger: str = Field("", description="identity of the ledger with these versions; a ledger made again has another")
    settings: Project = Field(description="settings when the round was planned")
    champion: Champion = Field(description="champion when the round was planned: a warm start begins with it")
    counts: Counts = Field(description="numbers of samples when the round was planned")
    shards: int = Field(ge=1, le=256, description="number of shards of the pool")
    digest: str = Field(description="digest of everything that decides the snapshot")
    fresh: int = Field(0, ge=0, description="number of times that everything was computed again, whatever was cached")
    objects: dict[ObjectName, str] = Field(default_factory=dict, description="SHA-256 of its objects, by name")
    model: str = Field("", description="digest of its trained model; empty before training, and for an untrained one")
    promotion: Promotion | None = Field(None, description="proposal of the evaluation; None before the export")
    outcome: Outcome | None = Field(None, description="result of the round; None before the export")

    @property
    def key(self) -> str:
        """Name that ``ingest`` hands to the later stages, such as ``000012-4be81f0c22aa``; -1 … with each ``fresh``."""
        return f"{folder(self.number)}-{self.digest[:12]}{f'-{self.fresh}' if self.fresh else ''}"

    @property
    def is_unfinished(self) -> bool:
        """Whether a run works on it, or has yet to."""
        return self.state in ("planned", "failed")

    @property
    def is_committed(self) -> bool:
        """Whether its questions are asked and its quarantine counts."""
        return self.state in ("exported", "closed")


class ManualDecision(Record):
    """decisions/<revision>.json: a person chose the champion; written once, before it is applied."""

    revision: int = Field(ge=1, description="revision of champion.json with which it is applied")
    kind: Literal["promote", "rollback"] = Field(description="command by which the person chose")
    round: int = Field(ge=1, description="round whose model is to serve")
    model: str = Field(description="digest of that model")
    reason: str = Field("", description="reason in the person's words")
    metrics: dict[str, float] = Field(
        default_factory=dict, description="metrics of that model, if its round measured it"
    )
    champion_round: int | None = Field(None, description="round whose model served until then")
    champion_metrics: dict[str, float] = Field(default_factory=dict, description="metrics of the earlier champion")
    time: AwareDatetime = Field(description="moment of the choice")


class Failure(Record):
    """rounds/<n>/run/failures/<stage>-<shard>.json: the line with which a stage stopped."""

    stage: str = Field(description="stage that stopped")
    shard: str = Field("", description="shard of the stage; empty if it has none")
    run_id: str = Field(description="id of the run")
    status: int = Field(description="exit status: 2 for wrong input, 3 for storage or network")
    line: str = Field(description="message for the user")


def folder(number: int) -> str:
    """Return a round's name in keys: six digits."""
    return f"{number:06d}"


def number_of(key: str) -> int:
    """Return the round of a key such as ``000012-4be81f0c22aa``."""
    return int(key.split("-", 1)[0])
