"""project.json: what is learned, how, and within which limits."""

import json
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from alfamix_core.acquisition import registry
from alfamix_core.errors import InputError
from alfamix_core.records.image_file import MAX_SCANS
from alfamix_core.records.record import Record

SCHEMA_VERSION = 1

ClassName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class StrategySettings(Record):
    """How queries are chosen."""

    name: str = Field("alfamix", description="strategy that chooses; docs/strategies.md lists them")
    parameters: dict[str, bool | int | float | str | None] = Field(
        default_factory=dict, description="the strategy's own tunables, see below; what is not named has its default"
    )
    cold_start: str = Field("typiclust", description="strategy while fewer than two classes have a label")


class ImageSettings(Record):
    """How a file becomes the model's input."""

    size: int = Field(224, ge=8, le=2048, description="side of the square that the model sees, pixels")
    channels: Literal["colour", "grey"] = Field("colour", description="what every image is converted to")


class ModelSettings(Record):
    """The network: an encoder and a linear head."""

    backbone: str = Field("resnet18", description="small_cnn, mlp, or any torchvision classification model by name")
    weights: str = Field(
        "none",
        description="initial weights: none, default (torchvision's, needs egress), a torchvision weights name, or the "
        "uri of a safetensors file",
    )
    encoder: Literal["trained", "frozen"] = Field("trained", description="whether the encoder's weights are learned")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the embedding that training drops before the head")
    embedding_dtype: Literal["float16", "float32"] = Field("float16", description="how embeddings are stored")
    embedding_batch: int = Field(256, ge=1, le=65_536, description="samples that go through the encoder at a time")


class TrainingSettings(Record):
    """How a model is fitted in each round."""

    optimiser: Literal["adam", "adamw", "sgd"] = Field("adam", description="sgd has Nesterov momentum 0.9")
    learning_rate: float = Field(1e-3, gt=0, description="step size at the start")
    weight_decay: float = Field(0.0, ge=0, description="per step, as the optimiser defines it")
    schedule: Literal["constant", "cosine"] = Field("constant", description="of the learning rate over max_epochs")
    batch_size: int = Field(64, ge=1, description="samples in a step")
    max_epochs: int = Field(100, ge=1, description="passes over the labelled samples at most")
    stop: Literal["train_accuracy", "val_accuracy", "never"] = Field(
        "train_accuracy",
        description="train_accuracy: after the first epoch at stop_accuracy, as in the paper; val_accuracy: when the "
        "val split has not improved for patience epochs (the best epoch is kept)",
    )
    stop_accuracy: float = Field(0.99, gt=0, le=1, description="of the epoch's own batches, for stop train_accuracy")
    patience: int = Field(10, ge=1, description="epochs, for stop val_accuracy")
    augmentation: Literal["none", "flip", "crop", "flip_crop"] = Field("none", description="of the training images")
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: inverse to the class's count")
    start: Literal["initial", "champion"] = Field(
        "initial", description="initial: the same initial weights every round, as in the paper; champion: warm start"
    )
    mixed_precision: bool = Field(True, description="bfloat16 autocast, on CUDA only")
    loader_workers: int = Field(0, ge=0, le=64, description="processes that read and decode images")
    checkpoint_seconds: float = Field(
        10.0,
        ge=0,
        description="between checkpoints at least, each at an epoch's end; a slow store stretches it to a twentieth of "
        "the time; 0: after every epoch, whatever it costs",
    )


class RoundSettings(Record):
    """When a round starts, how long it may hold the project, how it fans out."""

    min_new_labels: int = Field(1, ge=0, description="labels since the last round that suffice for a new one")
    min_new_samples: int = Field(1, ge=0, description="samples since the last round that suffice for a new one")
    max_hours: float = Field(12.0, gt=0, le=720, description="a round's deadline, hours")
    shard_size: int = Field(50_000, ge=1, description="pool samples in one shard, until max_shards is reached")
    max_shards: int = Field(16, ge=1, le=256, description="maximum number of shards of the pool")


class QueueSettings(Record):
    """The labelling queue."""

    max_open: int = Field(1_000_000, ge=0, description="no round starts while more queries are open")
    expires_after_days: float = Field(30.0, gt=0, description="an unanswered query is cancelled after this many days")
    answers: int = Field(1, ge=1, description="annotators that are asked about a sample")
    agreement: int = Field(
        0, ge=0, description="annotators who must give the same answer to decide; 0: more than half of those who did"
    )
    max_answers: int = Field(3, ge=1, description="answers after which an undecided sample is disputed")
    accept_unasked: bool = Field(
        True, description="whether answers count for train and val samples that no round asked about"
    )

    @model_validator(mode="after")
    def _agreement_can_be_reached(self) -> Self:
        if self.agreement > self.max_answers:
            raise ValueError(f"agreement {self.agreement} must be at most max_answers {self.max_answers}")
        return self


class AuditSettings(Record):
    """An unbiased test sample of the stream: never offered to a strategy, never trained on."""

    share: float = Field(0.0, ge=0, lt=1, description="of every drop that is set aside, by hash of seed and sample")
    per_round: int = Field(0, ge=0, description="of the budget, questions that are taken from what is set aside")


class PolicySettings(Record):
    """What a batch of queries must respect, whatever the strategy."""

    excluded_groups: tuple[str, ...] = Field((), description="groups that are never asked")
    allowed_groups: tuple[str, ...] = Field((), description="if any is named, no other group is asked")
    max_per_group: int | None = Field(None, ge=1, description="queries of one group in a round")
    class_shares: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict, description="of a round's queries at most, by predicted class; others are not limited"
    )
    min_distance: float = Field(
        0.0, ge=0, description="between embeddings, to every labelled sample and within the batch; 0: none"
    )


REPORTED = {"accuracy": 1, "macro_f1": 1, "expected_calibration_error": -1}
"""The metrics that a round reports: 1 where more is better, -1 where less is."""


class PromotionSettings(Record):
    """When a round's model becomes the champion."""

    metric: str = Field(
        "accuracy",
        description="accuracy, macro_f1, expected_calibration_error (less is better), or recall.CLASS; on the test "
        "split (the audit split where there is no test label), same samples for both models",
    )
    min_gain: float = Field(0.0, ge=-1, le=1, description="what the new model must gain at least")
    max_class_fall: float = Field(1.0, ge=0, le=1, description="what the recall of any class may lose at most; 1: all")


class StopSettings(Record):
    """When another round is not worth it. Recommended in `alfamix status`; `auto_stop` makes rounds idle."""

    auto_stop: bool = Field(False, description="whether a round that is not worth it is not started")
    plateau_rounds: int = Field(3, ge=2, description="rounds over which the metric must have grown")
    plateau_gain: float = Field(0.002, ge=0, le=1, description="of promotion.metric over those rounds, at least")
    min_change: float = Field(
        0.01, ge=0, le=1, description="share of the test samples about which two successive models differ, at least"
    )


class BudgetSettings(Record):
    """What rounds may spend; a round that would spend more does not start."""

    rounds_per_day: int | None = Field(None, ge=0, description="rounds that may begin within 24 hours")
    labels_per_day: int | None = Field(None, ge=0, description="questions that may be asked within 24 hours")
    labels: int | None = Field(None, ge=0, description="questions that may be asked in all")


class MetricsSettings(Record):
    """How `export` and `finish` publish the project's metrics; not needed where `alfamix exporter` is scraped."""

    way: Literal["none", "pushgateway", "textfile"] = Field(
        "none", description="pushgateway: pushed to url; textfile: written to path, for node_exporter"
    )
    url: str = Field("", description="of the Pushgateway, with its scheme and port")
    path: str = Field("", description="of the file, absolute, ends in .prom")
    timeout_seconds: float = Field(5.0, gt=0, le=60, description="of a push")

    @model_validator(mode="after")
    def _way_has_its_place(self) -> Self:
        if self.way == "pushgateway" and not self.url.startswith(("http://", "https://")):
            raise ValueError(f'url "{self.url}" must begin with http:// or https:// where way is pushgateway')
        if self.way == "textfile" and not (self.path.startswith("/") and self.path.endswith(".prom")):
            raise ValueError(f'path "{self.path}" must be absolute and end in .prom where way is textfile')
        return self


class LimitSettings(Record):
    """What is refused, and how much of it a round bears."""

    quarantine_share: float = Field(0.05, ge=0, le=1, description="of a round's samples that may be unreadable")
    max_file_bytes: int = Field(50_000_000, ge=1, description="of one sample's file")
    max_pixels: int = Field(50_000_000, ge=1, description="of one decoded image")
    max_scans: int = Field(
        MAX_SCANS, ge=1, description="of one JPEG; each costs a pass over the image, encoders write 1 to 20"
    )


class Project(Record):
    """The whole of project.json. The copy in a round's record is what that round uses."""

    schema_version: int = Field(SCHEMA_VERSION, ge=1, description="of this file")
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = Field(
        description="lower-case letters, digits and hyphens; names runs, metrics and pods"
    )
    classes: tuple[ClassName, ...] = Field(min_length=2, description="what can be answered; the order is the model's")
    budget: int = Field(100, ge=1, description="queries in a round")
    modality: Literal["image"] = Field("image", description="what a sample is")
    strategy: StrategySettings = StrategySettings()
    image: ImageSettings = ImageSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    round: RoundSettings = RoundSettings()
    queue: QueueSettings = QueueSettings()
    policy: PolicySettings = PolicySettings()
    audit: AuditSettings = AuditSettings()
    promotion: PromotionSettings = PromotionSettings()
    stop: StopSettings = StopSettings()
    budgets: BudgetSettings = BudgetSettings()
    limits: LimitSettings = LimitSettings()
    metrics: MetricsSettings = MetricsSettings()
    data_prefixes: tuple[str, ...] = Field((), description="uris below which a manifest may point, beside its folder")
    seed: int = Field(0, ge=0, lt=2**31, description="all randomness comes from it")

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        first: dict[str, int] = {}
        for place, name in enumerate(self.classes, start=1):
            if name in first:
                raise ValueError(f'class "{name}" is named twice (places {first[name]} and {place})')
            first[name] = place
        return self

    @model_validator(mode="after")
    def _policy_and_audit_fit(self) -> Self:
        for name in self.policy.class_shares:
            if name not in self.classes:
                raise ValueError(f'policy.class_shares names "{name}", which is not a class')
        both = set(self.policy.excluded_groups) & set(self.policy.allowed_groups)
        if both:
            raise ValueError(f"policy both allows and excludes the groups {', '.join(sorted(both))}")
        if self.audit.per_round > self.budget:
            raise ValueError(f"audit.per_round {self.audit.per_round} must be at most the budget {self.budget}")
        if self.audit.per_round and not self.audit.share:
            raise ValueError("audit.per_round needs an audit.share above 0 to take questions from")
        return self

    @model_validator(mode="after")
    def _metric_is_reported(self) -> Self:
        kind, _, name = self.promotion.metric.partition(".")
        if self.promotion.metric not in REPORTED and (kind != "recall" or name not in self.classes):
            known = ", ".join((*REPORTED, "recall.CLASS"))
            raise ValueError(f'promotion.metric "{self.promotion.metric}" is not reported; known are {known}')
        return self

    @model_validator(mode="after")
    def _prefixes_are_uris(self) -> Self:
        for prefix in self.data_prefixes:
            if not prefix.startswith(("file:///", "s3://")):
                raise ValueError(f'data prefix "{prefix}" must begin with file:/// or s3://')
        return self


def check_strategy(settings: StrategySettings) -> None:
    """Refuse an unknown strategy, an unknown tunable, or a value that the tunable does not take.

    The copy of a project in a round's record is not checked: past rounds stay readable when a strategy changes or the
    package that brought it is gone.

    Raises:
        InputError: it names what came and lists what is known.
    """
    for field, name in (("strategy.name", settings.name), ("strategy.cold_start", settings.cold_start)):
        try:
            registry.check(name, settings.parameters if field == "strategy.name" else {})
        except InputError as error:
            raise InputError(f"{field}: {error}" if name not in registry.names() else str(error)) from None


def read_project(data: bytes, where: str = "project.json") -> Project:
    """Read project.json.

    Raises:
        InputError: its schema is newer, it is not as ``Project`` says, or its strategy or a tunable is unknown or does
            not fit.
    """
    try:
        version = json.loads(data).get("schema_version", SCHEMA_VERSION)
    except (ValueError, AttributeError, RecursionError):
        version = SCHEMA_VERSION
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(f"{where}: schema_version is {version}, this alfamix knows {SCHEMA_VERSION}: upgrade alfamix")
    project = Project.parse(data, where)
    check_strategy(project.strategy)
    return project
