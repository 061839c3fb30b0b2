"""The loss scale of float16, by one rule for both backends.

float16 has no room for small gradients. With ``precision=16`` the loss is multiplied by a scale, and its gradients are
divided by it in float32 before they are used. A step whose gradients are not finite is skipped and halves the scale;
``GROW_AFTER`` steps in a row without one double it, up to ``LARGEST``.
"""

from __future__ import annotations

from toolkit.training.progress import Progress

INITIAL, LARGEST, GROW_AFTER = 2.0**15, 2.0**24, 2000


def start(progress: Progress, precision: str) -> None:
    """Set the scale of a run that starts, or resumes in another precision; keep that of a resumed float16 run."""
    if precision != "16":
        progress.scale, progress.good = None, 0
    elif not progress.scale:
        progress.scale, progress.good = INITIAL, 0


def grow(progress: Progress) -> None:
    """Count a finite step, and raise the scale after enough of them."""
    if progress.scale is None:
        return
    progress.good += 1
    if progress.good == GROW_AFTER:
        progress.scale, progress.good = min(2 * progress.scale, LARGEST), 0


def shrink(progress: Progress) -> bool:
    """Halve the scale after a step that was not finite.

    Returns:
        False, if the scale is not to blame: the precision needs none, or it has fallen below 1.
    """
    if progress.scale is None:
        return False
    progress.scale, progress.good = progress.scale / 2, 0
    return progress.scale >= 1
