from alfamix_core.acquisition.tunable_types import NoTunables
from alfamix_core.acquisition.tunables import typiclust
from alfamix_core.choosing.decision import strategy_of_round
from alfamix_core.records.model import ModelCard
from alfamix_core.records.project import Project


def chosen(strategy, temperature, *, trained=True):
    settings = Project.model_validate({"name": "pets", "classes": ("cat", "dog"), "strategy": strategy})
    card = ModelCard(
        classes=settings.classes,
        model=settings.model,
        image=settings.image,
        embedding_size=8,
        round=1,
        trained=trained,
    )
    return strategy_of_round(settings, card, temperature).tunables


def test_a_strategy_that_takes_a_temperature_has_that_of_the_champion():
    assert chosen({"name": "uherding"}, 2.5).temperature == 2.5
    assert chosen({"name": "uherding"}, None).temperature == 1.0
    assert chosen({"name": "margin"}, 2.5) == NoTunables()
    assert chosen({"name": "uherding"}, 2.5, trained=False) == typiclust.Tunables()


def test_a_temperature_that_the_user_gives_is_kept():
    assert chosen({"name": "uherding", "parameters": {"temperature": 1.5}}, 2.5).temperature == 1.5
