"""Building what a config names: specs and their twins, and nothing else."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from tests.support.configs import PLAIN, check, refused, write
from toolkit.config import build, process, schema
from toolkit.errors import ConfigError

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


@pytest.mark.parametrize(
    "group, target, lacks",
    [
        ("features", "toolkit.features.log_mel.spec.SpecAugment", "column, learn, load"),
        ("launcher", "toolkit.sweeps.spec.Grid", "jobs"),
        ("optimizer", "my_package.models.Baseless", "lr, moments"),
        ("schedule", "my_package.models.Baseless", "factor"),
        ("tokenizer", "my_package.models.Baseless", "column, joint, learn, load"),
    ],
)
def test_a_spec_that_lacks_members_of_its_contract_is_refused(package, group, target, lacks):
    reader = schema._Reader(SimpleNamespace(allow=("my_package",), origins={}), False)
    reader.component(group, {"_target_": target})
    contract = f"toolkit.config.contracts.{group.capitalize()}"
    assert reader.found == [f"{group}._target_: {target} lacks {lacks}, expected the members of {contract}"]


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


def test_every_component_checks_its_run(package):
    run = check("allow=[my_package]", "model=mine", "model.name=x", folders=[package])
    assert list(run.model.check()) == list(run.schedule.check_run(run)) == []
    strict = ["allow=[my_package]", "model=mine", "model.name=x", "model.size=4", "features.sample_rate=8000"]
    assert refused(PLAIN, *strict, folders=[package]) == [
        "features.sample_rate: found 8000, expected dataset.sample_rate, 16000",
        "model.size: 4 is not supported with seed=0; set model.size=3",
    ]


# --- building ---


def test_the_other_backend_in_one_process_is_refused_by_that_name():
    code = """
from toolkit.config import process
process.prepare("torch")
print(process.missing("tf"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("backend=tf is not supported in a process that uses torch; start another")


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
