"""How far twins may differ, with the derivation of every figure. They are never loosened to get green.

Distances are relative: for a tensor the greatest difference over the greatest magnitude, for a gradient the norm of the
difference over the norm.
"""

# Float64 tells semantics from rounding. Operations in another order give up to 1e-12 here; every mismatch of meaning
# that was met when the design was measured (another epsilon, a biased variance, a learning rate rounded to
# float32) gave more than 1e-7.
FLOAT64 = 1e-8

# Float32, at the initial weights, as measured for the design: forward 6e-7, loss 1.5e-7, gradient 5e-7.
FLOAT32_FORWARD = 6e-7
FLOAT32_LOSS = 1.5e-7
FLOAT32_GRADIENT = 5e-7

# A ReLU whose input lies within rounding of zero may pass in one twin and not in the other; the gradient then differs
# by up to 1e-3. No limit is made for that: small models have some thousand such inputs, of which 6e-7 are that near,
# and the numbers that go in are fixed. In float64 it does not happen.

# Models differ in how they magnify rounding, so beside those figures the distance of torch's own float32 from its own
# float64 is allowed so many times: both twins stray from the true value by that much, in directions of their own, and
# a norm of two strays is at most their sum; twice that leaves room for another order of operations.
FLOOR_MULTIPLE = 4.0

# Features are computed in float64 and rounded once. The two Fourier transforms differ by up to 1e-12, so a value that
# lies that near to the middle between two float32 numbers falls to either: fewer than 1e-12 / 6e-8 of them, and a
# factor of six for the spread of magnitudes.
FEATURES_UNEQUAL = 1e-4
