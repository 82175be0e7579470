"""Which strategies there are and what each takes, known without torch; strategies of other packages."""

import dataclasses
import subprocess
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core import select
from alfamix_core.acquisition import registry, strategies
from alfamix_core.acquisition.schedule import CAPS, schedule
from alfamix_core.acquisition.tunable_types import Ge, Gt, Le, Lt
from alfamix_core.errors import InputError

ROOT = Path(__file__).parents[3]
TUNABLES = [(name, key) for name in registry.own_names() for key in registry.annotations(name)]


def line(call):
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_registry_needs_neither_torch_nor_anything_beside_python():
    code = (
        "import sys; from alfamix_core.acquisition import registry; [registry.check(n, {}) for n in registry.names()];"
        "print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_every_file_of_tunables_belongs_to_a_strategy():
    folder = ROOT / "alfamix_core" / "acquisition" / "tunables"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} <= set(registry.own_names())


@pytest.mark.parametrize("name", registry.own_names())
def test_tunables_are_frozen_with_defaults_that_fit_and_a_meaning_each(name):
    kind = registry.tunables(name)
    registry._check_class(kind, name)
    assert registry.check(name, dataclasses.asdict(kind())) == kind()
    for key, annotation in registry.annotations(name).items():
        text = registry.meaning(annotation)
        assert text.endswith("."), f"{name}.{key}: the meaning must be a text with a full stop, not {text!r}"
        assert text.split()[0].lower() not in ("of", "for", "at", "by", "in", "from", "to"), text


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("bald", {"passes": 1}, "passes must be a whole number from 2 on, not 1"),
        ("bald", {"passes": True}, "passes must be a whole number from 2 on, not true"),
        ("bald", {"passes": 2.0}, "passes must be a whole number from 2 on, not 2.0"),
        ("alfamix", {"grow": 1}, "grow must be true or false, not 1"),
        ("alfamix", {"clustering": "slow"}, 'clustering must be "fast" or "best" or "ten_starts", not "slow"'),
        ("alfamix", {"first_cap": 0}, "first_cap must be a number above 0 or null, not 0"),
        ("alfamix", {"first_cap": 2.0}, "caps must begin above 0 and grow, not from 2 by 0.2 to 1"),
        ("alfamix", {"cap_step": 1e-320}, "there must be at most 1000 caps, not inf"),
        ("alfamix", {"alpha": "random", "epsilon": 1.0}, 'epsilon must be null where alpha is "random", not 1'),
        (
            "alfamix",
            {"alpha": "bounded", "anchors": "nearest"},
            'anchors must not be "nearest" where each anchor has a ray of its own',
        ),
        (
            "alfamix",
            {"compatibility": "released", "selection": "symmetric_kl"},
            'selection must not be "symmetric_kl" where each anchor has a ray of its own',
        ),
        ("dropquery", {"dropout": 1}, "dropout must be a number above 0 and below 1, not 1"),
        ("probcover", {"purity": 1.5}, "purity must be a number above 0 and up to 1, not 1.5"),
        ("probcover", {"clusters": 1}, "clusters must be a whole number from 2 on or null, not 1"),
        ("batchbald", {"outcomes": 0}, "outcomes must be a whole number from 1 on, not 0"),
        ("typiclust", {"max_compared": 1}, "max_compared must be a whole number from 2 on, not 1"),
        ("dfal", {"classes": 1}, "classes must be a whole number from 2 on, not 1"),
        ("maxherding", {"width": 0.0}, "width must be a number from 1e-06 on and up to 1000 or null, not 0.0"),
        ("maxherding", {"width": 1e200}, "width must be a number from 1e-06 on and up to 1000 or null, not 1e+200"),
        ("probcover", {"radius": 1e200}, "radius must be a number from 1e-06 on and up to 3 or null, not 1e+200"),
        ("power_margin", {"beta": -1.0}, "beta must be a number from 0 on and up to 1000, not -1.0"),
        ("power_margin", {"beta": float("inf")}, "beta must be a number from 0 on and up to 1000, not Infinity"),
        ("power_margin", {"beta": float("nan")}, "beta must be a number from 0 on and up to 1000, not NaN"),
        ("power_margin", {"beta": 10**400}, f"beta must be a number from 0 on and up to 1000, not 1{'0' * 56}..."),
        ("bait", {"ridge": "x" * 99}, f'ridge must be a number from 1e-08 on and up to 1e+08, not "{"x" * 56}...'),
        ("random", {"x": 1}, 'unknown parameter "x"; it has none'),
        ("bald", {"passs": 3}, 'unknown parameter "passs"; known: passes'),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(name, parameters, expected):
    assert line(lambda: registry.check(name, parameters)) == f'strategy "{name}": {expected}'
    assert line(lambda: strategies.load(name, parameters)) == f'strategy "{name}": {expected}'


def test_an_unknown_strategy_is_refused_with_the_known_ones_and_the_nearest():
    known = ", ".join(registry.names())
    for name, near in (("entropie", "entropy"), ("ALFAMIX", "alfamix"), (" Core-Set ", "coreset")):
        assert line(lambda name=name: registry.check(name, {})) == (
            f'unknown strategy "{name}"; known: {known}; did you mean "{near}"?'
        )


def with_bounds_of_pydantic(annotation: Any) -> Any:
    """The annotation with the bounds that pydantic knows."""
    known = pytest.importorskip("annotated_types")
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        rules = [
            getattr(known, type(rule).__name__)(*vars(rule).values())
            for rule in arguments[1:]
            if isinstance(rule, Ge | Gt | Le | Lt)
        ]
        inner = with_bounds_of_pydantic(arguments[0])
        return Annotated[(inner, *rules)] if rules else inner
    if origin in (Union, types.UnionType):
        return Union[tuple(with_bounds_of_pydantic(choice) for choice in arguments)]  # noqa: UP007
    return annotation


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.floats(-2, 2),
    st.sampled_from([0, 1, 2, 0.0, 1.0, -0.0, "fast", "all", "", "1", 10**30]),
)


@given(tunable=st.sampled_from(TUNABLES), value=VALUES)
def test_a_value_fits_exactly_if_pydantic_takes_it(tunable, value):
    pydantic = pytest.importorskip("pydantic")
    annotation = registry.annotations(tunable[0])[tunable[1]]
    config = pydantic.ConfigDict(strict=True, allow_inf_nan=False)
    adapter = pydantic.TypeAdapter(with_bounds_of_pydantic(annotation), config=config)
    try:
        adapter.validate_python(value)
        taken = True
    except pydantic.ValidationError:
        taken = False
    assert registry.fits(value, annotation) == taken


def test_the_usual_schedule_is_the_papers_and_others_grow_by_their_step():
    assert schedule(None, None, None, drawn=False) == CAPS
    assert schedule(0.5, 0.25, 1.0, drawn=False) == (0.5, 0.75, 1.0)
    assert len(schedule(1, 1, 1_000, drawn=True)) == 1_000


STRATEGY = '''
"""Needs nothing, costs nothing."""
from alfamix_core.acquisition import ranking
from alfamix_core.acquisition.probabilities import NoState
from alfamix_core.acquisition.types import Scores

COLUMNS = frozenset()
NEEDS_LABELS = False
USES_HEAD = False
keep = ranking.keep
select = ranking.select


def prepare(labelled, head, tunables, *, seed):
    return NoState()


def score(block, state):
    return Scores(block.positions_n, -block.positions_n.float())
'''
SELECT = "def select(scores, state, batch, generator):\n    {}"
TUNABLE = """
from dataclasses import dataclass
from typing import Annotated
from alfamix_core.acquisition.tunable_types import Ge

@dataclass(frozen=True)
class Tunables:
    depth: Annotated[int, Ge(2), "Depth."] = 3
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution with entry points on the search path, as pip leaves it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(entries: dict[str, str], package: str = "acme-oldest", **modules: str) -> None:
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
            monkeypatch.delitem(sys.modules, module, raising=False)
        info = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
        groups = {"alfamix.strategies": entries}
        if "acme_tunables" in modules:
            groups["alfamix.tunables"] = dict.fromkeys(entries, "acme_tunables:Tunables")
        text = "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())
            for group, lines in groups.items()
        )
        (info / "entry_points.txt").write_text(text, encoding="utf-8")
        registry._outside.cache_clear()

    yield install
    registry._outside.cache_clear()


def test_a_strategy_of_another_package_is_one_like_the_others(install):
    install({"oldest": "acme_oldest"}, acme_oldest=STRATEGY, acme_tunables=TUNABLE)
    assert "oldest" in strategies.names()
    assert strategies.load("oldest").tunables.depth == 3
    assert strategies.load("oldest", {"depth": 5}).tunables.depth == 5
    expected = 'strategy "oldest": depth must be a whole number from 2 on, not 1'
    assert line(lambda: registry.check("oldest", {"depth": 1})) == expected


def test_without_tunables_it_has_none(install):
    install({"oldest": "acme_oldest"}, acme_oldest=STRATEGY)
    assert line(lambda: strategies.load("oldest", {"x": 1})) == 'strategy "oldest": unknown parameter "x"; it has none'


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        (
            "COLUMNS = frozenset()",
            "COLUMNS = ['logits']",
            "COLUMNS must be a frozenset of some of deepfool, embeddings, ",
        ),
        ("COLUMNS = frozenset()", "COLUMNS = frozenset({'pixels'})", "COLUMNS must be a frozenset of some of "),
        ("COLUMNS = frozenset()", "", "COLUMNS must be a frozenset of some of "),
        ("NEEDS_LABELS = False", "", "NEEDS_LABELS must be True or False, not None"),
        ("USES_HEAD = False", "USES_HEAD = 1", "USES_HEAD must be True or False, not 1"),
        ("def score(", "def scores(", "must define a function score"),
        ("keep = ranking.keep", "", "must define a function keep"),
        (
            "tunables, *, seed",
            "*, seed",
            "prepare must take labelled, head, tunables, seed: too many positional arguments",
        ),
        ("*, seed", "*, key", "prepare must take labelled, head, tunables, seed: missing a required argument: 'key'"),
        ("import ranking", "import rankings", "cannot be imported: cannot import name 'rankings'"),
        ("def prepare", "def prepare prepare", "cannot be imported: expected '('"),
        ("NEEDS_LABELS = False", "1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("NEEDS_LABELS = False", "raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    ],
)
def test_a_module_that_is_no_strategy_is_refused_in_one_line(install, text, other, expected):
    assert text in STRATEGY
    install({"oldest": "acme_oldest"}, acme_oldest=STRATEGY.replace(text, other))
    refused = line(lambda: strategies.load("oldest"))
    assert refused.startswith('strategy "oldest" (acme_oldest of acme-oldest)'), refused
    assert expected in refused


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("frozen=True", "frozen=False", "tunables must be a frozen dataclass"),
        ("@dataclass(frozen=True)", "", "tunables must be a frozen dataclass"),
        (" = 3", "", 'tunable "depth" must have a default'),
        (" = 3", " = 1", 'tunable "depth" has the default 1, not a whole number from 2 on'),
        ('Annotated[int, Ge(2), "Depth."] = 3', "list[int] = ()", "or a union of these, not list[int]"),
        ('Annotated[int, Ge(2), "Depth."] = 3', '"Nothing" = 3', "cannot be read: name 'Nothing' is not defined"),
        ('Annotated[int, Ge(2), "Depth."] = 3', "int | bytes = 3", "or a union of these, not int | bytes"),
        ("class Tunables", "class Tunable", "has no attribute 'Tunables'"),
        ("Ge(2)", "Ge('a')", "must have numbers as bounds, not Ge(ge='a')"),
        (
            "Annotated[int, Ge(2), ",
            "Annotated[Annotated[int, Ge(None)] | None, ",
            "must have numbers as bounds, not Ge(",
        ),
        ('Annotated[int, Ge(2), "Depth."]', "'1 / 0'", "cannot be read: division by zero"),
    ],
)
def test_odd_tunables_are_refused_in_one_line(install, text, other, expected):
    assert text in TUNABLE
    install({"oldest": "acme_oldest"}, acme_oldest=STRATEGY, acme_tunables=TUNABLE.replace(text, other))
    refused = line(lambda: registry.check("oldest", {}))
    assert refused.startswith('strategy "oldest" (acme_tunables:Tunables of acme-oldest)'), refused
    assert expected in refused


def test_a_name_that_is_taken_is_refused(install):
    install({"margin": "acme_oldest"}, acme_oldest=STRATEGY)
    expected = 'strategy "margin" is part of alfamix; acme-oldest (acme_oldest) must give its own another name'
    assert line(lambda: strategies.load("margin")) == expected
    assert strategies.load("entropy")


def test_a_name_that_two_packages_bring_is_refused(install):
    install({"oldest": "acme_oldest"}, acme_oldest=STRATEGY)
    install({"oldest": "other_oldest"}, "other", other_oldest=STRATEGY)
    refused = line(lambda: strategies.load("oldest"))
    assert refused.startswith('strategy "oldest": two packages bring it, ')
    assert all(words in refused for words in ("acme-oldest (acme_oldest)", "other (other_oldest)"))


def test_simple_annotations_are_told_from_others():
    assert registry._is_simple(Annotated[Literal["a"] | None, Ge(1)])
    assert not registry._is_simple(dict[str, int])


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("return Scores(", "return None and Scores(", "score must return Scores, not NoneType"),
        (
            "return Scores(block.positions_n",
            "return Scores(block.positions_n.flip(0)",
            "must return the positions",
        ),
        (
            "-block.positions_n.float())",
            "block.positions_n.float()[:1])",
            "score must return a score for each position, not [(5,), (1,)]",
        ),
        ("keep = ranking.keep", "keep = lambda scores, state, reach: None", "keep must return Scores, not NoneType"),
        ("select = ranking.select", SELECT.format("pass"), "select left 3 places free and samples without an offer"),
        (
            "select = ranking.select",
            SELECT.format("[batch.offer(1) for _ in 'ab']"),
            "position 1 for the second time",
        ),
        ("select = ranking.select", SELECT.format("batch.offer(9)"), "offers position 9, which is not among those"),
        (
            "select = ranking.select",
            SELECT.format("batch.offer_all(scores.positions_n + 2)"),
            "position 3, which",
        ),
    ],
)
def test_what_a_strategy_of_another_package_returns_is_checked(install, text, other, expected):
    assert text in STRATEGY
    install({"oldest": "acme_oldest"}, acme_oldest=STRATEGY.replace(text, other))
    refused = line(lambda: select(np.zeros((5, 2)), [-1] * 5, budget=3, strategy="oldest"))
    assert refused.startswith('strategy "oldest" (acme_oldest of acme-oldest): ')
    assert expected in refused
