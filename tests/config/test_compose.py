"""Composing and checking a config: what it means, and every problem at once."""

import dataclasses
import subprocess
import sys

import pytest
import yaml

from tests.support.configs import OWN, PLAIN, check, refused, write
from toolkit.config import build, compose, process, schema, source

ASR = "recipe=asr"
RECIPES = source.options("recipe")
CHOICES = [(group, name) for group in source.GROUPS for name in source.options(group)]


# --- what a config means ---


@pytest.mark.parametrize("group, name", CHOICES)
def test_every_option_says_what_it_is(group, name):
    lines = source.locate(group, name).read_text().splitlines()
    assert any(line.startswith("# ") and not line.startswith("# @") for line in lines[:2])


@pytest.mark.parametrize("group, name", CHOICES)
def test_the_files_hold_no_copy_of_a_default(group, name):
    content, _ = source.read(source.locate(group, name))
    if "_target_" in content:
        defaults = source.defaults_of(build.find(content["_target_"]))
        # that of another size of the same component may be one: it says what the size is
        same = {key for key, value in content.items() if key in defaults and defaults[key] == value}
        assert same <= {"language"}


def test_every_field_of_every_component_is_in_the_composed_config():
    shown = compose.compose([ASR]).config
    run = schema.check([ASR])
    for group in source.PARTS:
        assert shown[group].keys() - {"_target_"} == {f.name for f in dataclasses.fields(getattr(run, group))}
    assert shown["features"]["spec_augment"].keys() == {f.name for f in dataclasses.fields(run.features.spec_augment)}


def test_values_take_the_types_of_their_fields():
    run = check(
        "optimizer.lr=1e-3", "optimizer.betas=[0,0.5]", "trainer.precision=32", "trainer.clip_norm=null", "seed=3"
    )
    assert (run.optimizer.lr, run.optimizer.betas) == (0.001, (0.0, 0.5))
    assert all(type(beta) is float for beta in run.optimizer.betas)
    assert (run.trainer.precision, run.trainer.clip_norm, run.seed) == ("32", None, 3)
    assert check("optimizer.betas.0=0.25").optimizer.betas == (0.25, 0.999)
    assert check("features.spec_augment.time_masks=1").features.spec_augment.time_masks == 1
    assert check("dataset=audio_folder", "dataset.path=2024").dataset.path == "2024"


def test_the_config_of_a_run_gives_the_same_run():
    run = check("optimizer=sgd", "model=bilstm_ctc", "seed=5")
    text = yaml.safe_dump(schema.plain(run))
    assert schema.resolve(yaml.safe_load(text)) == run


def test_a_recipe_speaks_for_the_components_that_it_chose(tmp_path):
    write(
        tmp_path,
        "recipe/mine.yaml",
        """\
        # mine
        defaults:
          - plain
          - override /model: conformer_ctc_tiny
          - override /optimizer: adamw
          - _self_
        model: {dropout: 0.25, heads: 2}
        optimizer: {lr: 0.5, weight_decay: 0.125}
        trainer: {max_epochs: 3}
        """,
    )

    def mine(*overrides):
        return schema.check(["recipe=mine", *overrides], [tmp_path, OWN])

    run = mine()
    assert (run.recipe, run.model.dropout, run.model.heads, run.optimizer.lr) == ("mine", 0.25, 2, 0.5)
    small = mine(
        "model=conformer_ctc_small"
    ).model  # the same component: its own fields win, the rest of the recipe holds
    assert (small.layers, small.heads, small.dropout) == (16, 4, 0.25)
    sgd = mine("optimizer=sgd").optimizer  # another component
    assert sgd == type(sgd)()
    assert mine("model=bilstm_ctc").model == type(mine("model=bilstm_ctc").model)()
    stock = mine("trainer=stock").trainer
    assert (stock.loop, stock.max_epochs) == ("stock", 3)
    assert mine("model=conformer_ctc_small", "model.heads=8").model.heads == 8  # the command line always wins


def test_one_embedding_needs_one_vocabulary():
    shared, separate = "model.share_embeddings=true", "tokenizer.joint=false"
    assert refused("recipe=translation", shared, separate) == [
        "model.share_embeddings: true is not supported with tokenizer.joint=false; set tokenizer.joint=true or "
        "model.share_embeddings=false"
    ]
    for fine in ([shared], [separate, "model.share_embeddings=false"], [separate, "model=lstm_attention"]):
        schema.check(["recipe=translation", *fine])


def test_features_follow_the_sample_rate_of_the_data():
    assert check("dataset.sample_rate=8000").features.sample_rate == 8000
    assert refused(PLAIN, "features.sample_rate=8000") == [
        "features.sample_rate: found 8000, expected dataset.sample_rate, 16000"
    ]


@pytest.fixture
def earlier(tmp_path):
    """A run folder with a config of its own."""
    run = check(
        "seed=7", "backend=tf", "optimizer=sgd", "optimizer.lr=0.5", "model.dropout=0.25", f"run_dir={tmp_path}/run"
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(schema.plain(run)))
    return tmp_path / "run"


@pytest.mark.parametrize("key", ["resume", "evaluate"])
def test_an_earlier_run_is_gone_on_from_by_its_folder_alone(earlier, key):
    run = schema.check([f"{key}={earlier}"])
    assert (run.recipe, run.seed, run.backend, run.optimizer.lr, run.model.dropout) == ("plain", 7, "tf", 0.5, 0.25)
    assert getattr(run, key) == str(earlier)
    assert run.run_dir == str(earlier) if key == "resume" else run.run_dir.startswith("outputs/plain/tf/")
    assert schema.check([f"{key}={earlier}", "run_dir=elsewhere"]).run_dir == "elsewhere"
    run = schema.check(
        [f"{key}={earlier}", "backend=torch", "schedule=cosine", "optimizer.lr=0.25", "model=conformer_ctc_small"]
    )
    assert (run.backend, run.optimizer.lr, run.optimizer.momentum) == ("torch", 0.25, 0.9)
    assert (type(run.schedule).__name__, run.model.layers, run.model.dropout) == ("Cosine", 16, 0.25)
    assert schema.check([f"{key}={earlier}", "optimizer=adamw"]).optimizer.lr == 0.001
    assert check(f"{key}={earlier}").seed == 0  # a recipe is a beginning of its own


def test_an_earlier_run_that_is_not_there_is_the_only_problem(tmp_path):
    assert refused(f"resume={tmp_path}/x") == [f"resume: {tmp_path}/x is not a folder, expected a run folder"]
    assert refused(f"evaluate={tmp_path}") == [f"evaluate: {tmp_path} has no config.yaml, expected a run folder"]
    assert check("resume=auto", "run_dir=here").resume == "auto"
    assert refused(PLAIN, "resume=auto") == [
        "resume=auto: found no run_dir; set run_dir=FOLDER, the run to resume or to start"
    ]
    (tmp_path / "config.yaml").write_text("model: [")
    (line,) = refused(f"resume={tmp_path}")
    assert line.startswith(f"{tmp_path}/config.yaml: not a YAML file that can be read")


# --- problems ---


def test_every_problem_is_reported_at_once():
    lines = refused(
        PLAIN, "model=conformr_ctc", "modle=x", "lr=1", "optimizer.lrr=1", "optimizer.lr=fast", "trainer.max_steps=1.5",
        "trainer.keep=0", "trainer.precision=8", "model.dim=15", "seed=-1", "dataset=audio_folder",
        "features.mels=null", "task.zzz=1", "garbage", "model.kernel=4",
    )  # fmt: skip
    expected = {
        "model=conformr_ctc: no such option; did you mean conformer_ctc?",
        "modle: unknown key; did you mean model?",
        "lr: unknown key; did you mean optimizer.lr?",
        "optimizer.lrr: unknown key; did you mean optimizer.lr?",
        "optimizer.lr: found 'fast', expected a number",
        "trainer.max_steps: found 1.5, expected an integer or null",
        "trainer.keep: found 0, expected at least 1",
        "trainer.precision: found 8, expected one of 64, 32, bf16, 16",
        "model.dim: found 15, expected an even number",
        "model.kernel: found 4, expected an odd number",
        "seed: found -1, expected at least 0",
        "dataset.path: ",
        "features.mels: found null, expected an integer",
        "task.zzz: unknown key (there are: ",
        "garbage: not an override, expected KEY=VALUE",
    }
    assert [beginning for beginning in expected if not any(line.startswith(beginning) for line in lines)] == []
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize(
    "override, line",
    [
        ("optimizer.lr=true", "optimizer.lr: found true, expected a number"),
        ("optimizer.lr=null", "optimizer.lr: found null, expected a number"),
        ("optimizer.lr=[1]", "optimizer.lr: found [1], expected a number"),
        ("optimizer.lr='1 2'", "optimizer.lr: found '1 2', expected a number"),
        ("optimizer.lr=nan", "optimizer.lr: found nan, expected a finite number"),
        ("model.dim=32.0", "model.dim: found 32.0, expected an integer"),
        ("model.dim=true", "model.dim: found true, expected an integer"),
        ("model.dim=1e2", "model.dim: found 100.0, expected an integer"),
        ("model.native_dropout=1", "model.native_dropout: found 1, expected true or false"),
        ("model.native_dropout='yes'", "model.native_dropout: found 'yes', expected true or false"),
        ("run_dir=null", "run_dir: found null, expected text"),
        ("optimizer.betas=[0.5]", "optimizer.betas: found [0.5], expected a list of 2 values (a number, a number)"),
        ("optimizer.betas=[a,0.5]", "optimizer.betas.0: found 'a', expected a number"),
        ("optimizer.betas=[0.5,2]", "optimizer.betas: found 2.0, expected less than 1"),
        ("features.spec_augment=3", "features.spec_augment: found 3, expected the fields of SpecAugment"),
        ("features.spec_augment.time_mask=3",
         "features.spec_augment.time_mask: unknown key; did you mean features.spec_augment.time_masks?"),
        ("features.spec_augment.time_masks=-3", "features.spec_augment.time_masks: found -3, expected at least 0"),
        ("model=3", "model=3: no such option (there are: "),
        ("optimizer.lr=1,2", "optimizer.lr=1,2: several values; add -m"),
        ("backend=jax", "backend=jax: no such option (there are: tf, torch)"),
        ("+model.extra=1", "model.extra: unknown key (in the command line) (there are: "),
        ("~model.extra", "model.extra: unknown key"),
        ("model={dimm: 3}", "model.dimm: unknown key; did you mean model.dim?"),
        ("seed=${no.such}", "seed: Interpolation key 'no.such' not found"),
        ("seed=${dataset.no}",
         "seed: its value is that of dataset.no, which dataset=asterisk_en does not have; choose another dataset, or"),
        ("hydra.run.dir=x", "hydra.run.dir=x: not supported; set run_dir=FOLDER"),
        ("model=null", "model=null: no such option"),
        ("~model", "~model: changes to the defaults list are not supported"),
        ("dataset=audio_folder", "dataset.path: "),
    ],
)  # fmt: skip
def test_one_problem_is_one_line(override, line):
    found = refused(PLAIN, override)
    assert len(found) == 1 and found[0].startswith(line), found


def test_without_a_recipe_the_rest_is_checked_too():
    lines = refused("optimizer.lr=fast", "model.anything=1")
    assert lines == [
        f"recipe: not given; set recipe=NAME (there are: {', '.join(sorted({*RECIPES, 'plain'}))})",
        "optimizer.lr: found 'fast', expected a number",
    ]
    lines = refused("recipe=plainn", "model.dimm=1")
    assert lines[0].startswith("recipe=plainn: no such option; did you mean plain?")
    assert lines[1] == "model.dimm: unknown key; did you mean model.dim?"


def test_a_framework_that_is_not_installed_is_named_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(process.FRAMEWORKS, "tf", ("tensorflow_that_is_not_there",))
    assert refused(PLAIN, "backend=tf") == [
        "backend=tf needs tensorflow_that_is_not_there, not installed here: "
        'install toolkit with the extra "tf", in a checkout by pip install -e ".[tf]"'
    ]
    assert len(refused(PLAIN, "backend=tf", "seed=-1")) == 2
    check("backend=torch")


def test_a_value_that_is_no_choice_is_refused_with_the_choices():
    assert refused(ASR, "dataset=asterisk_en", "dataset.language=de") == [
        "dataset.language: found 'de', expected one of en, es, fr"
    ]
    assert refused(ASR, "dataset=librispeech", "dataset.subset=dirty") == [
        "dataset.subset: found 'dirty', expected one of clean, other, all"
    ]


def test_a_mistake_in_a_file_is_reported_with_the_file(tmp_path):
    write(
        tmp_path,
        "recipe/mine.yaml",
        """\
        # mine
        defaults: [plain, _self_]
        optimiser: {lr: 1}
        optimizer: {lrr: 1}
        model: {dropout: often, dims: 3}
        allow: [os]
        """,
    )
    write(tmp_path, "model/mine.yaml", "# mine\n_target_: toolkit.models.conformer_ctc.spec.ConformerCTC\nhead: 3\n")
    file = tmp_path / "recipe" / "mine.yaml"
    assert sorted(refused("recipe=mine", folders=[tmp_path])) == [
        f"allow: found in {file}, expected on the command line only; set allow=[...] there",
        f"model.dims: unknown key (in {file}); did you mean model.dim?",
        "model.dropout: found 'often', expected a number",
        f"optimiser: unknown key (in {file}); did you mean optimizer?",
        f"optimizer.lrr: unknown key (in {file}); did you mean optimizer.lr?",
    ]
    assert refused(PLAIN, "model=mine", folders=[tmp_path]) == [
        f"model.head: unknown key (in {tmp_path}/model/mine.yaml); did you mean model.heads?"
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        ("model: [", "not a YAML file that can be read"),
        ("- 1", "expected a mapping of keys to values"),
        ("hydra: {job: {name: x}}", "hydra: not supported in a file; set it on the command line"),
        ("# @package hydra.job_logging\nx: 1", "expected '@package _global_' or none"),
        ("defaults: [override /model: nothing_like_it, _self_]", "model/nothing_like_it"),
        ("defaults: [asr, /model/conformer_ctc@hydra.job_logging, _self_]", "hydra.job_logging"),
    ],
)
def test_a_file_that_cannot_be_composed_is_named(tmp_path, text, message):
    write(tmp_path, "recipe/mine.yaml", text)
    lines = refused("recipe=mine", folders=[tmp_path])
    assert any(message in line for line in lines) and len(set(lines)) == len(lines), lines


def test_configs_of_the_same_options_may_be_loaded_once(monkeypatch):
    """Each is what it is alone: without values of another one, and its interpolations see its own."""
    commands = [
        ["optimizer.betas.0=0.5", "run_dir=one", "dataset.path='${hydra:run.dir}/data'"],
        ["optimizer.lr=0.25", "run_dir=two", "dataset.path='${hydra:run.dir}/data'"],
        ["run_dir=three", "dataset.path=x"],
        ["optimizer=sgd", "run_dir=four", "dataset.path=x"],
        ["seed=7", "hydra.job.name='job${seed}'", "run_dir='${hydra:job.name}'", "dataset.path=x"],
        ["seed=8", "hydra.job.name='job${seed}'", "run_dir='${hydra:job.name}'", "dataset.path=x"],
    ]
    words = [["recipe=asr", "dataset=audio_folder", *command] for command in commands]
    alone = [schema.check_both(command) for command in words]
    count, load = [], compose.ConfigLoaderImpl.load_configuration
    monkeypatch.setattr(
        compose.ConfigLoaderImpl, "load_configuration", lambda *a, **k: count.append(1) or load(*a, **k)
    )
    loaded = {}
    assert [schema.check_both(command, loaded=loaded) for command in words] == alone
    assert [run.dataset.path for run, _ in alone[:2]] == ["one/data", "two/data"] and alone[-1][0].run_dir == "job8"
    assert len(count) == 4, "the second and the third are loaded with the first; settings of Hydra are never kept"


@pytest.mark.parametrize("before", ["", "allow=[json]", "resume=auto run_dir=here"])
def test_what_was_loaded_for_other_files_is_not_used(before, tmp_path):
    loaded = {}
    plain = [PLAIN, "run_dir=there"]
    schema.check_both([*plain, *before.split()], [OWN], loaded)
    write(tmp_path, "optimizer/adamw.yaml", "_target_: toolkit.optimizers.sgd.spec.SGD")
    write(tmp_path, "recipe/plain2.yaml", "defaults: [plain, _self_]")
    assert schema.check_both(plain, [OWN, tmp_path], loaded)[0] == schema.check(plain, [OWN, tmp_path])
    assert len(loaded) == 2


def test_a_folder_of_groups_that_is_not_there(tmp_path):
    assert refused(PLAIN, folders=[tmp_path / "x"]) == [f"--config-dir {tmp_path}/x: no such folder"]


def test_checking_a_config_imports_no_framework():
    code = f"""
import sys
from toolkit.config import schema
for name in {RECIPES!r}:
    schema.check(["recipe=" + name])
heavy = {sorted({"datasets", "pyarrow", "soundfile", "av", "scipy", "pandas"}.union(*process.FOREIGN.values()))!r}
found = [name for name in heavy if name in sys.modules]
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
