"""Composing and checking a config: what it means, and every problem at once."""

import dataclasses
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from toolkit.config import build, compose, process, schema, source
from toolkit.errors import ConfigError

ASR = "recipe=asr"
PLAIN = "recipe=plain"  # of OWN
OWN = Path(__file__).with_name("conf")
RECIPES = source.options("recipe")
CHOICES = [(group, name) for group in source.GROUPS for name in source.options(group)]


@pytest.fixture(autouse=True)
def no_folders_afterwards(monkeypatch):
    """What was asked for last stays in the module: the tests of other files are not to find this file's recipes."""
    monkeypatch.setattr(source, "request", source.request)


def check(*overrides, folders=()):
    return schema.check([PLAIN, *overrides], [*folders, OWN])


def refused(*overrides, folders=()):
    """The lines about a config that cannot be run."""
    with pytest.raises(ConfigError) as caught:
        schema.check(list(overrides), [*folders, OWN])
    assert caught.value.code == 2
    return caught.value.problems


def write(folder, name, text):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))
    return folder


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


def test_every_component_checks_its_run(package):
    run = check("allow=[my_package]", "model=mine", "model.name=x", folders=[package])
    assert list(run.model.check()) == list(run.schedule.check_run(run)) == []
    strict = ["allow=[my_package]", "model=mine", "model.name=x", "model.size=4", "features.sample_rate=8000"]
    assert refused(PLAIN, *strict, folders=[package]) == [
        "features.sample_rate: found 8000, expected dataset.sample_rate, 16000",
        "model.size: 4 is not supported with seed=0; set model.size=3",
    ]


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
        ("run_dir=1.5", "run_dir: found 1.5, expected text"),
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
    assert any(message in line for line in lines), lines


def test_a_folder_of_groups_that_is_not_there(tmp_path):
    assert refused(PLAIN, folders=[tmp_path / "x"]) == [f"--config-dir {tmp_path}/x: no such folder"]


# --- what a config may name ---

HOSTILE = [
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "pickle.loads",
    "toolkit.models.conformer_ctc.spec.os.system",
    "toolkit.config.schema.importlib.import_module",
    "toolkit.config.build.importlib.import_module",
    "toolkit.config.build.os.system",
    "toolkit.config.build.find",
    "toolkit.config.spec.spec",
    "toolkit.models.conformer_ctc.spec.option",
    "toolkit.models.conformer_ctc.spec.ConformerCTC.check",
    "toolkit.models.conformer_ctc.spec.Parameter",  # imported there, and no spec
    "toolkit.models.conformer_ctc.spec.__builtins__",
    "toolkit.models.conformer_ctc.torch.ConformerCTC",
    "toolkit.models.conformer_ctc.tf.ConformerCTC",
    "toolkit.models.conformer_ctc.ConformerCTC",
    "toolkit.optimizers.adamw.spec.AdamW",  # a spec, of another kind
    "toolkit.training.spec.Trainer",
    "toolkit_evil.spec.Thing",
    "toolkit",
    "ConformerCTC",
    "",
    ".",
    "..os.system",
    "toolkit..models",
    "toolkit.models.conformer_ctc.spec.",
    "toolkit/models.x",
    "hydra.utils.get_method",
    "hydra.utils.call",
]


@pytest.mark.parametrize(
    "way, target",
    [("command line", target) for target in HOSTILE]
    + [(way, target) for way in ("option", "recipe", "run folder") for target in HOSTILE[:3]],
)
def test_a_config_names_nothing_but_specs(tmp_path, way, target):
    node = {"_target_": target}
    if way == "command line":
        lines = refused(PLAIN, f"++model._target_='{target}'")
    elif way == "option":
        write(tmp_path, "model/mine.yaml", yaml.safe_dump(node))
        lines = refused(PLAIN, "model=mine", folders=[tmp_path])
    elif way == "recipe":
        write(tmp_path, "recipe/mine.yaml", yaml.safe_dump({"defaults": ["asr", "_self_"], "model": node}))
        lines = refused("recipe=mine", folders=[tmp_path])
    else:
        plain = schema.plain(check()) | {"model": node}
        write(tmp_path, "config.yaml", yaml.safe_dump(plain))
        lines = refused(f"resume={tmp_path}")
    assert any(line.startswith("model._target_: ") for line in lines), lines


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_a_twin_is_not_imported_to_find_that_it_is_no_spec(backend, monkeypatch):
    monkeypatch.setattr(build.importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(
        ConfigError, match=r"is a twin; name its spec, toolkit\.models\.conformer_ctc\.spec\.ConformerCTC"
    ):
        build.find(f"toolkit.models.conformer_ctc.{backend}.ConformerCTC", (), "toolkit.models")


@pytest.mark.parametrize(
    "override",
    [
        "+model._partial_=true",
        "+model._args_=[1]",
        "+model._convert_=all",
        "+model._recursive_=false",
        "+features.spec_augment._target_=os.system",
        "+features.spec_augment._args_=[ls]",
        "++model.dim._target_=os.system",
        "model.dim={_target_: os.system, _args_: [ls]}",
        "+model.extra={_target_: os.system}",
        "+anything={_target_: os.system}",
        "+hydra.callbacks.x._target_=os.system",
        "hydra.launcher._target_=os.system",
        "hydra.sweeper._target_=os.system",
        "+hydra.job_logging.handlers.x={class: subprocess.Popen}",
        "+hydra.job_logging.handlers.x={class: logging.StreamHandler, stream: 'ext://os.environ'}",
        "hydra.searchpath=[file:///tmp]",
    ],
)
def test_what_hydra_would_instantiate_is_refused(override):
    lines = refused(PLAIN, override)
    key = override.lstrip("+").partition("=")[0].split(".")[0]
    assert any(line.startswith(key) for line in lines), lines


def test_logging_settings_cannot_be_smuggled_in_by_a_package(tmp_path):
    write(tmp_path, "model/evil.yaml", "# evil\nformatters: {x: {(): os.system}}\n")
    write(tmp_path, "recipe/mine.yaml", "defaults: [asr, /model/evil@hydra.job_logging, _self_]\n")
    line = "hydra.job_logging.formatters.x.(): os.system is not supported, because it can run code; remove it"
    assert line in refused("recipe=mine", folders=[tmp_path])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user's own, with a spec and with things that only look like one."""
    write(tmp_path, "my_package/__init__.py", "")
    write(
        tmp_path,
        "my_package/models.py",
        """\
        import os
        from typing import ClassVar
        from toolkit.models.conformer_ctc.spec import ConformerCTC
        from toolkit.config.spec import option, spec
        from toolkit.models.spec import Model

        @spec
        class Baseless:
            \"\"\"A model without the base class of models.\"\"\"

        @spec
        class Mine(Model):
            \"\"\"A model.\"\"\"
            input: ClassVar[str] = "audio"
            output: ClassVar[str] = "frames"
            name: str = option(doc="what it is called")
            size: int = option(3, "how large", ge=1)

            def check_run(self, run):
                if self.size == 4:
                    yield "size", f"4 is not supported with seed={run.seed}; set model.size=3"

        class Child(Mine):
            pass

        class Forged:
            __toolkit_spec__ = Mine

        Alias = Mine

        def make():
            pass

        make.__toolkit_spec__ = make
        """,
    )
    write(tmp_path, "my_package/broken.py", "raise RuntimeError('broken on import')")
    write(tmp_path, "conf/model/mine.yaml", "# mine\n_target_: my_package.models.Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "conf"
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


def test_a_spec_of_ones_own_package_is_built_when_the_package_is_allowed(package):
    run = check("allow=[my_package]", "model=mine", "model.size=5", "model.name=x", folders=[package])
    assert (type(run.model).__module__, run.model.size, run.allow) == ("my_package.models", 5, ("my_package",))
    assert schema.resolve(schema.plain(run), ["my_package"]) == run
    lines = refused(PLAIN, "allow=[my_package]", "model=mine", "model.size=0", folders=[package])
    assert lines == [
        "model.name: not given (text: what it is called); set model.name=...",
        "model.size: found 0, expected at least 1",
    ]


def test_a_model_without_the_base_class_of_models_is_refused(package):
    assert refused(PLAIN, "allow=[my_package]", "++model._target_=my_package.models.Baseless") == [
        "model._target_: my_package.models.Baseless is not a subclass of toolkit.models.spec.Model"
    ]


def test_a_package_that_is_not_allowed_is_not_imported(package):
    lines = refused(PLAIN, "model=mine", folders=[package])
    assert lines == [
        "model._target_: my_package.models.Mine is not a spec of the toolkit; if it is in a package of your own, set "
        "allow=[my_package]"
    ]
    assert not any(name.startswith("my_package") for name in sys.modules)


def test_a_config_cannot_allow_a_package_by_itself(package):
    plain = schema.plain(check("allow=[my_package]", "model=mine", "model.name=x", folders=[package]))
    with pytest.raises(ConfigError):
        schema.resolve(plain)


@pytest.mark.parametrize("name", ["Child", "Forged", "Alias", "make", "ConformerCTC", "os", "os.system", "Missing"])
def test_an_allowed_package_gives_specs_alone(package, name):
    lines = refused(PLAIN, "allow=[my_package]", f"++model._target_=my_package.models.{name}")
    assert any(line.startswith("model._target_: ") for line in lines), lines


def test_a_module_that_cannot_be_imported_is_a_line_of_its_own(package):
    lines = refused(PLAIN, "allow=[my_package]", "++model._target_=my_package.broken.Mine")
    assert lines == [
        "model._target_: my_package.broken.Mine: cannot import my_package.broken (RuntimeError: broken on import)"
    ]


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


# --- building ---


def test_the_other_backend_in_one_process_is_refused_by_that_name():
    code = """
from toolkit.config import process
process.prepare("torch")
print(process.missing("tf"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("backend=tf: this process uses the other backend")


def test_a_twin_that_is_missing_is_named(tmp_path, monkeypatch):
    from toolkit.config.spec import spec

    @spec
    class Lonely:
        """A spec without twins."""

    monkeypatch.setattr(process, "missing", lambda backend: None)
    Lonely.__module__ = "toolkit.models.conformer_ctc.spec"
    monkeypatch.setitem(sys.modules, "toolkit.models.conformer_ctc.torch", type(sys)("empty"))
    monkeypatch.setattr(
        build.importlib.util, "find_spec", lambda name: name if name.startswith("toolkit.models") else None
    )
    with pytest.raises(
        ConfigError, match=r"needs the class Lonely in toolkit/models/conformer_ctc/torch\.py; the file has no"
    ):
        build.build(Lonely(), "torch")
    Lonely.__module__ = "elsewhere.spec"
    with pytest.raises(ConfigError, match=r"needs the class Lonely in elsewhere/torch\.py; the file does not exist"):
        build.build(Lonely(), "torch")
    with pytest.raises(TypeError):
        build.build(object(), "torch")
