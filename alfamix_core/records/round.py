"""rounds/<n>/round.json, and how rounds are named."""

from typing import Literal

from pydantic import AwareDatetime, Field

from alfamix_core.records.champion import Champion
from alfamix_core.records.project import Project
from alfamix_core.records.record import Record

State = Literal["planned", "failed", "exported", "closed", "abandoned"]
ObjectName = Literal["queries", "questions", "quarantine", "evaluation", "report"]
"""Names of what a round produces; quarantine is there only if a sample could not be read."""


class Counts(Record):
    """The samples of the project, by what is known of them, when the round was planned."""

    samples: int = 0
    pool: int = 0
    queried: int = 0
    train: int = 0
    val: int = 0
    test: int = 0
    audit: int = 0
    skipped: int = 0
    disputed: int = 0
    quarantined: int = 0
    withdrawn: int = Field(0, description="must not be used any more")
    held_out: int = Field(0, description="of val or test and without a label: never asked, counted when one comes")

    @property
    def labelled(self) -> int:
        """Labels of every split."""
        return self.train + self.val + self.test + self.audit


class StageTotal(Record):
    """What a stage came to in a round, shards summed; of memory the largest."""

    seconds: float = Field(0.0, ge=0)
    rows: int = Field(0, ge=0, description="samples it worked on")
    bytes_read: int = Field(0, ge=0, description="of samples")
    peak_memory_bytes: int = Field(0, ge=0, description="resident, of a process")
    gpu_seconds: float = Field(0.0, ge=0, description="times the GPUs held")
    gpu_peak_memory_bytes: int = Field(0, ge=0, description="reserved on one GPU")
    retries: int = Field(0, ge=0, description="attempts beyond each shard's first")


class Totals(Record):
    """Sums over all exported rounds, this one included, so that nobody has to read them all."""

    rounds: dict[str, int] = Field(default_factory=dict, description="by strategy")
    queries: int = Field(0, ge=0)
    gpu_seconds: float = Field(0.0, ge=0)
    stage_seconds: float = Field(0.0, ge=0)
    promotions: int = Field(0, ge=0)
    first_metrics: dict[str, float] = Field(default_factory=dict, description="of the first model that was measured")
    first_train_labels: int = Field(0, ge=0, description="with which it was trained")


class Drift(Record):
    """How far what is new is from what is labelled."""

    embedding_distance: float | None = Field(
        None,
        ge=0,
        description="see the metric of that name; of the last new drop; None: no labels or no drop of two samples yet",
    )
    predicted_shares: dict[str, float] = Field(default_factory=dict, description="of the pool, by predicted class")
    class_shift: float | None = Field(
        None, ge=0, le=1, description="total variation distance to the shares of the exported round before it"
    )


class Outcome(Record):
    """What the round came to; written by export."""

    queries: int = Field(description="asked in this round")
    short_by: int = Field(0, description="queries fewer than the budget")
    reason: str = Field("", description="why fewer, in words; empty when none are missing")
    strategy: str = Field(description="that chose: the project's, or its cold start")
    summary: dict[str, float | int | str] = Field(default_factory=dict, description="the strategy's own account")
    metrics: dict[str, float] = Field(default_factory=dict, description="of the round's model on the test split")
    audit: dict[str, float] = Field(default_factory=dict, description="of the same model on the audit split")
    agreement: float | None = Field(
        None, ge=0, le=1, description="share of the test samples of which the champion before it says the same"
    )
    promoted: bool = Field(False, description="whether the round's model passed the gate")
    quarantined: int = Field(0, description="samples that could not be read in this round")
    labels: dict[str, int] = Field(default_factory=dict, description="of every split, by class, when it was planned")
    seconds: dict[str, float] = Field(default_factory=dict, description="by stage, summed over shards")
    stages: dict[str, StageTotal] = Field(default_factory=dict, description="by stage")
    totals: Totals | None = Field(None, description="of the project up to this round")
    drift: Drift | None = None
    exported_at: AwareDatetime


class Promotion(Record):
    """What a round's evaluation proposes about its model; the swap of round.json to exported makes it count."""

    promoted: bool
    reason: str = Field(description="in words, with the numbers")
    model: str = Field("", description="digest of the round's model; empty when it is untrained")
    metrics: dict[str, float] = Field(description="of the round's model on the test split")
    champion_round: int | None = Field(None, description="whose model it was compared with")
    champion_metrics: dict[str, float] = Field(default_factory=dict, description="of that model, same test split")
    recalls: dict[str, float] = Field(default_factory=dict, description="of the round's model by class, where limited")
    champion_recalls: dict[str, float] = Field(default_factory=dict, description="of the champion, same samples")
    split: Literal["test", "audit"] = Field("test", description="on which the two were compared")
    waits: bool = Field(False, description="nothing could be compared: `alfamix promote` decides")


class Round(Record):
    """rounds/<n>/round.json: the round's state; each swap of it raises the revision."""

    number: int = Field(ge=1)
    revision: int = Field(ge=1, description="raised by each swap, so that equal bytes never come back")
    fence: int = Field(ge=1, description="of the lock under which it was last written")
    run_id: str = Field(description="the run that works on it, or last did")
    state: State
    reason: str = Field("", description="why it failed or was abandoned, one line")
    planned_at: AwareDatetime
    seed: int = Field(description="of this round's randomness, from the project's seed and the number")
    versions: dict[str, int] = Field(description="version of each table of the ledger that it reads, by name")
    ledger: str = Field(
        "", description="identity of the ledger with these versions; one that was made again has another"
    )
    settings: Project
    champion: Champion = Field(description="as it was when the round was planned: what a warm start begins from")
    counts: Counts
    shards: int = Field(ge=1, le=256)
    digest: str = Field(description="digest of all that the snapshot is a function of")
    fresh: int = Field(0, ge=0, description="how often everything was computed again, whatever was cached")
    objects: dict[ObjectName, str] = Field(default_factory=dict, description="SHA-256 of what it produced, by name")
    model: str = Field("", description="digest of its trained model; empty before, and for an untrained one")
    promotion: Promotion | None = None
    outcome: Outcome | None = None

    @property
    def key(self) -> str:
        """What ``ingest`` hands to the later stages, such as ``000012-4be81f0c22aa``; -1 … with each ``fresh``."""
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

    revision: int = Field(ge=1, description="of champion.json, with which it is applied")
    kind: Literal["promote", "rollback"]
    round: int = Field(ge=1, description="whose model is to serve")
    model: str = Field(description="digest of that model")
    reason: str = Field("", description="the person's words")
    metrics: dict[str, float] = Field(default_factory=dict, description="of that model, when its round measured it")
    champion_round: int | None = Field(None, description="whose model served until then")
    champion_metrics: dict[str, float] = Field(default_factory=dict, description="of that model")
    time: AwareDatetime


class Failure(Record):
    """rounds/<n>/run/failures/<stage>-<shard>.json: the line that a stage stopped with."""

    stage: str
    shard: str = ""
    run_id: str
    status: int = Field(description="exit status: 2 wrong input, 3 storage or network")
    line: str = Field(description="what a person should read")


def folder(number: int) -> str:
    """Return a round's name in keys: six digits."""
    return f"{number:06d}"


def number_of(key: str) -> int:
    """Return the round of a key such as ``000012-4be81f0c22aa``."""
    return int(key.split("-", 1)[0])
