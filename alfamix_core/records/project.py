"""project.json: what is learned, how, and within which limits."""

import json
import unicodedata
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from alfamix_core.acquisition import registry
from alfamix_core.errors import InputError
from alfamix_core.records.image_file import MAX_SCANS
from alfamix_core.records.record import Record

SCHEMA_VERSION = 1

ClassName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class StrategySettings(Record):
    """How queries are chosen. The page strategies.md lists every strategy with its parameters."""

    name: str = Field("alfamix", description="name of the strategy")
    parameters: dict[str, bool | int | float | str | None] = Field(
        default_factory=dict, description="parameters of the strategy; one that is not named keeps its default"
    )
    cold_start: str = Field(
        "typiclust", description="name of the strategy for rounds in which fewer than two classes have a label"
    )


class ImageSettings(Record):
    """How an image file becomes the input of the model."""

    size: int = Field(224, ge=8, le=2048, description="side of the square that the model sees, in pixels")
    channels: Literal["colour", "grey"] = Field("colour", description="colour space to which every image is converted")
    normalisation: Literal["auto", "data", "imagenet", "half", "numbers"] = Field(
        "auto",
        description="normalisation of the pixels; data: by mean and standard deviation of each channel over the "
        "training images; imagenet: by those of ImageNet; half: by 0.5 and 0.5; numbers: by image.mean and image.std; "
        "auto: as the pretrained weights, or the champion from which training starts, were trained, otherwise data, or "
        "half for a frozen encoder, whose features data would change in every round",
    )
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (), max_length=3, description="mean of each channel, for pixels from 0 to 1; only for normalisation=numbers"
    )
    std: tuple[Annotated[float, Field(ge=0.001, le=10)], ...] = Field(
        (),
        max_length=3,
        description="standard deviation of each channel, for pixels from 0 to 1; only for normalisation=numbers",
    )

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        count = 3 if self.channels == "colour" else 1
        for name, values in (("mean", self.mean), ("std", self.std)):
            if self.normalisation == "numbers" and len(values) != count:
                raise ValueError(
                    f"{name} must hold one number per channel, {count} for {self.channels}, not {len(values)}"
                )
            if self.normalisation != "numbers" and values:
                raise ValueError(f"{name} needs normalisation=numbers, not {self.normalisation}")
        return self


class ModelSettings(Record):
    """The network: an encoder, which computes the embedding, and a linear head, which classifies it."""

    backbone: str = Field(
        "resnet18", description="small_cnn, mlp, efficientnet_lite0, or the name of a torchvision model"
    )
    weights: str = Field(
        "none",
        description="initial weights: none, default (torchvision's, which the stage downloads), the name of weights of "
        "torchvision, or the URI of a safetensors file",
    )
    encoder: Literal["trained", "frozen"] = Field(
        "trained",
        description="whether training changes the encoder's weights; frozen: never; the head alone is fitted, by "
        "logistic regression to convergence, and of the section training only class_weights and start count",
    )
    features: Literal["l2", "standardised", "raw"] = Field(
        "l2",
        description="scaling of a frozen encoder's output; l2: each row to length 1; standardised: each column to mean "
        "0 and deviation 1 over the training samples; raw: none; no effect on a trained encoder",
    )
    head_penalty: float = Field(
        0.01,
        ge=1e-6,
        le=1e6,
        description="penalty of the head on a frozen encoder: half of it times the squared weights is added to the "
        "sum of the samples' losses (1 / C of scikit-learn); about 0.01 suits l2, and 100 standardised",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the embedding that training drops before the head")
    embedding_dtype: Literal["float16", "float32"] = Field("float16", description="number format of stored embeddings")
    embedding_batch: int = Field(256, ge=1, le=65_536, description="samples that pass through the encoder at a time")


class TrainingSettings(Record):
    """How the model is fitted in each round."""

    optimiser: Literal["adam", "adamw", "sgd"] = Field("adam", description="optimiser; sgd has Nesterov momentum 0.9")
    learning_rate: float = Field(1e-3, gt=0, description="step size at the start")
    weight_decay: float = Field(0.0, ge=0, description="weight decay per step, as the optimiser defines it")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="course of the learning rate over max_epochs"
    )
    batch_size: int = Field(64, ge=1, description="samples per step")
    max_epochs: int = Field(100, ge=1, description="maximum number of passes over the labelled samples")
    stop: Literal["train_accuracy", "val_accuracy", "never"] = Field(
        "train_accuracy",
        description="reason to end training before max_epochs; train_accuracy: the first epoch that reaches "
        "stop_accuracy, as in the paper; val_accuracy: patience epochs without improvement on the val split, of which "
        "the best epoch is kept",
    )
    stop_accuracy: float = Field(
        0.99, gt=0, le=1, description="accuracy over the batches of an epoch at which stop train_accuracy ends training"
    )
    patience: int = Field(
        10, ge=1, description="epochs without improvement after which stop val_accuracy ends training"
    )
    augmentation: Literal["none", "flip", "crop", "flip_crop"] = Field(
        "none", description="random changes to the training images"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="weights of the classes in the loss; balanced: inverse to the number of labels of each",
    )
    start: Literal["initial", "champion"] = Field(
        "initial",
        description="weights from which training starts; initial: the same in every round, as in the paper; champion: "
        "those of the champion",
    )
    mixed_precision: bool = Field(True, description="whether bfloat16 autocast is used, on CUDA only")
    loader_workers: int = Field(0, ge=0, le=64, description="processes that read and decode images")
    checkpoint_seconds: float = Field(
        10.0,
        ge=0,
        description="minimum time between checkpoints, in seconds; they are written at the ends of epochs, and less "
        "often where that would take more than a twentieth of the time; 0: after every epoch, whatever it costs",
    )


class RoundSettings(Record):
    """When a round starts, how long it may hold the project, how it fans out."""

    min_new_labels: int = Field(1, ge=0, description="new labels that are enough to start a round")
    min_new_samples: int = Field(1, ge=0, description="new samples that are enough to start a round")
    max_hours: float = Field(12.0, gt=0, le=720, description="deadline of a round, in hours")
    shard_size: int = Field(50_000, ge=1, description="pool samples per shard, until max_shards is reached")
    max_shards: int = Field(16, ge=1, le=256, description="maximum number of shards of the pool")


class QueueSettings(Record):
    """The labelling queue: how many questions are open, and how many answers decide one."""

    max_open: int = Field(1_000_000, ge=0, description="number of open queries above which no round starts")
    expires_after_days: float = Field(
        30.0, gt=0, description="time after which an unanswered query is cancelled, in days"
    )
    answers: int = Field(
        1,
        ge=1,
        description="annotators who are asked about each sample; one with fewer is open, earlier ones too",
    )
    agreement: int = Field(
        0,
        ge=0,
        description="annotators who must agree to decide a sample; 0: more than half of those who answered",
    )
    max_answers: int = Field(3, ge=1, description="answers after which an undecided sample is disputed")
    accept_unasked: bool = Field(
        True,
        description="whether answers count for train and val samples that no round asked about; earlier ones too",
    )

    @model_validator(mode="after")
    def _agreement_can_be_reached(self) -> Self:
        if self.agreement > self.max_answers:
            raise ValueError(f"agreement {self.agreement} must be at most max_answers {self.max_answers}")
        return self


class AuditSettings(Record):
    """An unbiased test sample of the stream, which is never offered to a strategy and never trained on."""

    share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of every drop that is set aside, chosen by a hash of seed and sample; earlier drops too, so "
        "that answers which nobody was asked for stop counting there",
    )
    per_round: int = Field(
        0, ge=0, description="questions of each round's budget that are taken from what is set aside"
    )


class PolicySettings(Record):
    """Rules that the queries of a round keep, whatever the strategy."""

    excluded_groups: tuple[str, ...] = Field((), description="groups whose samples are never asked")
    allowed_groups: tuple[str, ...] = Field((), description="groups whose samples may be asked; empty: all groups")
    max_per_group: int | None = Field(
        None, ge=1, description="maximum number of queries per group in a round; null: no limit"
    )
    class_shares: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        description="maximum share of a round's queries, by predicted class; a class that is not named has no limit",
    )
    min_distance: float = Field(
        0.0,
        ge=0,
        description="minimum distance of a query's embedding to those of all labelled samples and other queries; "
        "0: no limit",
    )


REPORTED = {"accuracy": 1, "macro_f1": 1, "expected_calibration_error": -1}
"""The metrics that a round reports: 1 where more is better, -1 where less is."""


class PromotionSettings(Record):
    """When a round's model becomes the champion."""

    metric: str = Field(
        "accuracy",
        description="metric that decides: accuracy, macro_f1, expected_calibration_error (less is better), or "
        "recall.CLASS; both models are measured on the same samples of the test split, or of the audit split if no "
        "test sample has a label",
    )
    min_gain: float = Field(0.0, ge=-1, le=1, description="minimum gain of the new model over the champion")
    max_class_fall: float = Field(1.0, ge=0, le=1, description="maximum loss of any class's recall; 1: no limit")


class StopSettings(Record):
    """When another round is not worth it. `alfamix status` says so; with `auto_stop`, no round starts then."""

    auto_stop: bool = Field(False, description="whether rounds that are not worth it are left out")
    plateau_rounds: int = Field(3, ge=2, description="rounds over which the metric must have grown by plateau_gain")
    plateau_gain: float = Field(0.002, ge=0, le=1, description="minimum gain of promotion.metric over plateau_rounds")
    min_change: float = Field(
        0.01, ge=0, le=1, description="minimum share of the test samples on which two successive models differ"
    )


class BudgetSettings(Record):
    """Budgets of the project. A round that would exceed one does not start; null means no budget."""

    rounds_per_day: int | None = Field(None, ge=0, description="rounds that may begin within 24 hours")
    labels_per_day: int | None = Field(None, ge=0, description="questions that may be asked within 24 hours")
    labels: int | None = Field(None, ge=0, description="questions that may be asked in all")


class MetricsSettings(Record):
    """How `finish` publishes the project's metrics. Leave it at none if `alfamix exporter` is scraped."""

    way: Literal["none", "pushgateway", "textfile"] = Field(
        "none", description="way of publishing; pushgateway: a push to url; textfile: a file at path, for node_exporter"
    )
    url: str = Field("", description="URL of the Pushgateway, with scheme and port")
    path: str = Field("", description="absolute path of the file, which ends in .prom")
    timeout_seconds: float = Field(5.0, gt=0, le=60, description="time limit of one push, in seconds")

    @model_validator(mode="after")
    def _way_has_its_target(self) -> Self:
        if self.way == "pushgateway" and not self.url.startswith(("http://", "https://")):
            raise ValueError(f'url "{self.url}" must begin with http:// or https:// where way is pushgateway')
        if self.way == "textfile" and not (self.path.startswith("/") and self.path.endswith(".prom")):
            raise ValueError(f'path "{self.path}" must be absolute and end in .prom where way is textfile')
        return self


class LimitSettings(Record):
    """Which sample files are refused, and what share of a round they may be."""

    quarantine_share: float = Field(
        0.05, ge=0, le=1, description="maximum share of a round's samples that may be unreadable"
    )
    max_file_bytes: int = Field(50_000_000, ge=1, description="maximum size of a sample's file, in bytes")
    max_pixels: int = Field(50_000_000, ge=1, description="maximum number of pixels of a decoded image")
    max_scans: int = Field(
        MAX_SCANS,
        ge=1,
        description="maximum number of scans of a JPEG; each costs a pass over the image, and encoders write 1 to 20",
    )


class Project(Record):
    """The whole of project.json. The copy in a round's record is what that round uses."""

    schema_version: int = Field(SCHEMA_VERSION, ge=1, description="version of the layout of project.json")
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = Field(
        description="name of the project, which runs, metrics and pods bear: lower-case letters, digits and hyphens"
    )
    classes: tuple[ClassName, ...] = Field(
        min_length=2, description="possible answers, in the order of the model's outputs"
    )
    budget: int = Field(100, ge=1, description="queries per round")
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
        (), description="URIs below which a manifest may refer to files, besides its own folder"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of all randomness")

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        first: dict[str, int] = {}
        for number, name in enumerate(self.classes, start=1):
            if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
                raise ValueError(f"class {name!a} must have no line break or other control character")
            # é is one character or two, and nobody sees which
            if (same := unicodedata.normalize("NFC", name)) in first:
                raise ValueError(f'class "{name}" is named twice (items {first[same]} and {number})')
            first[same] = number
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
        InputError: It names what came and lists what is known.
    """
    for field, name in (("strategy.name", settings.name), ("strategy.cold_start", settings.cold_start)):
        try:
            registry.check(name, settings.parameters if field == "strategy.name" else {})
        except InputError as error:
            raise InputError(f"{field}: {error}" if name not in registry.names() else str(error)) from None


def read_project(data: bytes, where: str = "project.json") -> Project:
    """Read project.json.

    Raises:
        InputError: Its schema is newer, it is not as ``Project`` says, or its strategy or a tunable is unknown or does
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
