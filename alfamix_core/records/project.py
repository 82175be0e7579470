"""project.json: what is learned, how, and within which limits."""

import json
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from alfamix_core.errors import InputError
from alfamix_core.records.image_file import MAX_SCANS
from alfamix_core.records.record import Record

SCHEMA_VERSION = 1

ClassName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class StrategySettings(Record):
    """How queries are chosen."""

    name: str = Field("alfamix", description="strategy, by the name of its file in alfamix_core/acquisition/strategies")
    parameters: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="the strategy's own tunables; those not named have their defaults"
    )
    cold_start: str = Field("typiclust", description="strategy while fewer than two classes have a label")


class ImageSettings(Record):
    """How a file becomes the model's input."""

    size: int = Field(224, ge=8, le=2048, description="side of the square that the model sees, in pixels")
    channels: Literal["colour", "grey"] = Field("colour", description="colour mode of every image")


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
    embedding_dtype: Literal["float16", "float32"] = Field("float16", description="type in which embeddings are stored")
    embedding_batch: int = Field(256, ge=1, le=65_536, description="samples encoded at a time")


class TrainingSettings(Record):
    """How a model is fitted in each round."""

    optimiser: Literal["adam", "adamw", "sgd"] = Field("adam", description="optimiser; sgd has Nesterov momentum 0.9")
    learning_rate: float = Field(1e-3, gt=0, description="initial step size")
    weight_decay: float = Field(0.0, ge=0, description="weight decay per step, as the optimiser defines it")
    schedule: Literal["constant", "cosine"] = Field("constant", description="learning rate over max_epochs")
    batch_size: int = Field(64, ge=1, description="samples per step")
    max_epochs: int = Field(100, ge=1, description="maximum number of passes over the labelled samples")
    stop: Literal["train_accuracy", "val_accuracy", "never"] = Field(
        "train_accuracy",
        description="train_accuracy: after the first epoch at stop_accuracy, as in the paper; val_accuracy: when the "
        "val split has not improved for patience epochs (the best epoch is kept)",
    )
    stop_accuracy: float = Field(
        0.99, gt=0, le=1, description="accuracy on the epoch's own batches at which train_accuracy stops"
    )
    patience: int = Field(10, ge=1, description="epochs without improvement after which val_accuracy stops")
    augmentation: Literal["none", "flip", "crop", "flip_crop"] = Field(
        "none", description="random changes of training images"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="loss weights; balanced: inverse to the class's count"
    )
    start: Literal["initial", "champion"] = Field(
        "initial",
        description="weights at the start; initial: the same every round, as in the paper; champion: the champion's",
    )
    mixed_precision: bool = Field(True, description="whether training uses bfloat16 autocast, on CUDA only")
    loader_workers: int = Field(0, ge=0, le=64, description="processes that read and decode images")
    checkpoint_seconds: float = Field(
        10.0,
        ge=0,
        description="minimum time between checkpoints, each at an epoch's end, in seconds; a slow store makes it "
        "longer, so that checkpoints take a twentieth of the time; 0: after every epoch, whatever it costs",
    )


class RoundSettings(Record):
    """When a round starts, how long it may hold the project, how it fans out."""

    min_new_labels: int = Field(1, ge=0, description="new labels that start a round; 0: any time")
    min_new_samples: int = Field(1, ge=0, description="new samples that start a round; 0: any time")
    max_hours: float = Field(12.0, gt=0, le=720, description="a round's time limit, in hours")
    shard_size: int = Field(50_000, ge=1, description="pool samples per shard, until max_shards is reached")
    max_shards: int = Field(16, ge=1, le=256, description="maximum number of shards of the pool")


class QueueSettings(Record):
    """The labelling queue."""

    max_open: int = Field(1_000_000, ge=0, description="open queries above which no round starts")
    expires_after_days: float = Field(30.0, gt=0, description="days after which an unanswered query is cancelled")
    answers: int = Field(1, ge=1, description="annotators asked about a sample")
    agreement: int = Field(0, ge=0, description="equal answers that decide a sample; 0: more than half of its answers")
    max_answers: int = Field(3, ge=1, description="answers after which an undecided sample is disputed")
    accept_unasked: bool = Field(
        True, description="whether answers about train and val samples that no round asked about count"
    )

    @model_validator(mode="after")
    def _agreement_can_be_reached(self) -> Self:
        if self.agreement > self.max_answers:
            raise ValueError(f"agreement {self.agreement} must be at most max_answers {self.max_answers}")
        return self


class AuditSettings(Record):
    """An unbiased test sample of the stream: never offered to a strategy, never trained on."""

    share: float = Field(
        0.0, ge=0, lt=1, description="share of every drop that is reserved, by hash of seed and sample"
    )
    per_round: int = Field(0, ge=0, description="questions per round about reserved samples, part of the budget")


class PolicySettings(Record):
    """What a batch of queries must respect, whatever the strategy."""

    excluded_groups: tuple[str, ...] = Field((), description="groups never asked about")
    allowed_groups: tuple[str, ...] = Field((), description="the only groups asked about; empty: all")
    max_per_group: int | None = Field(None, ge=1, description="maximum number of queries per group and round")
    class_shares: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        description="maximum share of a round's queries, by predicted class; others are not limited",
    )
    min_distance: float = Field(
        0.0,
        ge=0,
        description="minimum distance of a query's embedding from labelled samples and other queries; 0: none",
    )


REPORTED = {"accuracy": 1, "macro_f1": 1, "expected_calibration_error": -1}
"""The metrics that a round reports: 1 where more is better, -1 where less is."""


class PromotionSettings(Record):
    """When a round's model becomes the champion."""

    metric: str = Field(
        "accuracy",
        description="accuracy, macro_f1, expected_calibration_error (less is better), or recall.CLASS, on the same "
        "samples for both models: the test split, or the audit split if no test sample has a label",
    )
    min_gain: float = Field(0.0, ge=-1, le=1, description="minimum gain of the new model")
    max_class_fall: float = Field(1.0, ge=0, le=1, description="maximum loss in the recall of any class; 1: no limit")


class StopSettings(Record):
    """When another round is not worth it. `alfamix status` recommends it; `auto_stop` makes rounds idle."""

    auto_stop: bool = Field(False, description="whether rounds that are not worth it are skipped")
    plateau_rounds: int = Field(3, ge=2, description="rounds over which the metric must have grown")
    plateau_gain: float = Field(0.002, ge=0, le=1, description="minimum gain of promotion.metric over those rounds")
    min_change: float = Field(
        0.01, ge=0, le=1, description="minimum share of test samples about which two successive models differ"
    )


class BudgetSettings(Record):
    """What rounds may spend; a round that would spend more does not start."""

    rounds_per_day: int | None = Field(None, ge=0, description="rounds that may begin within 24 hours")
    labels_per_day: int | None = Field(None, ge=0, description="questions that may be asked within 24 hours")
    labels: int | None = Field(None, ge=0, description="questions that may be asked over the project's life")


class MetricsSettings(Record):
    """How `export` and `finish` publish the project's metrics; not needed where `alfamix exporter` is scraped."""

    way: Literal["none", "pushgateway", "textfile"] = Field(
        "none", description="destination; pushgateway: pushed to url; textfile: written to path, for node_exporter"
    )
    url: str = Field("", description="URL of the Pushgateway, with scheme and port")
    path: str = Field("", description="absolute path of the file, ends in .prom")
    timeout_seconds: float = Field(5.0, gt=0, le=60, description="time limit of one push, in seconds")

    @model_validator(mode="after")
    def _way_has_its_place(self) -> Self:
        if self.way == "pushgateway" and not self.url.startswith(("http://", "https://")):
            raise ValueError(f'url "{self.url}" must begin with http:// or https:// where way is pushgateway')
        if self.way == "textfile" and not (self.path.startswith("/") and self.path.endswith(".prom")):
            raise ValueError(f'path "{self.path}" must be absolute and end in .prom where way is textfile')
        return self


class LimitSettings(Record):
    """What is refused, and how much of it a round tolerates."""

    quarantine_share: float = Field(
        0.05, ge=0, le=1, description="maximum share of a round's samples that may be unreadable"
    )
    max_file_bytes: int = Field(50_000_000, ge=1, description="maximum size of one sample's file")
    max_pixels: int = Field(50_000_000, ge=1, description="maximum size of one decoded image")
    max_scans: int = Field(
        MAX_SCANS,
        ge=1,
        description="maximum number of scans of one JPEG; each costs a pass over the image, encoders write 1 to 20",
    )


class Project(Record):
    """The whole of project.json. The copy in a round's record is what that round uses."""

    schema_version: int = Field(SCHEMA_VERSION, ge=1, description="version of this file's format")
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = Field(
        description="lower-case letters, digits and hyphens; names runs, metrics and pods"
    )
    classes: tuple[ClassName, ...] = Field(min_length=2, description="possible answers, in the model's order")
    budget: int = Field(100, ge=1, description="queries per round")
    modality: Literal["image"] = Field("image", description="kind of sample")
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
    data_prefixes: tuple[str, ...] = Field(
        (), description="URIs of folders whose files manifests may name, besides their own"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of all randomness")

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        first: dict[str, int] = {}
        for number, name in enumerate(self.classes, start=1):
            if name in first:
                raise ValueError(f'class "{name}" is named twice (places {first[name]} and {number})')
            first[name] = number
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


def read_project(data: bytes, where: str = "project.json") -> Project:
    """Read project.json.

    Raises:
        InputError: The schema is newer, or the content is not as ``Project`` says.
    """
    try:
        version = json.loads(data).get("schema_version", SCHEMA_VERSION)
    except (ValueError, AttributeError, RecursionError):
        version = SCHEMA_VERSION
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(f"{where}: schema_version is {version}, this alfamix knows {SCHEMA_VERSION}: upgrade alfamix")
    return Project.parse(data, where)
