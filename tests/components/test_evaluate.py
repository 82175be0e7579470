"""The round's model beside the champion: on the test split, or on the audit where nothing is for testing."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from alfamix_core.learning import model_folder
from alfamix_core.learning.backbones import initial
from alfamix_core.project import layout, models, rounds
from alfamix_core.project.initialise import initialise
from alfamix_core.records.champion import Champion
from alfamix_core.records.lock import Holder
from alfamix_core.records.model import ModelCard
from alfamix_core.records.project import Project
from alfamix_core.storage import file_uri, open_store
from components.evaluate import stage as evaluate
from components.ingest import stage as ingest
from components.snapshot import stage as snapshot


def write_model(folder: Path, settings: Project, classes: tuple[str, ...], bias: list[float], number: int) -> None:
    """A model that answers the same class whatever it sees: that of the greatest bias."""
    network = initial(settings.model, settings.image, len(classes), 0)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor(bias))
    folder.mkdir(parents=True)
    card = ModelCard(
        classes=classes,
        model=settings.model,
        image=settings.image,
        embedding_size=network.embedding_size,
        round=number,
        trained=True,
    )
    model_folder.save(folder, network, card)
    (folder / "stage.json").write_text('{"runs": []}')


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two grey pictures of each class, for testing; the champion came from elsewhere, as round 0."""
    lines = []
    for name in ("cat", "dog", "owl"):
        for index in range(2):
            path = tmp_path / "project" / "drops" / "d" / f"{name}{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 40 * index).save(path)
            lines.append(json.dumps({"uri": path.name, "label": name, "split": "test"}))
    settings = {
        "name": "pets",
        "classes": ["cat", "dog", "owl"],
        "model": {"backbone": "mlp", "embedding_batch": 32},
        "image": {"size": 8, "channels": "grey"},
    }
    store = open_store(file_uri(tmp_path / "project"))
    initialise(store, Project.parse(json.dumps(settings), "project"))
    store.create(layout.manifest("d"), "\n".join(lines).encode())
    return tmp_path / "project"


def run(project: Path, tmp_path: Path, bias: list[float], champion_classes: tuple[str, ...]):
    store = open_store(file_uri(project))
    settings = rounds.read_settings(store)
    source = tmp_path / "champion-model"
    write_model(source, settings, champion_classes, [1.0] + [0.0] * (len(champion_classes) - 1), 0)
    serving = Champion(revision=1, round=0, model=models.upload(store, source))
    store.create(layout.CHAMPION, serving.document())
    key = ingest.run(store.uri, Holder(run_id="run"))
    paths = {name: str(tmp_path / name) for name in ("snapshot", "champion", "model", "evaluation")}
    snapshot.run(store.uri, key, paths["snapshot"], paths["champion"])
    write_model(tmp_path / "model", settings, settings.classes, bias, 1)
    found = evaluate.run(store.uri, "run", paths["snapshot"], paths["champion"], paths["model"], paths["evaluation"])
    return store, found


def test_a_champion_that_knows_fewer_classes_is_still_compared(project: Path, tmp_path: Path):
    _, found = run(project, tmp_path, [0.0, 0.0, 1.0], ("cat", "dog"))
    assert found.metrics["accuracy"] == found.promotion.champion_metrics["accuracy"] == pytest.approx(1 / 3)
    assert found.promotion.recalls == {"cat": 0.0, "dog": 0.0, "owl": 1.0}
    assert found.promotion.champion_recalls == {"cat": 1.0, "dog": 0.0, "owl": 0.0}
    assert found.agreement == 0.0


def test_evaluating_changes_no_record(project: Path, tmp_path: Path):
    """The proposal counts once export commits the round; no round owns a model of a run that was killed."""
    store, found = run(project, tmp_path, [0.0, 0.0, 1.0], ("cat", "dog"))
    assert found.promotion.promoted
    record, _ = rounds.read(store, 1)
    assert (record.state, record.model, record.promotion) == ("planned", "", None)
    assert Champion.parse(store.read(layout.CHAMPION).data, "").round == 0


def test_a_model_that_predicts_what_the_champion_predicts_agrees_completely(project: Path, tmp_path: Path):
    _, found = run(project, tmp_path, [1.0, 0.0, 0.0], ("cat", "dog", "owl"))
    assert found.agreement == 1.0


def test_a_trained_model_is_kept_whether_or_not_it_is_promoted(project: Path, tmp_path: Path):
    store, found = run(project, tmp_path, [0.0, 1.0, 0.0], ("cat", "dog", "owl"))
    assert found.promotion.split == "test"
    models.fetch(store, found.promotion.model, tmp_path / "fetched")
    assert {path.name: path.read_bytes() for path in (tmp_path / "fetched").iterdir()} == {
        name: (tmp_path / "model" / name).read_bytes() for name in models.FILES
    }


@pytest.mark.parametrize("many", [100, 3])
def test_kubeflow_gets_the_matrix_of_few_classes_and_only_the_worst_pairs_of_many(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
):
    """A matrix grows with the square of the classes, in the metadata of an artifact; here 3 are many, or 100."""
    from kfp import dsl

    from components.evaluate.component import evaluate as component

    monkeypatch.setattr(evaluate, "MANY_CLASSES", many)
    store, _ = run(project, tmp_path, [0.0, 0.0, 1.0], ("cat", "dog"))
    key = rounds.read(store, 1)[0].key
    kinds = {"evaluation": dsl.Dataset, "metrics": dsl.Metrics, "confusion": dsl.ClassificationMetrics}
    given = {name: kind(uri=str(tmp_path / "out" / name)) for name, kind in kinds.items()}
    given |= {name: dsl.Model(uri=str(tmp_path / name)) for name in ("champion", "model")}
    page = tmp_path / "out" / "mistakes"
    snapshot_in, mistakes = dsl.Dataset(uri=str(tmp_path / "snapshot")), dsl.Markdown(uri=str(page))
    component.python_func(
        project_uri=store.uri, key=key, run_id="run", snapshot=snapshot_in, mistakes=mistakes, **given
    )
    assert ("confusionMatrix" in given["confusion"].metadata) == (many == 100)
    assert page.read_text("utf-8").splitlines()[4:] == ["| cat | owl | 2 | 100.0% |", "| dog | owl | 2 | 100.0% |"]
    assert "confusion" in (tmp_path / "out" / "evaluation" / "evaluation.json").read_text("utf-8")


def test_the_temperature_is_recorded_and_kept_with_the_champions_metrics(project: Path, tmp_path: Path):
    """Always sure of one class, right one time in three: no temperature of the grid is high enough."""
    _, found = run(project, tmp_path, [0.0, 0.0, 9.0], ("cat", "dog"))
    assert found.temperature == found.promotion.metrics["temperature"] == 20.0
