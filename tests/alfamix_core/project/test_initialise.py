import pytest

from alfamix_core.errors import InputError
from alfamix_core.project.initialise import initialise
from alfamix_core.records.project import Project, StrategySettings

BIRDS = Project(name="birds", classes=("cat", "dog"))


def test_a_project_is_made_once(store):
    initialise(store, BIRDS)
    assert [entry.key for entry in store.list()] == ["project.json"]
    with pytest.raises(InputError, match=r"is a project already; edit its project.json instead"):
        initialise(store, BIRDS.model_copy(update={"budget": 7}))
    assert Project.parse(store.read("project.json").data, "") == BIRDS


def test_an_unknown_strategy_is_found_before_anything_is_written(place):
    with pytest.raises(InputError, match="unknown strategy"):
        initialise(place, BIRDS.model_copy(update={"strategy": StrategySettings(name="magic")}))
    assert list(place.list()) == []
