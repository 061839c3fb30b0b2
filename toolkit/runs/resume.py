"""What may be another in a run that goes on from a checkpoint, or measures one, than in the run that left it.

A difference that makes the result another run's is refused by name, with the override that accepts it; any other is
told in one line. What the config tells is known before the data is read, the rest before a framework is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from toolkit.config.source import OWN_TO_A_RUN
from toolkit.data import pipeline
from toolkit.data.columns.column import columns_of
from toolkit.data.split import Learned
from toolkit.errors import ConfigError, DataError
from toolkit.layers import spec as layers
from toolkit.optimizers.state import check_state
from toolkit.runs import checkpoint
from toolkit.runs.checkpoint import Checkpoint

LEARNED = ("tokenizer", "features")  # groups whose components learn from the training split
HEADLINE = "the config does not go with this checkpoint:"
Changes = dict[str, tuple[Any, Any]]  # key -> value at the checkpoint, value now
FACTS = {"seed": "seed", "accumulate": "trainer.accumulate"}  # of those in Progress.facts, what the config tells


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """The fields that differ in two configs, by dotted key; of a component that is another one its name alone."""
    found: Changes = {}
    for key in [key for key in {**before, **now} if key not in OWN_TO_A_RUN]:
        old, new = before.get(key), now.get(key)
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            found[key] = old, new
        elif old.get("_target_") != new.get("_target_"):
            found[key] = _class(old), _class(new)
        else:
            found |= {f"{key}.{inner}": values for inner, values in changes(old, new).items()}
    return {key: (old, new) for key, (old, new) in found.items() if old != new}


def _class(component: Mapping[str, Any]) -> str:
    return str(component.get("_target_")).rpartition(".")[2]


def told(changed: Changes, groups: Iterable[str] = ()) -> str:
    """The changes in words, of some groups or of all: "optimizer.lr 0.003 -> 0.001, backend torch -> tf"."""
    groups = tuple(groups)
    return ", ".join(
        f"{key} {_shown(old)} -> {_shown(new)}"
        for key, (old, new) in changed.items()
        if not groups or key.partition(".")[0] in groups
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def check(run: Any, config: Mapping[str, Any], found: Checkpoint) -> None:
    """Refuse what the config alone tells.

    Args:
        run, config: of this run.
        found: what it goes on from or measures.

    Raises:
        ConfigError: another tokenizer, other features, another seed or accumulation, unless ``run.accept`` has them;
            another model or optimizer.
    """
    changed = changes(found.about.config, config)
    refused = [line for group in LEARNED if (line := _another(run, group, told(changed, [group])))]
    for fact, key in FACTS.items() if run.resume else ():
        old, new = found.progress.facts.get(fact), run.seed if fact == "seed" else run.trainer.accumulate
        if old != new and fact not in run.accept:
            refused.append(f"{key} {old}, now {new}; accept=[{fact}] goes on with other batches than the run had")
    if not told(changed, LEARNED):
        refused += misfits(run, changed, found, pipeline.load(columns_of(run), found.path / checkpoint.LEARNED))
    if refused:
        raise ConfigError(refused, f"{found.path}: {HEADLINE}")


def _another(run: Any, group: str, what: str) -> str:
    """A line about another tokenizer or other features that are not accepted; nothing where all is well."""
    if not what or (group in run.accept and (run.resume or group == "features")):
        return ""
    if run.resume:
        return f"{what}; accept=[{group}] learns the {group} anew, on the data"
    if group == "features":
        return f"{what}; accept=[features] gives the model these, though it was trained with the others"
    return f"{what}; a model is used with the tokenizer that it was trained with: leave that out"


def learned_anew(run: Any, config: Mapping[str, Any], found: Checkpoint) -> set[str]:
    """Of tokenizer and features, what the run learns again and does not take from the checkpoint: accepted by now."""
    changed = changes(found.about.config, config)
    return {group for group in LEARNED if run.resume and told(changed, [group])}


def check_model(run: Any, config: Mapping[str, Any], found: Checkpoint, learned: Learned) -> None:
    """Refuse a model that does not fit, now that tokenizer and features are known which the run learned anew.

    Raises:
        ConfigError: see :func:`misfits`.
    """
    if refused := misfits(run, changes(found.about.config, config), found, learned):
        raise ConfigError(refused, f"{found.path}: {HEADLINE}")


def misfits(run: Any, changed: Changes, found: Checkpoint, learned: Learned) -> list[str]:
    """Lines about a model, and in a run that goes on an optimizer, that the checkpoint does not fit.

    They name the fields that are others, and the first parameters that differ. Nothing accepts them.
    """
    parameters = run.model.parameters(learned.inputs, learned.outputs)
    lines = []
    try:
        layers.match(found.state.model, {name: tuple(p.shape) for name, p in parameters.items()})
    except ValueError as error:
        why = told(changed, ("model", *LEARNED)) or "no field of the model is another"
        lines.append(f"{why}: the checkpoint does not fit this model: {error}")
    trained = {name: tuple(p.shape) for name, p in parameters.items() if p.trainable}
    try:
        if run.resume and not lines:
            check_state(found.state.optimizer, trained, run.optimizer.moments)
    except ConfigError as error:
        why = told(changed, ["optimizer"]) or "no field of the optimizer is another"
        lines.append(f"{why}: the checkpoint does not fit this optimizer: {'; '.join(error.problems)}")
    return lines


def check_data(run: Any, config: Mapping[str, Any], found: Checkpoint, facts: Mapping[str, Any]) -> None:
    """Refuse to go on with other data, or from the middle of an epoch in other batches.

    Args:
        facts: of the run that goes on, as in ``Progress.facts``.

    Raises:
        DataError: unless ``run.accept`` has them. Other batches follow from other data or another seed, and are
            accepted with them.
    """
    at = found.progress
    other = {name for name in facts if at.facts.get(name) != facts[name]}
    refused = []
    if "dataset" in other and "dataset" not in run.accept:
        refused.append(
            f"dataset {at.facts.get('dataset')}, now {facts['dataset']}: the examples are others than the run had; "
            "give it those, or go on with these by accept=[dataset]"
        )
    # with other batches a run can go on from the end of an epoch, but not from the middle of one
    if (at.batch or at.stream) and "plan" in other and not _explained(run, config, found, other):
        why = (
            told(changes(found.about.config, config), ["trainer", "dataset"])
            or "the lengths of the examples are others"
        )
        refused.append(
            f"plan: the run stands at batch {at.batch} of an epoch that is now cut into others ({why}); accept=[plan] "
            "goes on there all the same: in this epoch it may see an example twice, or not at all"
        )
    if refused:
        raise DataError(refused, f"{found.path}: the position in this run no longer holds:")


def _explained(run: Any, config: Mapping[str, Any], found: Checkpoint, other: set[str]) -> bool:
    """Whether other batches are accepted, by their name or as what follows from something accepted."""
    return bool({"plan", *(other & {"dataset", "seed"}), *learned_anew(run, config, found)} & set(run.accept))
