"""Compare a run with the checkpoint that it resumes or evaluates.

A change that would make this a different run is refused by name, together with the override that accepts it. All other
changes are reported in one line. Changes of the config are found before the data is read, all others before a
framework is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from toolkit.config.source import OWN_TO_A_RUN
from toolkit.data import pipeline
from toolkit.data.columns.column import columns_of
from toolkit.data.split import Learned
from toolkit.errors import ConfigError, DataError
from toolkit.layers import spec as layers
from toolkit.optimizers.state import check_state
from toolkit.runs import checkpoint
from toolkit.runs.checkpoint import Checkpoint

if TYPE_CHECKING:
    from toolkit.config.schema import Run

LEARNING_GROUPS = ("tokenizer", "features")  # groups whose components learn from the training split
HEADLINE = "the config does not match this checkpoint:"
Changes = dict[str, tuple[Any, Any]]  # key -> value at the checkpoint, value now
FACTS = {"seed": "seed", "accumulate": "trainer.accumulate"}  # entry of Progress.facts -> key of the config


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """Return the fields that differ in two configs, by dotted key; for a replaced component only the class names."""
    changed: Changes = {}
    for key in [key for key in {**before, **now} if key not in OWN_TO_A_RUN]:
        old, new = before.get(key), now.get(key)
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            changed[key] = old, new
        elif old.get("_target_") != new.get("_target_"):
            changed[key] = _class(old), _class(new)
        else:
            changed |= {f"{key}.{inner}": values for inner, values in changes(old, new).items()}
    return {key: (old, new) for key, (old, new) in changed.items() if old != new}


def _class(component: Mapping[str, Any]) -> str:
    return str(component.get("_target_")).rpartition(".")[2]


def describe(changed: Changes, groups: Iterable[str] = ()) -> str:
    """Describe the changes in ``groups``, or all: "optimizer.lr 0.003 -> 0.001, backend torch -> tf"."""
    groups = tuple(groups)
    return ", ".join(
        f"{key} {_format(old)} -> {_format(new)}"
        for key, (old, new) in changed.items()
        if not groups or key.partition(".")[0] in groups
    )


def _format(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def check(run: Run, changed: Changes, earlier: Checkpoint) -> None:
    """Refuse changes of the config that the checkpoint does not allow.

    Args:
        run: this run.
        changed: :func:`changes` from the checkpoint's config to this run's.
        earlier: the checkpoint that it resumes or evaluates.

    Raises:
        ConfigError: the tokenizer, the features, the seed or the accumulation changed and ``run.accept`` does not
            list them, or the model or the optimizer changed.
    """
    refused = [line for group in LEARNING_GROUPS if (line := _refusal(run, group, describe(changed, [group])))]
    for fact, key in FACTS.items() if run.resume else ():
        old, new = earlier.progress.facts.get(fact), run.seed if fact == "seed" else run.trainer.accumulate
        if old != new and fact not in run.accept:
            mend = f"set {key}={old}, or accept=[{fact}] to resume with different batches"
            refused.append(f"{key}: found {new}, expected {old} as in the checkpoint; {mend}")
    if not describe(changed, LEARNING_GROUPS):
        refused += misfits(run, changed, earlier, pipeline.load(columns_of(run), earlier.path / checkpoint.LEARNED))
    if refused:
        raise ConfigError(refused, f"{earlier.path}: {HEADLINE}")


def _refusal(run: Run, group: str, change: str) -> str:
    """Return a line about a changed tokenizer or changed features; empty if nothing changed or the run accepts it."""
    if not change or (group in run.accept and (run.resume or group == "features")):
        return ""
    if run.resume:
        return f"{change}; accept=[{group}] learns the {group} again from the data"
    if group == "features":
        return f"{change}; accept=[features] evaluates the model with features that it was not trained with"
    return f"{change}; a model only works with the tokenizer that it was trained with; remove the override"


def learned_anew(run: Run, changed: Changes) -> set[str]:
    """Return which of tokenizer and features a resumed run learns again instead of loading them from the checkpoint.

    These changed, and :func:`check` found them accepted.
    """
    return {group for group in LEARNING_GROUPS if run.resume and describe(changed, [group])}


def check_model(run: Run, changed: Changes, earlier: Checkpoint, learned: Learned) -> None:
    """Refuse a model that does not fit, once tokenizer and features are learned again.

    Raises:
        ConfigError: see :func:`misfits`.
    """
    if refused := misfits(run, changed, earlier, learned):
        raise ConfigError(refused, f"{earlier.path}: {HEADLINE}")


def misfits(run: Run, changed: Changes, earlier: Checkpoint, learned: Learned) -> list[str]:
    """Return a line for the model, and in a resumed run for the optimizer, if the checkpoint does not fit it.

    A line names the changed fields and the first parameters that differ. No override accepts them.
    """
    parameters = run.model.parameters(learned.inputs, learned.outputs)
    lines = []
    try:
        layers.match(earlier.state.model, {name: tuple(p.shape) for name, p in parameters.items()})
    except ValueError as error:
        why = describe(changed, ("model", *LEARNING_GROUPS)) or "no field of the model changed"
        lines.append(f"{why}: the checkpoint does not fit this model: {error}")
    trained = {name: tuple(p.shape) for name, p in parameters.items() if p.trainable}
    try:
        if run.resume and not lines:
            check_state(earlier.state.optimizer, trained, run.optimizer.moments)
    except ValueError as error:
        why = describe(changed, ["optimizer"]) or "no field of the optimizer changed"
        lines.append(f"{why}: the checkpoint does not fit this optimizer: {error}")
    return lines


def check_data(run: Run, changed: Changes, earlier: Checkpoint, facts: Mapping[str, Any]) -> None:
    """Refuse to resume with changed data, or in the middle of an epoch whose batches changed.

    Args:
        run, changed, earlier: see :func:`check`.
        facts: those of the resumed run, see ``Progress.facts``.

    Raises:
        DataError: ``run.accept`` does not list the change. Changed batches that follow from changed data or another
            seed are accepted with these.
    """
    progress = earlier.progress
    changed_facts = {name for name in facts if progress.facts.get(name) != facts[name]}
    refused = []
    if "dataset" in changed_facts and "dataset" not in run.accept:
        refused.append(
            f"dataset {progress.facts.get('dataset')}, now {facts['dataset']}: the examples changed since the "
            "checkpoint; restore them, or accept the change with accept=[dataset]"
        )
    # a run can resume with other batches at the end of an epoch, but not in the middle of one
    if (progress.batch or progress.stream) and "plan" in changed_facts and not _accepted(run, changed, changed_facts):
        why = describe(changed, ["trainer", "dataset"]) or "the lengths of the examples changed"
        refused.append(
            f"plan: the checkpoint is at batch {progress.batch} of an epoch whose batches changed ({why}); "
            "accept=[plan] resumes there, and this epoch may repeat or miss examples"
        )
    if refused:
        raise DataError(refused, f"{earlier.path}: the position in the data is no longer valid:")


def _accepted(run: Run, changed: Changes, changed_facts: set[str]) -> bool:
    """Tell if changed batches are accepted, by name or as a consequence of an accepted change of config or facts."""
    return bool({"plan", *(changed_facts & {"dataset", "seed"}), *learned_anew(run, changed)} & set(run.accept))
