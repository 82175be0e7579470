"""A description is read alone: in a table, in Kubeflow's form, above a panel. So it has to stand on its own."""

import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from alfamix_core import records
from alfamix_core.acquisition import registry
from alfamix_core.records.project import Project
from alfamix_core.records.record import Record
from alfamix_core.records.settings_table import settings
from alfamix_core.telemetry import metrics
from components import images
from pipelines.platform_settings import PlatformSettings
from pipelines.round import alfamix_round

ROOT = Path(__file__).parent.parent
PREPOSITIONS = frozenset(
    "about above across after against along among around as at before behind below beside besides between beyond by "
    "during for from in inside into like of off on onto out over per since than through till to toward towards under "
    "until up upon via with within without".split()
)
CONJUNCTIONS = frozenset("and because but how if or so that though unless what when where which while who".split())


def faults(description: str | None) -> Iterator[str]:
    """Yield why a description does not stand on its own."""
    first = re.match(r"[\w']*", (description or "").strip())
    word = first[0].lower() if first else ""
    if not (description or "").strip():
        yield "is empty"
    elif word in PREPOSITIONS:
        yield f'begins with the preposition "{word}": name the thing first'
    elif word in CONJUNCTIONS:
        yield f'begins with "{word}": name the thing first'


def of_settings(record: type[Record]) -> Iterator[tuple[str, str]]:
    """Yield name and description of each setting."""
    for setting in settings(record):
        yield f"{record.__name__}.{setting.name}", setting.meaning


def of_records() -> Iterator[tuple[str, str]]:
    """Yield name and description of each field of each record, without the sections of settings."""
    for module in pkgutil.iter_modules(records.__path__, f"{records.__name__}."):
        for kind in vars(import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == module.name:
                for name, field in kind.model_fields.items():
                    if not (kind is Project and isinstance(field.annotation, type(Record))):
                        yield f"{kind.__name__}.{name}", field.description or ""


def of_strategies() -> Iterator[tuple[str, str]]:
    """Yield name and meaning of each strategy's parameters."""
    for strategy in registry.own_names():
        for name, annotation in registry.annotations(strategy).items():
            yield f"{strategy}.{name}", registry.meaning(annotation)


def of_metrics() -> Iterator[tuple[str, str]]:
    """Yield name and help of each metric."""
    for metric in metrics.ALL:
        yield metric.name, metric.help


def of_components() -> Iterator[tuple[str, str]]:
    """Yield name and description of the pipeline and of each component, and of all that goes in and comes out."""
    components = [getattr(import_module(f"components.{stage}.component"), stage) for stage in images.COMPONENTS]
    for component in (alfamix_round, *components):
        found = component.component_spec
        stage = found.name
        yield stage, found.description
        for side in (found.inputs or {}, found.outputs or {}):
            for name, field in side.items():
                yield f"{stage}.{name}", field.description


@pytest.mark.parametrize(
    "described",
    [
        *(of_settings(Project), of_settings(PlatformSettings), of_records()),
        *(of_strategies(), of_metrics(), of_components()),
    ],
    ids=["settings", "platform settings", "records", "strategies", "metrics", "components"],
)
def test_every_description_stands_on_its_own(described: Iterator[tuple[str, str]]):
    pairs = list(described)
    assert len(pairs) > 40
    assert [f"{name}: {text!r} {fault}" for name, text in pairs for fault in faults(text)] == []


@pytest.mark.parametrize("text", [None, "", "  ", "of a push", "Between checkpoints, in seconds", "if set, no round"])
def test_a_description_that_does_not_is_found(text: str | None):
    assert len(list(faults(text))) == 1


@pytest.mark.parametrize("text", ["time limit of one push, in seconds", "1 while a run holds the lock", "Format: any"])
def test_a_noun_phrase_stands_on_its_own(text: str):
    assert list(faults(text)) == []


@pytest.mark.parametrize("record", [Project, PlatformSettings])
def test_every_section_is_introduced_by_a_sentence(record: type[Record]):
    for name, field in record.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Record):
            words = field.description or inspect.getdoc(field.annotation) or ""
            assert re.match(r"[A-Z].*\.$", words, re.DOTALL), name


def test_every_setting_that_a_metric_or_an_alert_names_exists():
    known = {setting.name for setting in settings()}
    sections = {name.partition(".")[0] for name in known if "." in name}
    texts = {metric.name: metric.help for metric in metrics.ALL}
    texts |= {path.name: path.read_text("utf-8") for path in (ROOT / "monitoring" / "rules").glob("*.yml")}
    named = {
        (where, found[0])
        for where, text in texts.items()
        for found in re.finditer(rf"(?<![\w./:])(?:{'|'.join(sections)})\.[a-z_]+", text)
    }
    assert len(named) > 4
    assert {pair for pair in named if pair[1] not in known} == set()
