"""Resources that a cluster provides for a round: sizes, nodes, secrets, time limits, retries.

The defaults fit a cluster with one GPU. A TOML file changes what differs; what it does not name keeps its default.
"""

import itertools
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from kubernetes.utils.quantity import parse_quantity
from pydantic import AfterValidator, Field, model_validator

from alfamix_core.errors import InputError
from alfamix_core.records import settings_table
from alfamix_core.records.record import Record
from alfamix_core.storage import access
from components import images
from components.stages import STAGES

ENVIRONMENT = "ALFAMIX_PLATFORM_SETTINGS"
"""Variable with the path of the file, for the trigger, `alfamix schedule` and `alfamix round`."""

# The variables that `environment` may not set, by the beginning of their names, and why.
_NOT_OURS_TO_SET = {
    access.PREFIX: "the storage settings do",
    "ALFAMIX_STAGE_": "the retry and stages settings do",
    "AWS_": "Kubeflow's launcher would read it for its own artifacts; use the storage settings",
    "KFP_": "Kubeflow sets it",
    "ARGO_": "Argo sets it",
    "KUBERNETES_": "Kubernetes sets it",
    "SSL_CERT_": "Kubeflow's launcher would read it for its own artifacts; use storage.ca_config_map",
}
_READ_BY_STAGES = ("ALFAMIX_LOG", "ALFAMIX_TRAIN_PROCESSES")

_PREFETCHED = 2  # batches that a worker keeps ready besides the one it works on, as in torch's DataLoader
_CHANNELS = 3
_MIB = 2**20
_SHM_STEP = 64  # MiB; also what a container has without any volume
_COLLECTIVES = 1024  # MiB that the processes of one pod need to exchange gradients
_LEAST_MEMORY, _MOST_MEMORY = "64Mi", "64Ti"
_LEAST_CPU, _MOST_CPU = "10m", "1024"


def quantity_bytes(text: str) -> int:
    """Return a Kubernetes quantity of memory in bytes: ``512Mi`` is 536870912."""
    return int(parse_quantity(text))


def cores(text: str) -> float:
    """Return a Kubernetes quantity of CPU in cores: ``500m`` is 0.5."""
    return float(parse_quantity(text))


def _like(pattern: str, what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {what}")
        return text

    return AfterValidator(check)


def _is_memory(text: str) -> str:
    if not quantity_bytes(_LEAST_MEMORY) <= quantity_bytes(text) <= quantity_bytes(_MOST_MEMORY):
        raise ValueError(f"must be from {_LEAST_MEMORY} to {_MOST_MEMORY}")
    return text


def _is_cpu(text: str) -> str:
    if not cores(_LEAST_CPU) <= cores(text) <= cores(_MOST_CPU):
        raise ValueError(f"must be from {_LEAST_CPU} to {_MOST_CPU} cores")
    return text


def _is_accelerator(text: str) -> str:
    if text.partition("/")[0].endswith("kubernetes.io"):
        raise ValueError("must be a resource of a vendor, such as nvidia.com/gpu")
    return text


def _is_user(value: int | str) -> int | str:
    if value == PLATFORM or (isinstance(value, int) and 0 < value < 2**31):
        return value
    raise ValueError(f'must be the number of a user other than root, or "{PLATFORM}"')


PLATFORM = "platform"
"""Value of ``user`` for the one that the cluster assigns, such as one from an OpenShift project's range."""

_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = rf"(?=[^/]{{1,253}}(/|$)){_PART}(\.{_PART})*"
_LABEL_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_REPOSITORY = rf"{_PART}(\.{_PART})*(:\d{{1,5}})?(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*"
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"

Cpu = Annotated[
    str, _like(r"[1-9]\d*m?|0\.\d*[1-9]|[1-9]\d*\.\d+", "a number of cores such as 500m or 2"), AfterValidator(_is_cpu)
]
Memory = Annotated[str, _like(r"[1-9]\d*(Ki|Mi|Gi|Ti)?", "a size such as 512Mi or 8Gi"), AfterValidator(_is_memory)]
Name = Annotated[str, _like(_NAME, "the name of a Kubernetes object: lower-case letters, digits, - and .")]
NameOrNone = Annotated[str, _like(f"({_NAME})?", 'the name of a Kubernetes object, or "" for none')]
LabelKey = Annotated[str, _like(rf"({_NAME}/)?{_LABEL_NAME}", "a Kubernetes label such as team or example.org/team")]
LabelValue = Annotated[
    str, _like(_LABEL_VALUE, "the value of a Kubernetes label: up to 63 letters, digits, -, _ and .")
]
TaintKey = Annotated[str, _like(rf"(({_NAME}/)?{_LABEL_NAME})?", 'the key of a taint such as nvidia.com/gpu, or ""')]
Accelerator = Annotated[
    str,
    _like(rf"(?=[^/]*\.){_NAME}/{_LABEL_NAME}", "a resource such as nvidia.com/gpu"),
    AfterValidator(_is_accelerator),
]
SecretKey = Annotated[str, _like(r"[-._A-Za-z0-9]{1,253}", "a key of a Secret: letters, digits, -, _ and .")]
Variable = Annotated[str, _like(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")]
Digest = Annotated[str, _like(rf"{_REPOSITORY}@sha256:[0-9a-f]{{64}}", "an image by digest, name@sha256:…")]
Registry = Annotated[str, _like(_REPOSITORY, "a registry and a path, such as ghcr.io/team")]


class Toleration(Record):
    """A taint of nodes that a pod tolerates."""

    key: TaintKey = Field(description='key of the taint; "" with Exists: every taint')
    operator: Literal["Exists", "Equal"] = Field("Exists", description="comparison; Equal compares the value")
    value: LabelValue = Field("", description="value of the taint, for Equal")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        "NoSchedule", description="effect of the taint"
    )

    @model_validator(mode="after")
    def _value_fits_operator(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError(f'toleration of "{self.key}": Exists takes no value; use operator = "Equal"')
        if self.operator == "Equal" and not self.key:
            raise ValueError("a toleration with Equal must name the key of a taint")
        return self


_GPU_TAINT = Toleration(key="nvidia.com/gpu")


class Resources(Record):
    """Size of a pod, and the nodes on which it may run."""

    cpu_request: Cpu = Field(description="cores reserved by the scheduler")
    cpu_limit: Cpu = Field(description="maximum number of cores")
    memory_request: Memory = Field(description="memory reserved by the scheduler")
    memory_limit: Memory = Field(description="maximum memory, /dev/shm included; beyond it the pod is killed")
    gpus: int = Field(0, ge=0, le=64, description="GPUs of one pod; train uses all that it sees, others the first")
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict, description="labels that a node must have")
    tolerations: tuple[Toleration, ...] = Field((), description="taints of nodes that are tolerated")

    @model_validator(mode="after")
    def _requests_are_within_limits(self) -> Self:
        if cores(self.cpu_request) > cores(self.cpu_limit):
            raise ValueError(f"cpu_request {self.cpu_request} must be at most cpu_limit {self.cpu_limit}")
        if quantity_bytes(self.memory_request) > quantity_bytes(self.memory_limit):
            raise ValueError(f"memory_request {self.memory_request} must be at most memory_limit {self.memory_limit}")
        return self


class ImageSettings(Record):
    """Where the images come from."""

    registry: Registry = Field(images.REGISTRY, description="registry and path; images there are named alfamix-STAGE")
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        "IfNotPresent", description="pull policy of all images"
    )
    pull_secrets: tuple[Name, ...] = Field((), description="Secrets with logins of the registry")
    digests: dict[Literal[images.COMPONENTS], Digest] = Field(  # type: ignore[valid-type]  # a tuple of names
        default_factory=dict, description="images by digest in place of the version's tag, by stage"
    )


class StorageSettings(Record):
    """How stages reach the object store that holds projects and data."""

    secret: NameOrNone = Field(
        "alfamix-s3", description='Secret with the credentials, if there is one; "": the pod\'s own identity'
    )
    access_key: SecretKey = Field(access.ACCESS_KEY_ID, description="key of the Secret that has the access key")
    secret_key: SecretKey = Field(access.SECRET_ACCESS_KEY, description="key of the Secret that has the secret")
    session_token: SecretKey = Field(
        access.SESSION_TOKEN,
        description="key of the Secret that has the token of temporary credentials, if there is one",
    )
    endpoint_url: Annotated[str, _like(r"(https?://[^\s/@]+(/\S*)?)?", 'an http:// or https:// address, or ""')] = (
        Field("", description='address of a store other than AWS; "": AWS')
    )
    region: Annotated[str, _like(r"[A-Za-z0-9-]*", 'the name of a region, or ""')] = Field(
        "", description='region of the bucket; "": the client\'s default'
    )
    ca_config_map: NameOrNone = Field(
        "", description='ConfigMap whose key ca.crt has the certificate authority of the store; "": those of the image'
    )

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        keys = {"access_key": self.access_key, "secret_key": self.secret_key, "session_token": self.session_token}
        for name, other in itertools.combinations(keys, 2):
            if keys[name] == keys[other]:
                raise ValueError(f'storage.{name} and storage.{other} must differ, but both are "{keys[name]}"')
        return self


class LoaderSettings(Record):
    """The greatest values that any project has for the processes that read images; /dev/shm is sized for them."""

    workers: int = Field(4, ge=0, le=64, description="greatest training.loader_workers of the projects")
    batch: int = Field(
        256, ge=1, le=65_536, description="greatest model.embedding_batch or training.batch_size of the projects"
    )
    image_size: int = Field(224, ge=8, le=2048, description="greatest image.size of the projects, in pixels")


class RetrySettings(Record):
    """Waits between the attempts at a stage, inside the stage and for Argo."""

    backoff_seconds: int = Field(30, ge=1, le=3600, description="wait before the second attempt, in seconds")
    backoff_factor: int = Field(
        2, ge=1, le=10, description="factor by which each further wait is longer; whole, for Argo reads no other"
    )


class StageSettings(Record):
    """Where one stage runs, for how long, and how often it is repeated."""

    resources: Literal["small", "cpu", "gpu", "train"] = Field(
        description="class of pod, defined by the section of this name"
    )
    hours: float = Field(gt=0, le=720, description="time limit of one pod, in hours; it is killed then")
    retries: int = Field(
        2,
        ge=0,
        le=10,
        description="further attempts inside the pod after a storage error, and further pods after lost ones",
    )


class StagesSettings(Record):
    """The stages. Each may be repeated, because what it writes is created once or swapped under the run's fence."""

    ingest: StageSettings = StageSettings(resources="small", hours=1)
    snapshot: StageSettings = StageSettings(resources="small", hours=1)
    train: StageSettings = StageSettings(resources="train", hours=12)
    evaluate: StageSettings = StageSettings(resources="gpu", hours=2)
    embed: StageSettings = StageSettings(resources="gpu", hours=4)
    score: StageSettings = StageSettings(resources="cpu", hours=2)
    select: StageSettings = StageSettings(resources="cpu", hours=4)
    export: StageSettings = StageSettings(resources="small", hours=1)
    finish: StageSettings = StageSettings(resources="small", hours=0.5)


_GPU_POD = Resources(
    cpu_request="2",
    cpu_limit="8",
    memory_request="8Gi",
    memory_limit="16Gi",
    gpus=1,
    tolerations=(_GPU_TAINT,),
)


class PlatformSettings(Record):
    """The settings file."""

    run_hours: float = Field(
        24.0,
        gt=0,
        le=720,
        description="time limit of a whole run, in hours; more than the round.max_hours of every project",
    )
    user: Annotated[int | str, AfterValidator(_is_user)] = Field(
        65_532,
        description='numeric user and group of every container, never root; "platform": chosen by the cluster, as '
        "OpenShift wants it",
    )
    shards_at_once: int = Field(
        16, ge=1, le=256, description="shards that are worked on at a time, whatever round.max_shards says"
    )
    tmp_size: Memory = Field("10Gi", description="size of /tmp, on the node's disk")
    accelerator: Accelerator = Field("nvidia.com/gpu", description="name of the resource by which a GPU is requested")
    service_account: NameOrNone = Field(
        "",
        description="service account of the runs' pods, which may have a cloud identity; \"\": Kubeflow's default",
    )
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="further labels of every pod, such as a project or a cost centre"
    )
    environment: dict[Variable, str] = Field(
        default_factory=dict, description="further variables of every container; nothing secret"
    )
    images: ImageSettings = ImageSettings()
    storage: StorageSettings = StorageSettings()
    loader: LoaderSettings = LoaderSettings()
    small: Resources = Field(
        Resources(cpu_request="250m", cpu_limit="2", memory_request="1Gi", memory_limit="4Gi"),
        description="Pods of the stages that have resources small: by default ingest, snapshot, export and finish.",
    )
    cpu: Resources = Field(
        Resources(cpu_request="1", cpu_limit="4", memory_request="4Gi", memory_limit="8Gi"),
        description="Pods of the stages that have resources cpu: by default score and select.",
    )
    gpu: Resources = Field(
        _GPU_POD, description="Pods of the stages that have resources gpu: by default evaluate and embed."
    )
    train: Resources = Field(_GPU_POD, description="Pods of the stages that have resources train: by default train.")
    retry: RetrySettings = RetrySettings()
    stages: StagesSettings = StagesSettings()

    def stage(self, name: str) -> StageSettings:
        """Return the settings of a stage."""
        settings: StageSettings = getattr(self.stages, name)
        return settings

    def resources_of(self, name: str) -> Resources:
        """Return the size of a stage's pod."""
        resources: Resources = getattr(self, self.stage(name).resources)
        return resources

    def image(self, name: str) -> str:
        """Return the image of a stage: by digest if one is given, else by the version's tag."""
        return self.images.digests.get(name) or f"{self.images.registry}/alfamix-{name}:{images.TAG}"

    @property
    def run_seconds(self) -> int:
        """Return the time limit of a whole run, in seconds.

        It is also the time in which Argo may begin further attempts at a stage: it counts from the creation of the
        first pod, so that a pod that waits for a GPU would use up anything shorter.
        """
        return math.ceil(self.run_hours * 3600)

    def shared_memory(self, name: str) -> int:
        """Return the size of /dev/shm in a stage's pod, in MiB; 0 if a container's own is enough.

        Each worker holds two batches of uint8 images ready and works on a third. Training has one process per GPU, each
        with workers of its own, and they exchange gradients there.
        """
        size = 0
        gpus = self.resources_of(name).gpus
        if STAGES[name].loads_images:
            batch = self.loader.batch * _CHANNELS * self.loader.image_size**2
            workers = self.loader.workers * (max(gpus, 1) if name == "train" else 1)
            size = math.ceil(workers * (_PREFETCHED + 1) * batch / _MIB / _SHM_STEP) * _SHM_STEP
            size = max(size, _SHM_STEP)
        if name == "train" and gpus > 1:
            size += _COLLECTIVES
        return size

    @model_validator(mode="after")
    def _attempts_fit_into_the_run(self) -> Self:
        for name in images.COMPONENTS:
            if self.stage(name).hours > self.run_hours:
                raise ValueError(
                    f"stages.{name}.hours {self.stage(name).hours:g} must be at most run_hours {self.run_hours:g}"
                )
        return self

    @model_validator(mode="after")
    def _shared_memory_fits(self) -> Self:
        for name in images.COMPONENTS:
            limit = self.resources_of(name).memory_limit
            if self.shared_memory(name) * _MIB > quantity_bytes(limit) // 2:
                raise ValueError(
                    f"/dev/shm of {name} takes {self.shared_memory(name)}Mi for loader.workers {self.loader.workers}, "
                    f"more than half of {self.stage(name).resources}.memory_limit {limit}"
                )
        return self

    @model_validator(mode="after")
    def _nothing_is_set_twice(self) -> Self:
        for name in sorted(self.environment):
            for prefix, reason in _NOT_OURS_TO_SET.items():
                if name.upper().startswith(prefix):
                    raise ValueError(f"environment may not set {name}: {reason}")
            if name.upper().startswith("ALFAMIX_") and name not in _READ_BY_STAGES:
                raise ValueError(f"environment may not set {name}: of ours only {' and '.join(_READ_BY_STAGES)} may be")
        for key in sorted(self.labels):
            if key in RESERVED_LABELS:
                raise ValueError(f'labels may not set "{key}": every pod has its own')
            if key.partition("/")[0] in _RESERVED_DOMAINS and "/" in key:
                raise ValueError(f'labels may not set "{key}": Argo and Kubeflow use it')
        return self

    @model_validator(mode="after")
    def _nothing_is_a_template(self) -> Self:
        for field, text in _texts("", self.model_dump(mode="json")):
            if "{{" in text or "$(" in text:
                raise ValueError(f'"{field}" must hold neither {{{{ nor $(, which Argo or Kubernetes would replace')
            if any(ord(character) < 32 and character not in "\t\n" for character in text):
                raise ValueError(f'"{field}" must hold no control characters')
        return self


def _texts(field: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield every text with the name of its field, keys of tables included."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield field, key
            yield from _texts(f"{field}.{key}".removeprefix("."), item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(field, item)


RESERVED_LABELS = {
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
}
_RESERVED_DOMAINS = {"workflows.argoproj.io", "pipelines.kubeflow.org", "pipeline"}


def read(path: Path) -> PlatformSettings:
    """Read a settings file.

    Raises:
        InputError: No such file, not TOML, an unknown setting, a wrong value; one line that names the file.
    """
    try:
        fields = tomllib.loads(_text_of(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is not TOML: {error}") from None
    return PlatformSettings.parse(json.dumps(_completed(fields, PlatformSettings()), default=str), str(path))


def _completed(fields: dict[str, object], defaults: Record) -> dict[str, object]:
    """Return the fields, with the defaults of their own section for those that are left out.

    A section that is given in part keeps the rest of its own defaults, not those of its kind: ``[gpu] gpus = 2`` still
    has the memory of ``gpu``.
    """
    completed: dict[str, object] = json.loads(defaults.document())
    for name, value in fields.items():
        section = getattr(defaults, name, None)
        partial = isinstance(value, dict) and isinstance(section, Record)
        completed[name] = _completed(value, section) if partial else value  # type: ignore[arg-type]  # as just tested
    return completed


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be UTF-8 text: {error.reason} at byte {error.start}") from None


def from_environment() -> PlatformSettings:
    """Return the settings of the file that $ALFAMIX_PLATFORM_SETTINGS names, or the defaults if it is not set."""
    path = os.environ.get(ENVIRONMENT)
    return read(Path(path)) if path else PlatformSettings()


def with_digests(settings: PlatformSettings, path: Path) -> PlatformSettings:
    """Return the settings with every image by digest.

    Args:
        settings: All other settings.
        path: File, see ``read_digests``; a line for the trigger is not needed.

    Raises:
        InputError: A line of another form, a component that is named twice or not at all.
    """
    digests = read_digests(path)
    missing = [name for name in images.COMPONENTS if name not in digests]
    if missing:
        raise InputError(f"{path}: no line for {', '.join(missing)}")
    digests.pop(images.TRIGGER, None)
    fields = settings.model_dump(mode="json")
    fields["images"]["digests"] = digests
    return PlatformSettings.parse(json.dumps(fields), str(path))


def read_digests(path: Path) -> dict[str, str]:
    """Return the images by digest that a file lists, by component.

    Args:
        path: File with lines ``component image@sha256:…``, one for each component or the trigger; blank lines and
            lines that begin with # are ignored.

    Raises:
        InputError: The file cannot be read, or a line has another form or names a component for the second time.
    """
    digests: dict[str, str] = {}
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, *rest = line.split()
        if len(rest) != 1:
            raise InputError(f'{path} line {number}: must be "component image@sha256:…", not "{line.strip()[:100]}"')
        if name not in (*images.COMPONENTS, images.TRIGGER):
            raise InputError(f'{path} line {number}: there is no component "{name[:100]}"')
        if name in digests:
            raise InputError(f'{path} line {number}: "{name}" is named twice')
        digests[name] = rest[0]
    return digests


def markdown() -> str:
    """Return docs/platform-settings.md."""
    lines = [
        "# Platform settings",
        "",
        "A TOML file describes the resources that a cluster provides for a round; a setting that it does not name",
        f"keeps its default. `alfamix compile round.yaml --settings FILE` uses the file, and `${ENVIRONMENT}`",
        "names it to `alfamix round`, `alfamix trigger` and `alfamix schedule`. A name with a dot belongs to a",
        "section:",
        "",
        "```toml",
        "run_hours = 48",
        "[train]",
        "gpus = 4",
        'memory_limit = "64Gi"',
        "[stages.train]",
        "hours = 36",
        "```",
        "",
        "`alfamix settings --platform --markdown` generates this page; a test compares it.",
        "",
        *settings_table.sections(PlatformSettings),
    ]
    return "\n".join(lines) + "\n"
