"""The masks of dropout."""

import numpy as np
import pytest

from toolkit.layers import spec as layers


@pytest.mark.parametrize("first", [0, 1, 2, 15, 16])
def test_the_dropout_of_a_part_is_that_of_the_whole(first):
    whole = layers.dropout_mask(64, 12345, 0.3)
    np.testing.assert_array_equal(layers.dropout_mask(17, 12345, 0.3, first), whole[first : first + 17])
