"""The call for researchers: arrays in, rows out; every error names the caller's row."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import alfamix_core
from alfamix_core import Selected, select
from alfamix_core.acquisition import policy, strategies
from alfamix_core.acquisition.scoring import score_shard
from alfamix_core.acquisition.types import Features, Labelled, LinearHead
from alfamix_core.errors import InputError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
N, D, K = 120, 8, 3


@pytest.fixture
def table():
    """Embeddings, labels of every sixth row, and a head (W, b)."""
    random = np.random.default_rng(1)
    centres = 2 * random.normal(size=(K, D))
    owners = random.integers(K, size=N)
    embeddings = (centres[owners] + random.normal(size=(N, D))).astype(np.float32)
    labels = np.where(np.arange(N) % 6 == 0, owners, -1)
    return embeddings, labels, (centres.astype(np.float32), random.normal(size=K).astype(np.float32))


def others(name):
    """The further columns of a strategy that a head cannot give."""
    random = np.random.default_rng(2)
    made = {"mc_logits": random.normal(size=(N, 4, K)), "deepfool": random.random(N)}
    return {column: made[column] for column in made if column in strategies.load(name).columns}


@pytest.mark.parametrize("name", strategies.names())
def test_it_is_what_the_parts_of_the_library_choose(table, name):
    embeddings, labels, (weight, bias) = table
    chosen = select(embeddings, labels, (weight, bias), budget=9, strategy=name, seed=4, columns=others(name))
    strategy, head = strategies.load(name), LinearHead(torch.from_numpy(weight), torch.from_numpy(bias))
    rows, known = torch.from_numpy(embeddings), torch.from_numpy(labels) >= 0
    state = strategy.prepare(Labelled(rows[known], head(rows[known]), torch.from_numpy(labels)[known]), head, 4)
    asked = (~known).nonzero()[:, 0]
    extra = [torch.from_numpy(column[~known.numpy()]).float() for column in others(name).values()]
    columns = {"mc_logits_nTK": None, "deepfool_n": None}
    columns |= dict(zip([key for key in columns if key.split("_n")[0] in others(name)], extra, strict=True))
    pool = Features(asked, rows[asked], head(rows[asked]), **columns)
    scores = score_shard(strategy, [pool], state, 9)
    choice = policy.choose(strategy, scores, state, 9, torch.Generator().manual_seed(4))
    assert chosen.indices.tolist() == [query.position for query in choice.queries]
    assert chosen.scores.tolist() == [query.score for query in choice.queries]


@pytest.mark.parametrize("name", strategies.names())
def test_rows_are_distinct_unlabelled_and_allowed_whatever_the_strategy(table, name):
    embeddings, labels, head = table
    left_out, groups = np.arange(1, N, 5), np.arange(N) // 4
    chosen = select(
        embeddings,
        labels,
        head,
        budget=25,
        strategy=name,
        exclude=left_out,
        groups=groups,
        columns=others(name),
    )
    assert isinstance(chosen, Selected)
    assert len(set(chosen.indices.tolist())) == len(chosen) == 25
    assert (labels[chosen.indices] == -1).all()
    assert not set(chosen.indices.tolist()) & set(left_out.tolist())
    assert len({groups[row] for row in chosen.indices}) == 25


def test_numpy_torch_lists_and_every_dtype_choose_the_same(table):
    embeddings, labels, (weight, bias) = table
    expected = select(embeddings, labels, (weight, bias), seed=2).indices.tolist()
    read_only = embeddings.copy()
    read_only.flags.writeable = False
    tensors = torch.from_numpy(embeddings).requires_grad_()
    for rows, marks, head in (
        (embeddings.tolist(), labels.tolist(), (weight.tolist(), bias.tolist())),
        (embeddings.astype(np.float64), labels.astype(np.int8), (weight.astype(np.float64), bias)),
        (read_only, labels.astype(np.float32), [weight, bias]),
        (tensors, torch.from_numpy(labels), (torch.from_numpy(weight), torch.from_numpy(bias))),
        (np.asfortranarray(embeddings), labels, (torch.from_numpy(weight), bias)),
    ):
        chosen = select(rows, marks, head, seed=2)
        assert chosen.indices.tolist() == expected
        assert isinstance(chosen.indices, torch.Tensor if rows is tensors else np.ndarray)


def test_a_short_batch_says_why(table):
    embeddings, labels, head = table
    chosen = select(embeddings, labels, head, budget=200, groups=["one"] * 60 + ["two"] * 60, per_group=3)
    assert (len(chosen), chosen.short_by) == (6, 194)
    assert "at most 3 of a group" in chosen.reason
    assert select(embeddings, labels, head, budget=5).reason == ""
    assert len(select(embeddings, labels, head, budget=0)) == 0


def test_a_classifier_of_scikit_learn_is_its_coefficients(table):
    embeddings, labels, _ = table
    known = labels >= 0
    classifier = LogisticRegression(max_iter=500).fit(embeddings[known], labels[known])
    pair = (classifier.coef_, classifier.intercept_)
    for name in ("alfamix", "margin", "badge"):
        expected = select(embeddings, labels, pair, strategy=name).indices.tolist()
        assert select(embeddings, labels, classifier, strategy=name).indices.tolist() == expected


def test_a_binary_classifier_has_the_logit_of_its_second_class(table):
    embeddings, labels, _ = table
    labels = np.where(labels == 2, 0, labels)
    known = labels >= 0
    classifier = LogisticRegression(max_iter=500).fit(embeddings[known], labels[known])
    chosen = select(embeddings, labels, classifier, strategy="entropy", budget=7)
    probs = classifier.predict_proba(embeddings)
    closest = np.argsort(np.abs(probs[:, 0] - 0.5), kind="stable")
    assert chosen.indices.tolist() == [row for row in closest if labels[row] == -1][:7]
    assert len(select(embeddings, labels, classifier)) == 20


def test_classes_of_a_classifier_need_not_be_numbered_from_zero(table):
    """10, 20 and 40 in place of 0, 1 and 2: the same rows."""
    embeddings, labels, _ = table
    names = np.array([10, 20, 40, -1])[labels]
    known = labels >= 0
    by_number = LogisticRegression(max_iter=500).fit(embeddings[known], labels[known])
    by_name = LogisticRegression(max_iter=500).fit(embeddings[known], names[known])
    expected = select(embeddings, labels, by_number).indices.tolist()
    assert select(embeddings, names, by_name).indices.tolist() == expected
    names[12] = 30
    with pytest.raises(InputError, match=r"^labels: row 12 has 30; the classes are 10, 20, 40, and -1 for unknown$"):
        select(embeddings, names, by_name)


def test_classes_without_a_label_are_fine(table):
    embeddings, labels, head = table
    assert len(select(embeddings, np.where(labels == 2, -1, labels), head)) == 20


def test_a_function_is_a_head(table):
    embeddings, labels, (weight, bias) = table
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(D, 16), torch.nn.ReLU(), torch.nn.Linear(16, K)).eval()
    assert len(select(embeddings, labels, network)) == 20
    linear = LinearHead(torch.from_numpy(weight), torch.from_numpy(bias))
    by_pair = select(embeddings, labels, (weight, bias), strategy="badge")
    assert select(embeddings, labels, lambda rows: linear(rows), strategy="badge").indices.tolist() == (
        by_pair.indices.tolist()
    )


def test_probabilities_stand_for_a_head_where_a_strategy_reads_no_more(table):
    embeddings, labels, (weight, bias) = table
    logits = torch.from_numpy(embeddings.astype(np.float64) @ weight.T + bias)
    probs = logits.softmax(dim=1).numpy()
    for name in ("margin", "cdal", "class_threshold", "power_margin"):
        expected = select(embeddings, labels, (weight, bias), strategy=name, budget=10).indices.tolist()
        assert select(None, labels, probabilities=probs, strategy=name, budget=10).indices.tolist() == expected
    assert len(select(embeddings, labels, probabilities=np.eye(K)[labels.clip(0)], strategy="badge")) == 20


def test_the_result_does_not_depend_on_blocks(table, monkeypatch):
    embeddings, labels, head = table
    expected = select(embeddings, labels, head).indices.tolist()
    monkeypatch.setattr("alfamix_core.library._BLOCK_ROWS", 7)
    assert select(embeddings, labels, head).indices.tolist() == expected


def changed(table, **changes):
    """What ``select`` receives, with one thing wrong."""
    embeddings, labels, head = table
    return {"embeddings": embeddings, "labels": labels, "head": head} | changes


WRONG = {
    "labels: row 5 has 7; the classes are 0 … 2, and -1 for unknown": lambda e, y, h: {"labels": put(y, 5, 7)},
    "labels: row 9 has -2; the classes are 0 … 2, and -1 for unknown": lambda e, y, h: {"labels": put(y, 9, -2)},
    "labels: must be whole numbers; row 3 has 0.5": lambda e, y, h: {"labels": put(y.astype(float), 3, 0.5)},
    "labels: must be whole numbers; row 0 has 'cat'": lambda e, y, h: {"labels": ["cat"] * N},
    "labels: must have one dimension, not the shape (120, 1)": lambda e, y, h: {"labels": y[:, None]},
    "embeddings: must have the shape (120, features), one row per label, not (119, 8)": lambda e, y, h: {
        "embeddings": e[1:]
    },
    "embeddings: row 66 has a value that is not finite in float32": lambda e, y, h: {
        "embeddings": put(e, (66, 1), np.nan)
    },
    "embeddings: row 67 has a value that is not finite in float32": lambda e, y, h: {
        "embeddings": put(e.astype(np.float64), (67, 1), 1e300)
    },
    "embeddings: must have the shape (120, features), one row per label, not (120,)": lambda e, y, h: {
        "embeddings": e[:, 0]
    },
    "embeddings: must be numbers, not <U1": lambda e, y, h: {"embeddings": np.full((N, D), "a")},
    "head: W must have one column per feature of the embeddings, 8, not the shape (8, 3)": lambda e, y, h: {
        "head": (h[0].T, np.zeros(8))
    },
    "head: W must be (K, D) and b (K,), not (3, 8) and (2,)": lambda e, y, h: {"head": (h[0], h[1][:2])},
    "head: (W, b) has two parts, not 3": lambda e, y, h: {"head": (*h, 1)},
    "head: W or b of class 0 has a value that is not finite in float32": lambda e, y, h: {
        "head": (h[0] * np.inf, h[1])
    },
    "head: must be (W, b), a fitted linear classifier or a function, not str": lambda e, y, h: {"head": "resnet"},
    "head: two classes are needed to compare, it has 1": lambda e, y, h: {"head": (h[0][:1], h[1][:1])},
    "head: must return a tensor (n, K) for (n, D) embeddings; for one row came (8,)": lambda e, y, h: {
        "head": lambda rows: rows[0]
    },
    'strategy "alfamix" needs a head: (W, b), a fitted linear classifier or a function': lambda e, y, h: {"head": None},
    'strategy "coreset" needs embeddings, and they are None': lambda e, y, h: {
        "embeddings": None,
        "strategy": "coreset",
    },
    'strategy "margin" needs predictions: give embeddings with a head, or probabilities': lambda e, y, h: {
        "head": None,
        "strategy": "margin",
    },
    'strategy "bald" needs the column "mc_logits": give columns={"mc_logits": …}': lambda e, y, h: {"strategy": "bald"},
    "columns: no strategy reads 'logits'; known: mc_logits, deepfool": lambda e, y, h: {"columns": {"logits": e}},
    "head and probabilities: give one of them, they could contradict each other": lambda e, y, h: {
        "probabilities": np.full((N, K), 1 / K)
    },
    "probabilities: row 2 must be 0 or more and add up to 1; the smallest is 0, the sum 0.75": lambda e, y, h: {
        "head": None,
        "strategy": "margin",
        "probabilities": put(np.full((N, K), 1 / K), 2, [0.5, 0.25, 0]),
    },
    "exclude: row 120 does not exist; rows are 0 … 119": lambda e, y, h: {"exclude": [3, 120]},
    "exclude: a mask must have one value per row, 120, not the shape (2,)": lambda e, y, h: {"exclude": [True, False]},
    "groups: must have one value per row, 120, not 2": lambda e, y, h: {"groups": ["a", "b"]},
    "per_group: must be a whole number from 1 on, not 0": lambda e, y, h: {"groups": ["a"] * N, "per_group": 0},
    "budget: must be a whole number from 0 on, not -1": lambda e, y, h: {"budget": -1},
    'strategy "alfamix" needs at least one labelled sample, and there is none': lambda e, y, h: {
        "labels": np.full(N, -1)
    },
    'strategy "margin": unknown parameter "beta"; it has none': lambda e, y, h: {"strategy": "margin", "beta": 1.0},
}


def put(array, spot, value):
    array = array.copy()
    array[spot] = value
    return array


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_used_is_named(table, words):
    with pytest.raises(InputError) as error:
        select(**changed(table, **WRONG[words](*table)))
    assert str(error.value) == words


def code(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def test_the_code_of_the_page_runs():
    blocks = code(PAGE)
    assert len(blocks) > 4
    exec(compile("\n".join(blocks), "docs/library.md", "exec"), {})


def test_importing_the_package_loads_neither_torch_nor_numpy():
    words = "import sys, alfamix_core; print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == "[]\n"
    with pytest.raises(AttributeError, match="has no attribute 'selct'"):
        _ = alfamix_core.selct


def test_a_wheel_without_extras_gives_the_call(tmp_path):
    """Built from a copy, installed alone, and run by a Python that finds none of what the extras bring."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"
    shutil.copytree(ROOT / "alfamix_core", source / "alfamix_core", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, source / name)
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("alfamix-*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (metadata,) = site.glob("alfamix-*.dist-info/METADATA")
    needed = re.findall(r"^Requires-Dist: ([a-z-]+)[^;\n]*$", metadata.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(needed) == ["numpy", "torch"]
    missing = """kfp boto3 botocore pydantic pyarrow PIL torchvision safetensors prometheus_client jinja2 typer rich
        docker sklearn scipy""".split()
    (site / "sitecustomize.py").write_text(f"""
from functools import partial
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = partial(lambda name, *others: None if name in {missing!r} else find(name, *others))
""")
    words = code(PAGE)[0] + "\nimport alfamix_core; print(alfamix_core.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    run = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(site / "alfamix_core" / "__init__.py")


def test_a_class_named_like_the_unknown_is_refused(table):
    embeddings, labels, _ = table
    known = labels >= 0
    head = LogisticRegression().fit(embeddings[known], np.where(labels[known] == 0, -1, 1))
    with pytest.raises(InputError, match=r"^head: classes_ has -1, which stands for an unknown class in labels"):
        select(embeddings, labels, head, budget=3)


def test_a_head_that_works_in_place_leaves_the_callers_rows_alone(table):
    embeddings, labels, (weight, bias) = table
    rows = embeddings.astype(np.float32)
    before = rows.copy()
    linear = torch.nn.Linear(*reversed(weight.shape))
    linear.load_state_dict({"weight": torch.as_tensor(weight).float(), "bias": torch.as_tensor(bias).float()})
    select(rows, labels, torch.nn.Sequential(torch.nn.ReLU(inplace=True), linear), budget=3, strategy="margin")
    assert (rows == before).all()


@pytest.mark.parametrize("strategy", ["alfamix", "margin", "badge"])
def test_a_logit_that_is_not_finite_is_named_by_the_callers_row(table, strategy):
    embeddings, labels, (weight, bias) = table
    bad = int(np.flatnonzero(labels < 0)[3])
    matrix, offset = torch.as_tensor(weight).float(), torch.as_tensor(bias).float()

    def head(rows):
        same = (rows == torch.as_tensor(embeddings[bad]).float()).all(dim=1, keepdim=True)
        return (rows @ matrix.T + offset).masked_fill(same, float("nan"))

    with pytest.raises(InputError, match=rf"^head: row {bad} gets a logit that is not finite"):
        select(embeddings, labels, head, budget=3, strategy=strategy)


def test_integers_of_numpy_backward_rows_and_sets_are_taken(table):
    embeddings, labels, head = table
    usual = select(embeddings, labels, head, budget=4, seed=3, exclude=[30, 31])
    same = select(
        embeddings[::-1][::-1].astype(">f8"), labels, head, budget=np.int64(4), seed=np.int64(3), exclude={31, 30}
    )
    assert same.indices.tolist() == usual.indices.tolist()
    backward = select(embeddings[::-1], labels[::-1], head, budget=np.int32(4), strategy="margin")
    assert sorted(len(labels) - 1 - backward.indices) == sorted(
        select(embeddings, labels, head, budget=4, strategy="margin").indices
    )


def test_large_numbers_of_classes_cost_no_memory_without_a_head(table):
    embeddings, labels, _ = table
    named = np.where(labels >= 0, labels.astype(np.int64) * 2**40, -1)
    chosen = [select(embeddings, which, budget=4, strategy="typiclust").indices.tolist() for which in (labels, named)]
    assert chosen[0] == chosen[1]


def test_groups_of_tensors_are_equal_by_their_number(table):
    embeddings, labels, head = table
    groups = [torch.tensor(row % 2) for row in range(len(labels))]
    assert len(select(embeddings, labels, head, budget=4, groups=groups)) == 2


@pytest.mark.parametrize(("name", "value"), [("seed", True), ("seed", 1.5), ("budget", "3"), ("per_group", None)])
def test_a_number_that_is_none_is_named(table, name, value):
    with pytest.raises(InputError, match=rf"^{name}: must be a whole number from [01] on, not"):
        select(*table, groups=[0] * len(table[1]), **{name: value})


def odd_values() -> list[object]:
    """Values that are hardly what any argument wants; some are what some want."""
    n, d = 120, 8
    ones, text = np.ones((n, d)), np.full(n, "a")
    hole = ones.copy()
    hole[20, 3] = np.nan
    return [
        *("text", "", None, 0, 1.5, True, np.nan, 1j, b"x", 10**30, -1, 2**62, 2**63, slice(3), object(), type),
        *([], {}, set(), (1, 2), [[1, 2], [3]], [object()], [None] * n, [{}] * n, {1: 2}, range(n), iter(range(n))),
        *(np.array(3), np.array([]), np.zeros((0, d)), np.zeros((n, 0)), np.zeros((n, d, 2)), ones[:-1], hole),
        *(ones * np.inf, ones * 1e20, ones * 1e-30, -ones, ones.astype(object), ones.astype(str), ones.astype(complex)),
        *(ones > 0, ones.astype("datetime64[s]"), np.ma.masked_array(ones, mask=ones > 0), text, np.full(n, np.nan)),
        *(np.full(n, 2**64 - 1, np.uint64), np.arange(n) + 0.5, np.ones(n - 1, bool), ones.tolist(), ones[:, :1]),
        *(torch.zeros(()), torch.zeros(n, d).to_sparse(), torch.zeros(n, d, dtype=torch.complex64)),
        *(torch.zeros(n, d, dtype=torch.bfloat16), torch.zeros(n, d, requires_grad=True), torch.zeros(n) > 0),
        *((lambda: 1), (lambda rows: None), (lambda rows: rows[:, 0]), (lambda rows: {}["k"]), (lambda rows: rows.x)),
        *((hole[:3], np.zeros(3)), (ones[:3], None), ("a", "b"), (ones[:3],), (ones[:3] * 1e20, np.zeros(3))),
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "argument",
    [
        *("embeddings", "labels", "head", "budget", "seed", "exclude", "groups", "per_group", "strategy", "columns"),
        *("probabilities", "mc_logits", "deepfool", "subset", "beta"),
    ],
)
def test_whatever_is_given_is_taken_or_refused_in_one_line(table, argument):
    embeddings, labels, head = table
    fixed = {"budget": 3, "strategy": "margin", "groups": [0] * len(labels) if argument == "per_group" else None}
    for value in odd_values():
        given = {"embeddings": embeddings, "labels": labels, "head": head, **fixed}
        if argument == "probabilities":
            given |= {"embeddings": None, "head": None, argument: value}
        elif argument in ("mc_logits", "deepfool"):
            given |= {"columns": {argument: value}, "strategy": {"mc_logits": "bald", "deepfool": "dfal"}[argument]}
        else:
            given |= {argument: value}
            given["strategy"] = {"subset": "bait", "beta": "power_margin"}.get(argument, given["strategy"])
        refusals = []
        try:
            select(**given)
        except InputError as error:
            refusals.append(str(error))
        assert all("\n" not in line and len(line) < 400 for line in refusals), refusals


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"row": 5, "value": 1e20}, "embeddings: row 5 must have no value above 1e+15, and has 1e+20"),
        ({"row": 5, "value": 1e300}, "embeddings: row 5 has a value that is not finite in float32"),
        ({"row": 90, "value": 1e20}, "embeddings: row 90 must have no value above 1e+15, and has 1e+20"),
    ],
)
@pytest.mark.parametrize("strategy", ["alfamix", "margin", "typiclust", "bait"])
def test_a_row_with_a_label_is_named_as_the_caller_numbers_it(table, strategy, change, line):
    """Whatever checks it, the row's number is that among all rows, not among the labelled ones."""
    embeddings, labels, head = table
    embeddings = embeddings.astype(np.float64)
    embeddings[change["row"], 0] = change["value"]
    labels = np.where(np.arange(len(labels)) % 2 == 1, 1, -1)
    with pytest.raises(InputError) as refused:
        select(embeddings, labels, head, budget=3, strategy=strategy)
    assert str(refused.value) == line
