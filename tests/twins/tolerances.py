"""How far twins may differ, with the derivation of every figure. They are never loosened to get green.

Distances are relative: for a tensor the greatest difference over the greatest magnitude, for a gradient the norm of the
difference over the norm.
"""

# Float64 tells semantics from rounding. Operations in another order give up to 1e-12 here; every mismatch of meaning
# that was met when the design was measured (another epsilon, a biased variance, a learning rate rounded to
# float32) gave more than 1e-7.
FLOAT64 = 1e-8

# Float32, at the initial weights, as measured for the design: forward 6e-7, gradient 5e-7. They are the least limits,
# and those of single layers.
FLOAT32_FORWARD = 6e-7
FLOAT32_GRADIENT = 5e-7

# Models differ in how much they magnify rounding, so whole models are also allowed a multiple of their own rounding.
# The stray of a twin is the distance of its float32 run from its own float64 run of the same case, the largest of all
# forward tensors or of all gradients. A single tensor is no measure: one framework may round it well by chance on one
# instruction set (gradients of bilstm_ctc stray by 4e-7 to 2e-6), and the loss, one number, may even be exact. The
# loss has the limit of the forward tensors: logits that change by d change a log-probability by 2 d at most.
#
# Twins that agree in float64 differ in float32 by at most the sum of their two strays, however large these are. A
# multiple of the sum would therefore allow everything, also a kernel that is wrong in float32 only. The multiple is of
# the geometric mean, which demands that the strays t and s are alike: for s = r t, the sum is (1 + r) / sqrt(r) times
# the mean. How large r may be without an error follows from the order of summation, the only thing in which two correct
# float32 programs of the same operations differ. The errors of n terms add up like a random walk: sqrt(n / 8) units if
# 8 lanes of a vector each add one term after the other, sqrt(log2(n)) if halves are added recursively. The longest sums
# here, the gradients of the first convolution of the speech models, have 4 rows x 99 x 39 = 15,444 terms, so r is at
# most 44 / 3.7 = 12, and (1 + 12) / sqrt(12) = 3.75. The multiple of 4 allows r up to 13.9.
#
# An error in both precisions does not change the strays, so float32 alone finds it from 4 times the rounding of the
# model on, some 1e-6. An error in float32 only raises one stray and the limit with its root: it is found from 16 times
# the rounding of the other twin on, some 1e-5. tests/twins/mutants.py has errors on both sides of these bounds.
FLOAT32_MULTIPLE = 4.0

# A ReLU whose input lies within rounding of zero may pass in one twin and not in the other; the gradient then differs
# by up to 1e-3. No limit is made for that: small models have some thousand such inputs, of which 6e-7 are that near,
# and the numbers that go in are fixed. In float64 it does not happen.

# Features are computed in float64 and rounded once. The two Fourier transforms differ by up to 1e-12, so a value that
# lies that near to the middle between two float32 numbers falls to either: fewer than 1e-12 / 6e-8 of them, and a
# factor of six for the spread of magnitudes.
FEATURES_UNEQUAL = 1e-4
