"""The exchange of rows between the processes of a run."""

import threading

from tests.support.devices import joined
from toolkit.data import exchange


def test_rows_of_all_processes_are_gathered_in_the_order_of_the_ranks():
    decoded = [[[0, {"hypothesis": "zażółć", "score": 0.1}]], [], [[2, {"score": float("-inf")}], [1, {"top": ["a"]}]]]
    engines, found = joined(3), {}

    def gather(rank):
        found[rank] = exchange.gather(engines[rank], decoded[rank])

    threads = [threading.Thread(target=gather, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[rank] for rank in range(3)] == [[*decoded[0], *decoded[2]]] * 3
