"""Limits for the differences between twins, and how each was derived. They are never loosened to make a test pass.

There are two gates, because float32 cannot tell a semantic mismatch from rounding that training magnifies. In float64
every mismatch seen so far exceeds rounding by orders of magnitude; float32 is held to the difference between a
framework and itself.
"""

from __future__ import annotations

# --- semantics: float64, every quantity at every step ---

# Operations in a different order differ by 1e-16 each. Over 100 steps of real recipes that grew to at most 1e-9,
# whereas every semantic mismatch seen so far (an epsilon, a biased variance, a learning rate rounded to float32)
# exceeded 1e-7.
FLOAT64 = 1e-8

# The gradient of a parameter whose true gradient is zero (a bias before a batch norm) is rounding only: a sum of
# canceling terms, 1e-16 of their size, without relative accuracy in any framework. If both twins' gradients are below
# this fraction of the norm of the whole gradient, the parameter is listed by name instead of compared.
ZERO_GRADIENT = 1e-13

# --- float32: the loss ---

# One forward pass rounds to 1.5e-7 of the loss, whatever the model; a step or two of an optimizer, which divides small
# gradients by small moments, adds a power of ten.
FLOAT32_FIRST_STEPS = {1: 1e-6, 2: 1e-5, 3: 1e-5}

# Later differences depend on the model: the same rounding grows to 1e-7 in one model and to 0.4 in another within 100
# steps. Comparing each framework with itself shows how much: twice from perturbed weights (each moved to a neighboring
# number, a difference of 6e-8, less than the rounding of a forward pass), and for torch also one thread against two and
# float32 against float64. The floor is the largest of these six differences over all steps. Each twin deviates by about
# one floor, so the twins differ by two; the third allows for a floor that is small by chance, as the largest of few
# draws. When this was designed, the twins never differed by more than 2.3 times torch's difference over threads and
# float64.
FLOOR_MULTIPLE = 3.0

# Why both frameworks: where a ReLU or a pooling flips, the difference jumps by powers of ten in one step, in some
# trainings and not in others. Assume that each training jumps independently with probability p. The twins differ where
# exactly one of the two jumps.
# - torch's floor covers a jump of the torch training, because all its differences are from that training. It covers a
#   jump of the tf training only if one of torch's other four trainings jumps too. The certificate fails with
#   probability p (1 - p)^5, 7 % for recipe=asr, where 2 of 13 trainings jumped (p = 0.15).
# - tf's floor covers a jump of the tf training as well, unless both perturbed trainings jump too. A failure then
#   requires that all trainings of one framework jump and none of the other's: p^3 (1 - p)^5 + p^5 (1 - p)^3, 0.15 % for
#   p = 0.15 and at most 0.8 %, for p = 0.5.
# TensorFlow's float32 against its float64 must not be in the floor: the twins agree in float64, so their difference in
# float32 is at most the sum of both frameworks' differences from float64, and a gate of three times the larger one
# could not fail. An error in tf's float32 is in both perturbed trainings, so their difference does not contain it.

# A training that changes framework starts with the weights of the training whose checkpoint it resumes, so its first
# loss is held to the rounding of one forward pass. The floor limits the later ones: resumed from perturbed weights,
# torch differs from itself by up to 8e-5 within three steps (resnet from step 50, one of 5 draws). After the change it
# is a training of its own, which may jump where no other does, so its floor also has the same change from perturbed
# weights. That multiplies the probability of a failure by p, because both must jump and no other training.
FLOAT32_AFTER_A_CHANGE = {1: 1e-6}

# The spacing of float32 numbers. No loss is more accurate, so no floor is below it, even where torch repeats its bits.
FLOAT32_UNIT = 1.2e-7
