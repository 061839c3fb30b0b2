import numpy as np
import pytest

from toolkit.plan import Plan, padding_efficiency


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
