"""Settings of a cluster: defaults, files that change some of them, and lines that say what is wrong."""

import json
import math
from pathlib import Path

import pytest

from alfamix_core.errors import InputError
from components import images
from components.stages import STAGES
from pipelines import platform_settings
from pipelines.platform_settings import PlatformSettings, cores, quantity_bytes, read

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "0123456789abcdef" * 4


def read_text(folder: Path, text: str) -> PlatformSettings:
    path = folder / "platform.toml"
    path.write_text(text, "utf-8")
    return read(path)


def test_an_empty_file_is_the_defaults(tmp_path: Path):
    assert read_text(tmp_path, "") == PlatformSettings()


def test_no_file_is_the_defaults_and_the_environment_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(platform_settings.ENVIRONMENT, raising=False)
    assert platform_settings.from_environment() == PlatformSettings()
    (tmp_path / "p.toml").write_text("run_hours = 30", "utf-8")
    monkeypatch.setenv(platform_settings.ENVIRONMENT, str(tmp_path / "p.toml"))
    assert platform_settings.from_environment().run_hours == 30


def test_the_defaults_fit_a_cluster_with_one_gpu():
    settings = PlatformSettings()
    assert max(settings.resources_of(stage).gpus for stage in images.COMPONENTS) == 1
    assert [stage for stage in images.COMPONENTS if settings.resources_of(stage).gpus] == ["train", "evaluate", "embed"]


def test_a_section_that_is_given_in_part_keeps_the_rest_of_its_own_defaults(tmp_path: Path):
    settings = read_text(tmp_path, "[train]\ngpus = 4\n[stages.train]\nhours = 20\n")
    default = PlatformSettings()
    assert settings.train == default.train.model_copy(update={"gpus": 4})
    assert settings.stages.train == default.stages.train.model_copy(update={"hours": 20})
    assert settings.stages.embed == default.stages.embed
    assert settings.gpu == default.gpu


def test_every_default_can_be_written_down_and_read_back(tmp_path: Path):
    """JSON of a table without null is TOML's inline value of a key, so the defaults can be written as one."""
    fields = PlatformSettings().model_dump(mode="json")
    lines = [f"{name} = {_toml(value)}" for name, value in fields.items()]
    assert read_text(tmp_path, "\n".join(lines)) == PlatformSettings()


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("run_hours = ", "is not TOML"),
        ("run_hour = 3", 'unknown field "run_hour"'),
        ('run_hours = "a"', 'field "run_hours" must be a valid number, not "a"'),
        ("run_hours = nan", "must be a finite number"),
        ("user = 0", 'field "user" must be the number of a user other than root, or "platform", not 0'),
        ('user = "root"', 'must be the number of a user other than root, or "platform", not "root"'),
        ("[retry]\nbackoff_factor = 1.5", 'field "retry.backoff_factor" must be a valid integer, not 1.5'),
        ("gpu = 3", 'field "gpu" must be an object, not 3'),
        ("[gpu]\nx = 1", 'unknown field "gpu.x"'),
        ('[gpu]\nmemory_limit = "8 GB"', 'field "gpu.memory_limit" must be a size such as 512Mi or 8Gi, not "8 GB"'),
        ('[gpu]\nmemory_request = "17Gi"', "memory_request 17Gi must be at most memory_limit 16Gi"),
        ('[train]\ncpu_request = "8500m"', "cpu_request 8500m must be at most cpu_limit 8"),
        ('[small]\ncpu_limit = "0"', 'must be a number of cores such as 500m or 2, not "0"'),
        ('[stages.train]\nresources = "big"', "'small', 'cpu', 'gpu' or 'train'"),
        ("[stages.train]\nhours = 48", "stages.train.hours 48 must be at most run_hours 24"),
        ('[[gpu.tolerations]]\nkey = "k"\nvalue = "v"', 'toleration of "k": Exists takes no value'),
        ("[loader]\nworkers = 64\nbatch = 1024", "/dev/shm of train takes 28224Mi for loader.workers 64"),
        ('[labels]\n"a b" = "c"', "must be a Kubernetes label"),
        ('[labels]\nteam = "a/b"', "the value of a Kubernetes label"),
        ('[labels]\n"app.kubernetes.io/name" = "c"', "every pod has its own"),
        (
            '[environment]\nAWS_SECRET_ACCESS_KEY = "x"',
            "environment may not set AWS_SECRET_ACCESS_KEY: Kubeflow's launch",
        ),
        (
            '[environment]\nALFAMIX_S3_REGION = "x"',
            "environment may not set ALFAMIX_S3_REGION: the storage settings do",
        ),
        (
            '[environment]\nALFAMIX_STAGE_RETRIES = "9"',
            "may not set ALFAMIX_STAGE_RETRIES: the retry and stages settings",
        ),
        *(
            (f'[environment]\n{name} = "x"', f"environment may not set {name}: Kubeflow's launcher would read it")
            for name in (
                "AWS_PROFILE",
                "AWS_CONFIG_FILE",
                "AWS_ROLE_ARN",
                "AWS_CA_BUNDLE",
                "aws_region",
                "SSL_CERT_FILE",
            )
        ),
        ('[environment]\nKFP_POD_NAME = "x"', "may not set KFP_POD_NAME: Kubeflow sets it"),
        ('[environment]\nARGO_TEMPLATE = "x"', "may not set ARGO_TEMPLATE: Argo sets it"),
        ('[environment]\nKUBERNETES_SERVICE_HOST = "x"', "Kubernetes sets it"),
        ('[environment]\nALFAMIX_DRIVER = "x"', "of ours only ALFAMIX_LOG and ALFAMIX_TRAIN_PROCESSES may be"),
        ('[environment]\nALFAMIX_KUBEFLOW_TOKEN = "x"', "may not set ALFAMIX_KUBEFLOW_TOKEN"),
        *(
            (f'[labels]\n"{key}" = "x"', f'labels may not set "{key}": Argo and Kubeflow use it')
            for key in (
                "workflows.argoproj.io/workflow",
                "workflows.argoproj.io/on-exit",
                "pipelines.kubeflow.org/v2_component",
                "pipeline/runid",
            )
        ),
        ('[environment]\nA = "{{inputs.parameters.x}}"', '"environment.A" must hold neither {{ nor $('),
        ('[environment]\nA = "$(B)"', '"environment.A" must hold neither {{ nor $('),
        ('[environment]\nA = "\\u0000"', '"environment.A" must hold no control characters'),
        ('[storage]\nendpoint_url = "http://{{workflow.name}}"', '"storage.endpoint_url" must hold neither'),
        ('[storage]\nendpoint_url = "http://me:s3cret@store"', "http:// or https:// address"),
        (
            '[storage]\naccess_key = "k"\nsecret_key = "k"',
            'access_key and storage.secret_key must differ, but both are "k"',
        ),
        ('[storage]\nsession_token = "ALFAMIX_S3_ACCESS_KEY_ID"', "storage.access_key and storage.session_token must"),
        ('[storage]\naccess_key = "a/b"', "must be a key of a Secret"),
        ('[storage]\nregion = "eu west"', "must be the name of a region"),
        *(
            (f'accelerator = "{name}"', 'field "accelerator" must be a resource')
            for name in ("", "gpu", "nvidia.com/", "NVIDIA_TESLA_K80", "nvidia.com/gpu:2", "a b/c", "kubernetes.io/gpu")
        ),
        ('[gpu]\nmemory_limit = "99999999Ti"', "must be from 64Mi to 64Ti"),
        ('[gpu]\nmemory_request = "16"', "must be from 64Mi to 64Ti"),
        ('tmp_size = "1Ki"', "must be from 64Mi to 64Ti"),
        ('[gpu]\ncpu_limit = "100000"', "must be from 10m to 1024 cores"),
        ('[gpu]\ncpu_request = "0.0000000001"', "must be from 10m to 1024 cores"),
        ('[storage]\nsecret = "a..b"', "the name of a Kubernetes object"),
        (f'[storage]\nsecret = "{"a" * 254}"', "the name of a Kubernetes object"),
        ('[labels]\n"a..b/c" = "x"', "a Kubernetes label"),
        ('accelerator = "a..b/c"', "must be a resource"),
        ('[[gpu.tolerations]]\nkey = "a b"', "must be the key of a taint"),
        ('[[gpu.tolerations]]\nkey = "k"\noperator = "Equal"\nvalue = "a/b"', "the value of a Kubernetes label"),
        ('[[gpu.tolerations]]\nkey = ""\noperator = "Equal"\nvalue = "a"', "with Equal must name the key of a taint"),
        ('[environment]\n"A B" = "x"', "the name of an environment variable"),
        ('[images]\nregistry = "https://x"', "a registry and a path"),
        ('[images]\nregistry = "a..b/c"', "a registry and a path"),
        ('[images]\nregistry = "a.b/c/"', "a registry and a path"),
        ('[images.digests]\ntrain = "x:1"', "an image by digest"),
        ('[storage]\nsecret = "A_b"', "the name of a Kubernetes object"),
        ('[storage]\nendpoint_url = "seaweedfs:8333"', "http:// or https:// address"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path: Path, text: str, reason: str):
    with pytest.raises(InputError) as raised:
        read_text(tmp_path, text)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}/platform.toml: ")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    [
        'accelerator = "nvidia.com/mig-1g.5gb"',
        'accelerator = "amd.com/gpu"',
        '[environment]\nALFAMIX_LOG = "human"\nTORCH_HOME = "/tmp"\nAWSOME = "1"',
        '[labels]\n"app.kubernetes.io/instance" = "cats"\npipeline = "x"\n"example.org/team" = "a"',
        '[[gpu.tolerations]]\nkey = ""',
        '[storage]\nendpoint_url = "https://store.example.org:9000/s3"',
        '[gpu]\nmemory_limit = "64Ti"\nmemory_request = "64Mi"',
    ],
)
def test_what_is_unusual_and_right_is_taken(tmp_path: Path, text: str):
    read_text(tmp_path, text)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(InputError, match="must be UTF-8 text"):
        read(tmp_path / "latin.toml")


def test_quantities_by_hand():
    assert [quantity_bytes(text) for text in ("7", "1Ki", "512Mi", "8Gi", "1Ti")] == [7, 2**10, 2**29, 2**33, 2**40]
    assert [cores(text) for text in ("2", "500m", "0.5", "1.5")] == [2, 0.5, 0.5, 1.5]


def test_shared_memory_holds_what_the_workers_hold_ready():
    """4 workers, 2 batches ready and 1 in work, 256 x 3 x 224 x 224 bytes each: 441 MiB, in steps of 64: 448."""
    settings = PlatformSettings()
    assert 4 * 3 * 256 * 3 * 224**2 / 2**20 == 441
    needed = {stage: settings.shared_memory(stage) for stage in images.COMPONENTS}
    assert {stage: size for stage, size in needed.items() if size} == dict.fromkeys(
        (name for name, stage in STAGES.items() if stage.loads_images), 448
    )


def test_shared_memory_is_never_less_than_a_container_has_without_it(tmp_path: Path):
    assert read_text(tmp_path, "[loader]\nworkers = 0").shared_memory("embed") == 64


def test_training_on_two_gpus_has_twice_the_workers_and_room_for_gradients(tmp_path: Path):
    """2 x 441 MiB in steps of 64, and 1 GiB."""
    settings = read_text(tmp_path, "[train]\ngpus = 2")
    assert settings.shared_memory("train") == 896 + 1024
    assert settings.shared_memory("embed") == 448


def test_an_image_is_by_tag_of_the_registry_or_by_digest(tmp_path: Path):
    text = f'[images]\nregistry = "registry.example.org:5000/team"\n[images.digests]\ntrain = "x/y@{DIGEST}"'
    settings = read_text(tmp_path, text)
    assert settings.image("embed") == f"registry.example.org:5000/team/alfamix-embed:{images.TAG}"
    assert settings.image("train") == f"x/y@{DIGEST}"
    assert [PlatformSettings().image(stage) for stage in images.COMPONENTS] == list(
        map(images.image, images.COMPONENTS)
    )


def digests(*left_out: str) -> str:
    names = [name for name in (*images.COMPONENTS, images.TRIGGER) if name not in left_out]
    return "# pushed\n\n" + "".join(f"{name} r.example.org/alfamix-{name}@{DIGEST}\n" for name in names)


def test_digests_of_a_file_replace_every_tag(tmp_path: Path):
    (tmp_path / "digests").write_text(digests(), "utf-8")
    settings = platform_settings.with_digests(PlatformSettings(), tmp_path / "digests")
    assert {settings.image(name) for name in images.COMPONENTS} == {
        f"r.example.org/alfamix-{name}@{DIGEST}" for name in images.COMPONENTS
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (digests("train", "score"), "no line for train, score"),
        (digests() + f"train x@{DIGEST}\n", 'line 13: "train" is named twice'),
        (digests() + f"tarin x@{DIGEST}\n", 'line 13: there is no component "tarin"'),
        (digests() + "train\n", 'line 13: must be "component image@sha256:…", not "train"'),
        (digests("train") + "train ghcr.io/x:1\n", "must be an image by digest, name@sha256:…, not"),
    ],
)
def test_wrong_digests_are_one_line(tmp_path: Path, text: str, reason: str):
    (tmp_path / "digests").write_text(text, "utf-8")
    with pytest.raises(InputError) as raised:
        platform_settings.with_digests(PlatformSettings(), tmp_path / "digests")
    assert reason in str(raised.value)


def test_the_page_of_settings_is_the_generated_one():
    assert (ROOT / "docs" / "platform-settings.md").read_text("utf-8") == platform_settings.markdown(), (
        "run `make docs`"
    )


def test_the_page_shows_the_defaults_of_each_section():
    page = platform_settings.markdown()
    assert '| `stages.train.resources` | small, cpu, gpu or train | `"train"` | class of pod,' in page
    assert '| `small.memory_limit` | text | `"4Gi"` |' in page
    assert math.isclose(PlatformSettings().stages.finish.hours, 0.5)
    assert "| `stages.finish.hours` | number, > 0, ≤ 720 | `0.5` |" in page
