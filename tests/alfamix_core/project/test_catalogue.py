"""What the text of the strategies' files says agrees with what importing them says."""

import subprocess
import sys
from pathlib import Path

import pytest

from alfamix_core.acquisition import strategies
from alfamix_core.errors import InputError
from alfamix_core.project import catalogue
from alfamix_core.records.project import StrategySettings


def test_the_catalogue_knows_the_strategies_and_their_tunables():
    assert list(catalogue.strategies()) == strategies.names()
    for name, tunables in catalogue.strategies().items():
        assert list(tunables) == list(strategies.tunables(name))


def test_the_catalogue_needs_no_torch():
    code = (
        "import sys; from alfamix_core.project import catalogue; catalogue.strategies(); print('torch' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_every_strategy_is_accepted_with_its_own_defaults():
    for name in catalogue.strategies():
        defaults = {key: parameter.default for key, parameter in strategies.tunables(name).items()}
        given = {key: value for key, value in defaults.items() if value is not None}
        catalogue.check(StrategySettings(name=name, parameters=given))
        strategies.load(name, given)


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"grow": 1}, "strategy.parameters.grow must be true or false, not 1"),
        ({"max_candidates": 1.5}, "strategy.parameters.max_candidates must be a whole number, not 1.5"),
        ({"max_candidates": True}, "strategy.parameters.max_candidates must be a whole number, not true"),
        ({"clustering": "slow"}, 'strategy.parameters.clustering must be "fast" or "best" or "ten_starts", not "slow"'),
    ],
)
def test_a_value_that_a_parameter_does_not_take_is_refused_as_loading_refuses_it(parameters, line):
    with pytest.raises(InputError, match=f"^{line}$"):
        catalogue.check(StrategySettings(parameters=parameters))
    with pytest.raises(InputError):
        strategies.load("alfamix", parameters)


def test_an_unknown_strategy_is_refused_with_the_known_ones_and_the_nearest():
    with pytest.raises(InputError) as refused:
        catalogue.check(StrategySettings(name="entropie"))
    known = ", ".join(strategies.names())
    assert str(refused.value) == (
        f'strategy.name: unknown strategy "entropie"; known are {known}; did you mean "entropy"?'
    )


def test_an_unknown_cold_start_is_refused_too():
    with pytest.raises(InputError, match=r'^strategy.cold_start: unknown strategy "warm"; known are alfamix, '):
        catalogue.check(StrategySettings(cold_start="warm"))


def test_an_unknown_parameter_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r'^strategy.parameters: random has no parameter "x"; it knows: none$'):
        catalogue.check(StrategySettings(name="random", parameters={"x": 1}))
    known = ", ".join(strategies.tunables("alfamix"))
    with pytest.raises(InputError, match=f'alfamix has no parameter "x"; it knows: {known}$'):
        catalogue.check(StrategySettings(parameters={"x": 1}))
