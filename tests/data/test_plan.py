import numpy as np
import pytest

from toolkit.data.plan import RATIO, SHORTEST, Plan, cut_lanes, padding_efficiency, rounded


@pytest.fixture
def lengths() -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[1, 2])).gamma(2.0, 2.0, 500) + 0.3


def test_every_epoch_holds_every_example_once(lengths):
    plan = Plan(lengths, 60.0, 64, seed=0)
    for epoch in range(5):
        assert sorted(np.concatenate(plan.epoch(epoch))) == list(range(len(lengths)))
    assert sorted(np.concatenate(plan.in_order())) == list(range(len(lengths)))


@pytest.mark.parametrize("budget, most", [(20.0, 64), (60.0, 8), (300.0, 1000)])
def test_batches_keep_the_budget_and_their_number(lengths, budget, most):
    plan = Plan(lengths, budget, most, seed=3)
    for epoch in range(20):
        batches = plan.epoch(epoch)
        assert len(batches) == len(plan)
        for batch in batches:
            assert 1 <= len(batch) <= most
            assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


def test_an_example_over_the_budget_has_a_batch_of_its_own():
    plan = Plan(np.array([1.0, 100.0, 1.0]), 10.0, 64, seed=0)
    assert sorted(map(len, plan.epoch(0))) == [1, 2]


def test_shuffled_by_seed_and_epoch_and_nothing_else(lengths):
    def flat(seed: int, epoch: int) -> list[int]:
        return np.concatenate(Plan(lengths, 60.0, 64, seed).epoch(epoch)).tolist()

    assert flat(0, 4) == flat(0, 4)
    assert flat(0, 4) != flat(0, 5)
    assert flat(0, 4) != flat(1, 4)


def test_composition_of_the_batches_changes(lengths):
    plan = Plan(lengths, 60.0, 64, seed=0)
    seen = [{frozenset(b.tolist()) for b in plan.epoch(e)} for e in range(2)]
    assert len(seen[0] & seen[1]) < len(plan) / 4


def test_digest_tells_plans_apart(lengths):
    plan = Plan(lengths, 60.0, 64, seed=0)
    assert plan.digest == Plan(lengths.copy(), 60.0, 64, seed=0).digest
    longer = lengths + 0.1 * (np.arange(len(lengths)) == 7)
    others = [
        Plan(lengths, 50.0, 64, 0),
        Plan(lengths, 60.0, 63, 0),
        Plan(lengths, 60.0, 64, 1),
        Plan(longer, 60.0, 64, 0),
    ]
    assert len({plan.digest, *(other.digest for other in others)}) == 5


def test_padding_efficiency(lengths):
    plan = Plan(lengths, 60.0, 64, seed=0)
    assert padding_efficiency(lengths, plan.epoch(0)) >= 0.9
    at_random = np.array_split(np.random.default_rng(0).permutation(len(lengths)), len(plan))
    assert padding_efficiency(lengths, at_random) < 0.6
    assert padding_efficiency(np.array([1.0, 3.0]), [np.array([0, 1])]) == pytest.approx(4 / 6)


def test_digest_of_a_plan_is_that_of_earlier_checkpoints(lengths):
    digest = "60114ede8f1571e9af31ed735574f0a7f3e4cb39d490518fe94a454c0fda00e7"
    assert Plan(lengths, 60.0, 64, seed=0).digest == digest


def test_rounded_lengths_are_few_and_little_longer():
    lengths = np.random.Generator(np.random.Philox(key=[1, 2])).integers(1, 1000, 2000)
    found = rounded(lengths)
    assert (found >= lengths).all() and (np.diff(found[np.argsort(lengths)]) >= 0).all()
    assert (found <= np.maximum(np.ceil(RATIO * lengths), SHORTEST)).all()
    assert found.max() == lengths.max(), "no model is given more than the longest, which it can take"
    assert len(np.unique(found)) <= 2 + np.log(1000 / SHORTEST) / np.log(RATIO)
    assert rounded(np.array([], int)).tolist() == [] and rounded(np.array([3, 1])).tolist() == [3, 3]


@pytest.fixture
def few(lengths) -> Plan:
    samples = (16000 * lengths).astype(int)
    return Plan(samples / 16000, 60.0, 64, seed=0, padded=rounded(samples) / 16000)


def shapes(plan: Plan, batches: list[np.ndarray]) -> list[tuple[int, float]]:
    assert plan.padded is not None
    return sorted((len(batch), plan.padded[batch].max()) for batch in batches)


def test_batches_of_rounded_lengths_have_the_same_few_shapes_in_every_epoch(few):
    first = shapes(few, few.epoch(0))
    # two that are cut short: the rest, and a longest one that is its own edge
    assert len(set(first)) <= len(np.unique(few.padded)) + 1
    for epoch in range(1, 10):
        assert shapes(few, few.epoch(epoch)) == first
    assert shapes(few, few.in_order()) == first
    assert all(rows * width <= 60 for rows, width in first)


def test_batches_of_rounded_lengths_hold_every_example_once_and_others_in_each_epoch(few):
    for epoch in range(3):
        assert sorted(np.concatenate(few.epoch(epoch))) == list(range(len(few.lengths)))
    seen = [{frozenset(b.tolist()) for b in few.epoch(epoch)} for epoch in range(2)]
    assert len(seen[0] & seen[1]) < len(few) / 4


@pytest.mark.parametrize("multiple", [2, 4, 8, 1000])
def test_rows_are_a_multiple_where_there_is_room(few, multiple):
    plan = Plan(few.lengths, 60.0, 64, 0, few.padded, multiple)
    assert sorted(np.concatenate(plan.epoch(1))) == list(range(len(few.lengths)))
    odd = [(rows, width) for rows, width in shapes(plan, plan.epoch(1)) if rows % multiple]
    full = [(rows, width) for rows, width in odd if min(64, 60 // width) >= multiple]
    assert len(full) <= 1, "the rest alone"
    assert plan.digest != few.digest


@pytest.mark.parametrize("budget, most", [(None, 8), (40.0, 100), (15.0, 6), (1.0, 100)])
def test_batches_of_a_pool_take_as_much_of_every_lane(budget, most):
    rng = np.random.default_rng(0)
    lengths, starts = rng.uniform(1, 10, 50), np.array([0, 14, 28, 42, 50])
    found = cut_lanes(lengths, starts, budget, most, [1, 2, 3])
    assert sorted(np.concatenate(found)) == list(range(50))
    for batch in found:
        assert len(batch) <= most and (budget is None or len(batch) == 1 or len(batch) * lengths[batch].max() <= budget)
        assert list(batch) == sorted(batch)
    if budget is None:
        counts = [np.histogram(batch, starts)[0] for batch in found]
        assert sum(len(set(count)) == 1 for count in counts) >= len(counts) // 2, "even, as far as the lanes reach"
    again, other = (cut_lanes(lengths, starts, budget, most, [1, 2, n]) for n in (3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    assert [b.tolist() for b in found] != [b.tolist() for b in other]
