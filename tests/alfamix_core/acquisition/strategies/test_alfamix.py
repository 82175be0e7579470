import math

import pytest
import torch

from alfamix_core.acquisition import noise, strategies
from alfamix_core.acquisition.clustering import grouped, kmeans
from alfamix_core.acquisition.types import Features, Labelled, LinearHead, Scores


@pytest.fixture
def scores_at(device):
    def scores_at(*caps, seed=0):
        random = torch.Generator().manual_seed(seed)
        embeddings = torch.randn(len(caps), 3, generator=random).to(device)
        positions = torch.arange(len(caps), device=device)
        return Scores(positions, -torch.tensor(caps, device=device), {"embeddings": embeddings})

    return scores_at


@pytest.fixture
def state(make_task):
    task = make_task()

    def state(**parameters):
        return strategies.load("alfamix", parameters).prepare(task.labelled, task.head, 0)

    return state


@pytest.fixture
def alfamix():
    return strategies.load("alfamix")


def test_scores_by_hand(build):
    """The four samples of the closed form: critical caps 0.353553, 0, 0.707107 and 0.164399."""
    pool = torch.tensor([[2.0, 1.0], [1.0, 1.0], [3.0, 0.0], [0.0, 0.5]])
    task = build(
        pool, torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1]), LinearHead(torch.eye(2), torch.zeros(2))
    )
    strategy = strategies.load("alfamix")
    state = strategy.prepare(task.labelled, task.head, 0)
    result = strategy.score(task.pool, state)
    assert result.scores_n.tolist() == pytest.approx([-0.353553, 0.0, -0.707107, -0.164399], abs=1e-6)
    assert strategy.select(result, state, 4, torch.Generator()).tolist() == [1, 3, 0, 2]
    assert strategy.summary(result, state, 1) == {"cap": 0.2, "candidates": 2}
    assert strategy.summary(result, state, 3) == {"cap": 0.8, "candidates": 4}


def test_the_cap_grows_until_there_are_more_candidates_than_queries(scores_at, alfamix, state):
    scores = scores_at(0.1, 0.3, 0.5, 0.7, 0.9, 1.1, math.inf)
    result = [alfamix.summary(scores, state(), need) for need in range(7)]
    assert [row["cap"] for row in result] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]
    assert [row["candidates"] for row in result] == [1, 2, 3, 4, 5, 5, 5]


def test_the_cap_of_the_paper_does_not_grow(scores_at, alfamix, state):
    result = alfamix.summary(scores_at(0.1, 0.3, 0.5), state(grow=False), 2)
    assert result == {"cap": 0.2, "candidates": 1}


def test_exactly_as_many_candidates_as_queries_open_the_next_cap(scores_at, alfamix, state):
    assert alfamix.summary(scores_at(0.1, 0.1, 0.3), state(), 2) == {"cap": 0.4, "candidates": 3}


def test_a_short_batch_is_filled_by_ascending_critical_cap_then_position(scores_at, alfamix, state):
    """Two candidates at any cap, three asked more: the released code draws them at random, and some twice."""
    scores = scores_at(math.inf, 1.5, 0.1, 1.5, 1.2, 0.3, math.inf)
    assert alfamix.select(scores, state(), 7, torch.Generator()).tolist() == [2, 5, 4, 1, 3, 0, 6]


def test_no_candidate_at_all_still_fills_the_batch(scores_at, alfamix, state):
    assert alfamix.select(scores_at(math.inf, math.inf, math.inf), state(), 2, torch.Generator()).tolist() == [0, 1]


def test_more_candidates_than_queries_are_spread_by_k_means(scores_at, alfamix, state, generator):
    """What is clustered are the candidates of the cap alone, L2-normalised; the queries are in order of score."""
    random = torch.Generator().manual_seed(3)
    scores = scores_at(*(torch.rand(200, generator=random) * 0.6).tolist())
    candidates = scores.take((scores.scores_n > -0.2).nonzero()[:, 0])
    rows = torch.nn.functional.normalize(candidates.rows["embeddings"], dim=1)
    seed = noise.draw_seed(generator())
    clusters = kmeans(rows, candidates.positions_n, 10, seed)
    members = grouped(clusters, candidates.scores_n.argsort(descending=True))
    chosen = candidates.take(torch.stack([rows[0] for rows in members]))
    expected = chosen.positions_n[chosen.scores_n.argsort(descending=True)]
    assert len(candidates) > 10
    assert alfamix.select(scores, state(), 10, generator()).tolist() == expected.tolist()


def test_empty_clusters_are_filled_by_the_next_to_flip(device, scores_at, alfamix, state):
    """Six candidates in two directions and four queries: two clusters stay empty, their places go by ascending cap."""
    scores = scores_at(0.15, 0.11, 0.13, 0.12, 0.14, 0.1)
    lengths = torch.tensor([1.0, 1, 2, 2, 4, 4], device=device)[:, None]
    scores.rows["embeddings"][:] = torch.tensor([[1.0, 0, 0], [0, 1, 0]], device=device).repeat(3, 1) * lengths
    result = alfamix.select(scores, state(), 4, torch.Generator().manual_seed(0)).tolist()
    # of the rows at one point the first to flip stands for its cluster
    assert result == [5, 2, 1, 3]


def test_the_cap_rises_until_enough_candidates_differ(device, scores_at, alfamix, state):
    """Five copies at .1, and 0.3, 0.35, 0.5: three queries are not four copies at cap .2 but wait for cap .6."""
    scores = scores_at(0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.35, 0.5)
    scores.rows["embeddings"][:5] = scores.rows["embeddings"][0]
    assert alfamix.summary(scores, state(), 3) == {"cap": 0.6, "candidates": 8}
    result = alfamix.select(scores, state(), 3, torch.Generator().manual_seed(0)).tolist()
    assert len({0 if position < 5 else position for position in result}) == 3


def test_a_short_batch_asks_something_new_before_copies(device, scores_at, alfamix, state):
    """Four copies at .1, then .3 and 2: of five queries the last is the second copy; a shard keeps what is new, too."""
    scores = scores_at(0.1, 0.1, 0.1, 0.1, 0.3, 2.0)
    scores.rows["embeddings"][:4] = scores.rows["embeddings"][0]
    assert alfamix.select(scores, state(), 4, torch.Generator()).tolist() == [0, 4, 5, 1]
    assert alfamix.keep(scores, state(), 2).positions_n.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.on_real_devices
@pytest.mark.parametrize("seed", range(12))
def test_copies_in_any_shards_keep_what_the_pool_needs(scores_at, alfamix, state, seed):
    random = torch.Generator().manual_seed(seed)
    kinds = torch.randint(12, (60,), generator=random)
    caps = torch.rand(12, generator=random) * 1.5
    rows = torch.randn(12, 3, generator=random)
    scores = scores_at(*caps[kinds].tolist())
    scores.rows["embeddings"][:] = rows[kinds]
    owners = torch.randint(3, (60,), generator=random)
    parts = [(owners == part).nonzero()[:, 0] for part in range(3)]
    for need in (1, 4, 9, 12, 30):
        kept = [alfamix.keep(scores.take(part), state(), need) for part in parts]
        merged = alfamix.keep(Scores.merge(kept), state(), need)
        assert merged.positions_n.tolist() == alfamix.keep(scores, state(), need).positions_n.tolist()


def test_the_ablation_norm_takes_those_that_flip_first(scores_at, alfamix, state):
    strategy = strategies.load("alfamix", {"selection": "norm"})
    scores = scores_at(0.15, 0.05, 0.12, 0.01)
    assert strategy.select(scores, state(selection="norm"), 2, torch.Generator()).tolist() == [3, 1]


def test_the_ablation_uniform_takes_candidates_only(scores_at, alfamix, state, generator):
    strategy = strategies.load("alfamix", {"selection": "uniform"})
    scores = scores_at(*[0.1, 0.9] * 30)
    result = strategy.select(scores, state(selection="uniform"), 10, generator()).tolist()
    assert len(set(result)) == 10
    assert all(position % 2 == 0 for position in result)


def test_at_most_max_candidates_are_kept_and_those_flip_first(scores_at, alfamix, state):
    scores = scores_at(*(torch.arange(100) / 1000).tolist())
    kept = alfamix.keep(scores, state(max_candidates=30), 10)
    assert kept.positions_n.tolist() == list(range(30))
    assert alfamix.summary(scores, state(max_candidates=30), 10) == {"cap": 0.2, "candidates": 30}
    assert len(alfamix.keep(scores, state(max_candidates=5), 10)) == 11


def test_a_shard_keeps_the_rows_of_its_cap_and_the_best(scores_at, alfamix, state):
    kept = alfamix.keep(scores_at(0.3, 1.4, 0.1, 0.35, 0.7, 1.2), state(), 2)
    assert kept.positions_n.tolist() == [0, 2, 3]
    kept = alfamix.keep(scores_at(0.3, 1.4, 0.1, 0.35, 0.7, 1.2), state(), 5)
    assert kept.positions_n.tolist() == [0, 2, 3, 4, 5]


@pytest.mark.parametrize("max_candidates", [1, 12, 40, 250_000])
@pytest.mark.parametrize("need", [1, 7, 30, 120])
def test_shards_send_all_that_the_whole_pool_would_choose_from(scores_at, alfamix, state, need, max_candidates):
    """A shard's own stopping cap is never below the pool's."""
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        values = (torch.randn(150, generator=random) * 0.5 + 0.6).abs()
        values[torch.rand(150, generator=random) < 0.2] = math.inf
        scores, setting = scores_at(*values.tolist(), seed=seed), state(max_candidates=max_candidates)
        shards = torch.arange(150).split([5, 0, 60, 85])
        merged = Scores.merge([alfamix.keep(scores.take(shard), setting, need) for shard in shards])
        whole = alfamix.keep(scores, setting, need)
        assert torch.equal(alfamix.keep(merged, setting, need).positions_n, whole.positions_n)
        assert alfamix.summary(merged, setting, need) == alfamix.summary(scores, setting, need)


def test_confident_samples_are_the_last_to_become_candidates(make_task, alfamix):
    """The released code makes the most confident samples candidates: its gradient is 0/0 there."""
    task = make_task(N=300)
    head = LinearHead(task.head.weight_KD * 50, task.head.bias_K * 50)
    result = alfamix.score(task.pool, alfamix.prepare(task.labelled, head, 0)).scores_n
    gaps = head(task.pool.embeddings_nD).topk(2, dim=1).values
    confident_n = (gaps[:, 0] - gaps[:, 1]) > 300
    assert confident_n.sum() > 20
    assert result[confident_n].max() < result[~confident_n].median()


def test_a_head_that_is_not_linear_scores_on_the_grid_of_caps(make_task, generator):
    """A linear head given as a function: the first cap of the schedule that exceeds the critical cap."""
    task = make_task(N=300, classes=2)
    strategy = strategies.load("alfamix")
    exact = strategy.score(task.pool, strategy.prepare(task.labelled, task.head, 0))
    state = strategy.prepare(task.labelled, lambda rows: task.head(rows), 0)
    grid = strategy.score(task.pool, state)
    assert set(grid.scores_n.tolist()) <= {-math.inf, *torch.tensor([-0.2, -0.4, -0.6, -0.8, -1.0]).tolist()}
    for cap in (0.2, 0.4, 0.6, 0.8, 1.0):
        assert torch.equal(exact.scores_n > -cap, grid.scores_n >= -cap - 1e-6)
    for need in (1, 10, 250):
        exact_state = strategy.prepare(task.labelled, task.head, 0)
        assert strategy.summary(grid, state, need) == strategy.summary(exact, exact_state, need)
    assert len(set(strategy.select(grid, state, 10, generator()).tolist())) == 10


def test_one_labelled_class_is_enough(make_task, alfamix, generator):
    task = make_task(classes=1)
    state = alfamix.prepare(task.labelled, task.head, 0)
    scores = alfamix.score(task.pool, state)
    assert scores.scores_n.isfinite().any()
    assert len(set(alfamix.select(scores, state, 20, generator()).tolist())) == 20


def test_embeddings_of_half_precision_are_accepted(make_task, alfamix, generator):
    task = make_task(dtype=torch.float16)
    state = alfamix.prepare(task.labelled, task.head, 0)
    scores = alfamix.score(Features(task.pool.positions_n, task.pool.embeddings_nD), state)
    assert scores.rows["embeddings"].dtype == torch.float16
    assert len(alfamix.select(scores, state, 20, generator())) == 20


VARIANTS = [
    {"alpha": "random"},
    {"alpha": "learned", "selection": "norm"},
    {"alpha": "random", "selection": "symmetric_kl", "fill": "random"},
    {"selection": "symmetric_kl"},
    {"selection": "uniform", "fill": "random"},
    {"fill": "random", "grow": False},
]


@pytest.mark.on_real_devices
@pytest.mark.parametrize("parameters", VARIANTS, ids=str)
@pytest.mark.parametrize("need", [1, 40, 195])
def test_shards_and_blocks_do_not_show_in_any_variant(make_task, generator, parameters, need):
    task = make_task()
    strategy = strategies.load("alfamix", parameters)
    state = strategy.prepare(task.labelled, task.head, 3)
    whole = strategy.score(task.pool, state)
    cuts = [(0, 1), (1, 70), (70, 130), (130, 200)]
    parts = [strategy.keep(strategy.score(task.part(*cut), state), state, need) for cut in cuts]
    expected = strategy.select(whole, state, need, generator()).tolist()
    merged = strategy.keep(Scores.merge(parts), state, need)
    assert strategy.select(merged, state, need, generator()).tolist() == expected
    assert len(set(expected)) == need


@pytest.mark.parametrize("parameters", VARIANTS, ids=str)
def test_every_variant_chooses_the_same_on_any_device(make_task, generator, parameters, device):
    task = make_task(N=40, D=5, K=3)
    strategy = strategies.load("alfamix", parameters)
    chosen = []
    for target in (torch.device("cpu"), device):
        head = LinearHead(task.head.weight_KD.to(target), task.head.bias_K.to(target))
        known = (task.labelled.embeddings_LD, task.labelled.logits_LK, task.labelled.labels_L)
        state = strategy.prepare(Labelled(*(column.to(target) for column in known)), head, 3)
        pool = Features(task.pool.positions_n.to(target), task.pool.embeddings_nD.to(target))
        chosen.append(strategy.select(strategy.score(pool, state), state, 10, generator()).tolist())
    assert chosen[0] == chosen[1]


def test_a_random_fill_takes_anyone_once(scores_at, alfamix, state):
    """Two candidates, four asked. The released code draws with replacement: some twice."""
    scores = scores_at(math.inf, 1.5, 0.1, 1.5, 1.2, 0.3, math.inf)
    setting = state(fill="random")
    numbers = noise.uniform(noise.fold(0, noise.RANDOM_FILL), torch.arange(7))
    others = sorted([0, 1, 3, 4, 6], key=lambda position: float(numbers[position]))
    assert alfamix.select(scores, setting, 4, torch.Generator()).tolist() == [2, 5, *others[:2]]
    assert alfamix.select(scores, setting, 7, torch.Generator()).tolist() == [2, 5, *others]
    assert alfamix.keep(scores, setting, 4).positions_n.tolist() == sorted([2, 5, *others[:2]])


def test_the_ablation_symmetric_kl_is_the_prediction_after_the_step(build):
    """(2, 1) flips at 0.4: the step of 0.8 leads to (1.4343, 1.5657); softmax before and after by hand."""
    task = build(
        torch.tensor([[2.0, 1.0], [30.0, -30.0]]),
        torch.tensor([[3.0, 0.0], [0.0, 3.0]]),
        torch.tensor([0, 1]),
        LinearHead(torch.eye(2), torch.zeros(2)),
    )
    strategy = strategies.load("alfamix", {"selection": "symmetric_kl"})
    before, after = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1.5657 - 1.4343))
    expected = (before - after) * (1 - (1.4343 - 1.5657)) / 2
    for head in (task.head, lambda rows: task.head(rows)):
        result = strategy.score(task.pool, strategy.prepare(task.labelled, head, 0)).rows["divergences"]
        assert result.tolist() == pytest.approx([expected, 0.0], abs=2e-4)


def test_the_ablation_symmetric_kl_takes_those_that_change_most(device, scores_at, alfamix, state):
    scores = scores_at(0.15, 0.05, 0.12, 0.01, 0.9)
    scores.rows["divergences"] = torch.tensor([0.5, 0.1, 0.9, 0.2, 7.0], device=device)
    assert alfamix.select(scores, state(selection="symmetric_kl"), 2, torch.Generator()).tolist() == [2, 0]


def test_the_ablation_norm_of_learned_ratios_goes_by_their_norm(device, scores_at, alfamix, state):
    scores = scores_at(1 / 32, 1 / 32, 1 / 32, 2 / 32)
    scores.rows["norms"] = torch.tensor([0.5, 0.1, 0.3, 0.01], device=device)
    assert alfamix.select(scores, state(alpha="learned", selection="norm"), 2, torch.Generator()).tolist() == [1, 2]


def test_drawn_ratios_have_the_schedule_of_the_released_code(state):
    assert len(state(alpha="learned").caps) == 32
    assert state(alpha="random").caps[-1] == 1
    assert state(alpha="learned", grow=False).caps == (1 / 32,)


def caps_of(task, head=None, **parameters):
    strategy = strategies.load("alfamix", parameters)
    return -strategy.score(task.pool, strategy.prepare(task.labelled, head or task.head, 0)).scores_n


def test_the_caps_of_the_schedule_are_tunable(state):
    assert state(first_cap=0.1, cap_step=0.3, last_cap=0.7).caps == pytest.approx((0.1, 0.4, 0.7))
    assert state(last_cap=0.5).caps == pytest.approx((0.2, 0.4))
    assert state(alpha="learned", last_cap=0.1).caps == pytest.approx((1 / 32, 2 / 32, 3 / 32))


def test_epsilon_is_the_bound_at_cap_1_by_hand(state):
    """D = 8: 1/√8 is the usual bound; with twice of it the first step is as long as the usual second."""
    assert state(epsilon=2 / math.sqrt(8)).caps == pytest.approx((0.4, 0.8, 1.2, 1.6, 2.0))


@pytest.mark.on_real_devices
@pytest.mark.parametrize("anchors", ["nearest", "medoids", "samples"])
def test_other_anchors_are_those_of_a_loop_for_any_head(make_task, anchors):
    """The rays are the same: an anchor says how far; the first cap that a loop over the anchors finds."""
    task = make_task(N=60, L=15)
    rows, known, labels = task.pool.embeddings_nD.double(), task.labelled.embeddings_LD.double(), task.labelled.labels_L
    means = torch.stack([known[labels == k].mean(dim=0) for k in labels.unique()])
    if anchors == "nearest":
        distances = torch.cdist(rows, means).amin(dim=1)
    else:
        own = [known[labels == k] for k in labels.unique()]
        medoids = torch.stack([entry[(torch.cdist(entry, entry).square().sum(dim=1)).argmin()] for entry in own])
        distances = torch.cdist(rows, known if anchors == "samples" else medoids).amax(dim=1)
    usual = torch.cdist(rows, means).amax(dim=1)
    result = caps_of(task, anchors=anchors)
    torch.testing.assert_close(result, (caps_of(task) * (usual / distances).float()), rtol=1e-4, atol=1e-6)
    grid = caps_of(task, lambda z: task.head(z), anchors=anchors)
    expected = torch.full_like(result, math.inf)
    for cap in (1.0, 0.8, 0.6, 0.4, 0.2):
        expected[result < cap] = cap
    assert torch.equal(grid, expected)


@pytest.mark.on_real_devices
@pytest.mark.parametrize("parameters", [{"alpha": "bounded"}, {"compatibility": "released"}, {"anchors": "samples"}])
def test_shards_do_not_show_whatever_the_rays_are(make_task, generator, parameters):
    task = make_task(N=120)
    strategy = strategies.load("alfamix", parameters)
    state = strategy.prepare(task.labelled, task.head, 0)
    whole = strategy.score(task.pool, state)
    parts = [strategy.keep(strategy.score(task.part(i, i + 40), state), state, 9) for i in (80, 0, 40)]
    merged = strategy.keep(Scores.merge(parts), state, 9)
    expected = strategy.select(whole, state, 9, generator()).tolist()
    assert strategy.select(merged, state, 9, generator()).tolist() == expected


def test_learning_more_often_flips_no_later(make_task):
    task = make_task(N=60, D=6, K=3)
    two, nine = (caps_of(task, alpha="learned", iterations=number, cap_step=0.25) for number in (2, 9))
    assert (nine <= two).all()
    assert (nine < two).any()


def test_compatibility_sets_fill_and_clustering(state):
    result = state(compatibility="released")
    assert (result.tunables.ray, result.fill, result.clustering, result.continuous) == (
        "released",
        "random",
        "ten_starts",
        True,
    )
