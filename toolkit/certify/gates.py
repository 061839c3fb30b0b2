"""Limits for the difference of twins, with the derivation of every figure. They are never loosened to get green.

Two gates, because float32 cannot tell a mismatch of meaning from rounding that training magnifies: in float64 every
mismatch that was ever met here stands out by powers of ten, and float32 is held to what each framework does to itself.
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
# steps. Each framework against itself shows how far: twice from weights that are each moved to a neighbouring number, a
# difference of 6e-8, less than a forward pass rounds; and torch with one thread against two and in float32 against
# float64. The floor is the largest of these six distances over all steps. Each twin strays from the common course by
# about a floor, so the twins part by two; that a largest of few draws comes out small is worth another.
# When the design was measured, the twins never parted by more than 2.3 times torch's threads and float64.
FLOOR_MULTIPLE = 3.0

# Why both frameworks: the drift jumps by powers of ten in one step where a ReLU or a pooling flips, in some courses of
# a model and not in others. Let each course jump with chance p, alone. The twins part where only one of the two jumps.
# - torch's floor knows of a jump of torch's course, for all its distances are from that course. It knows of none of
#   tf's unless one of its own four courses jumps likewise: tf jumps and torch's five courses do not with
#   p (1 - p)^5, 7 % for recipe=asr, of which 2 in 13 courses jumped (p = 0.15).
# - with tf's floor, a jump of tf's course counts for the floor as well, unless both moved courses jump too. What
#   remains is that all courses of one framework jump and none of the other's: p^3 (1 - p)^5 + p^5 (1 - p)^3, 0.15 % for
#   p = 0.15 and 0.8 % for the worst p, a half.
# tf in float32 against float64 must not be in the floor: the twins agree in float64, so no distance in float32 is more
# than the sum of both distances from there, and a gate that allows three times the larger one could not fail. From
# moved weights an error of tf's float32 is in both courses, so their distance does not contain it.

# A training that changes framework on its way begins with the numbers of the one whose checkpoint it resumes, so its
# first loss is held to one forward pass. The floor holds the later ones: in the middle of a training torch, from
# weights moved by a rounding, parts from itself by up to 8e-5 within three steps (resnet from step 50, one of 5 draws).
# After the change it is a course of its own, which may jump where no other does, so its floor also has the same change
# from moved weights. That makes the chance of a failure p times as large, as both must jump and no other course.
FLOAT32_AFTER_A_CHANGE = {1: 1e-6}

# The spacing of float32 numbers. No loss is known better, so no floor is below it, even where torch repeats its bits.
FLOAT32_UNIT = 1.2e-7
