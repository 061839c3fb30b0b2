"""The state of a sweep: objectives, ranking, the reasons of failures, and what cannot be read."""

import json
import math

import pytest

from toolkit.errors import ConfigError
from toolkit.sweeps import driver, state
from toolkit.sweeps.state import Job, Objective, State, Trial
from toolkit.tasks.classification.spec import Classification
from toolkit.tasks.ctc.spec import CTC


def test_the_reason_of_a_failure_is_one_that_can_be_read(tmp_path):
    log = tmp_path / "0.log"
    log.write_text("step 2: the loss is not finite: " + ", ".join(f"train/{n}.jpg" for n in range(99)) + "\n")
    told = driver._why(1, log)
    assert told.startswith("step 2: the loss is not finite: train/0.jpg, ") and told.endswith(" ...")
    assert len(told) <= 200
    log.write_text("")
    assert driver._why(1, log) == "it left no results.json" and driver._why(137, log) == "ended by SIGKILL"


@pytest.mark.parametrize(
    "name, line",
    [
        (
            "validation.wre",
            "'validation.wre', expected a metric of CTC: loss, wer, cer; did you mean 'validation.wer'?",
        ),
        ("test.wre", "'test.wre', expected a metric of CTC: loss, wer, cer; did you mean 'test.wer'?"),
        ("validation.bleu", "'validation.bleu', expected a metric of CTC: loss, wer, cer$"),
        ("valid.wer", "'valid.wer', expected a split of validation and test"),
    ],
)
def test_an_objective_that_no_run_has_is_refused(name, line):
    with pytest.raises(ConfigError, match=f"objectives: found {line}"):
        Objective.named(name, CTC())


def test_a_sweep_of_an_earlier_format_is_named_with_its_reader(tmp_path):
    (tmp_path / "sweep.json").write_text('{"format": 1}')
    with pytest.raises(ConfigError, match="found format 1, expected 2; commit 7879d9e of the toolkit reads it"):
        state.load(tmp_path)


def test_ranking_puts_what_is_not_a_number_last():
    def trial(number, value, status="done"):
        return Trial(number, {}, [Job(str(number), state=status)], [[value]])

    for task, name, best in ((CTC(), "validation.wer", 2), (Classification(), "validation.accuracy", 1)):
        sweep = State("u", [], {}, "x", [], [Objective.named(name, task)], 4)
        sweep.trials = [trial(0, math.nan), trial(1, 0.9), trial(2, 0.1), trial(3, 0.0, "failed")]
        assert next(t.number for t in sweep.ranked()) == best
        assert {t.number for t in sweep.ranked()[2:]} == {0, 3}


def test_seeds_that_came_to_no_number_have_no_interval():
    jobs = [Job(str(n), n, "done") for n in range(2)]
    assert math.isnan(Trial(0, {}, jobs, [[math.inf], [1.0]]).intervals()[0])


def test_a_state_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / state.FILE).write_text(json.dumps({"format": 9}))
    with pytest.raises(ConfigError, match=r"sweep\.json: cannot be read"):
        state.load(tmp_path)
