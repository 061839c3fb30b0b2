"""How far twins may part, with the derivation of every figure. They are never loosened to get green.

Two gates, because float32 cannot tell a mismatch of meaning from rounding that training magnifies: in float64 every
mismatch that was ever met here stands out by powers of ten, and float32 is held to what torch does to itself.
"""

from __future__ import annotations

# --- semantics: float64, every quantity at every step ---

# Operations in another order part by 1e-16 each; over 100 steps of real recipes that grew to 1e-9 at most, where every
# mismatch of meaning that was met (an epsilon, a biased variance, a learning rate rounded to float32) gave over 1e-7.
FLOAT64 = 1e-8

# A parameter whose true gradient is zero (a bias in front of a batch norm) has pure rounding for a gradient: sums of
# terms that cancel, 1e-16 of their size. It has no relative accuracy in any framework, so it is not judged and listed
# by name instead: where *both* twins' gradient is below this share of the norm of the whole gradient.
ZERO_GRADIENT = 1e-13

# --- float32: the loss ---

# One forward pass rounds to 1.5e-7 of the loss, whatever the model; a step or two of an optimizer, which divides small
# gradients by small moments, adds a power of ten.
FLOAT32_FIRST_STEPS = {1: 1e-6, 2: 1e-5, 3: 1e-5}

# Then the drift is the model's own: the same rounding grows to 1e-7 in one model and to 0.4 in another within 100
# steps. torch against itself shows how far: one thread against two, float32 against float64, and twice from weights
# that are each moved to a neighbouring number, a difference of 6e-8, less than a forward pass rounds. It is drawn twice
# because the drift jumps by powers of ten in one step where a ReLU or a pooling flips, so that nothing follows from a
# single course. When the design was measured, the twins never parted by more than 2.3 times the first two.
FLOOR_MULTIPLE = 3.0

# A training that changes framework on its way begins with the numbers of the one whose checkpoint it goes on from, so
# its first loss is held to one forward pass. What comes then is the floor's: in the middle of a training torch, from
# weights moved by a rounding, parts from itself by up to 8e-5 within three steps (resnet from step 50, one of 5 draws).
FLOAT32_AFTER_A_CHANGE = {1: 1e-6}

# The spacing of float32 numbers. No loss is known better, so no floor is below it, even where torch repeats its bits.
FLOAT32_UNIT = 1.2e-7
