"""Made command lines, most of them wrong: mutations of valid ones, the same for the same seed."""

import random

RUNS = [
    ["recipe=asr"],
    ["recipe=asr", "backend=tf", "optimizer.lr=1e-3", "optimizer.betas=[0.9,0.98]", "trainer.clip_norm=null"],
    ["recipe=asr", "dataset=audio_folder", "dataset.path='a folder'", "dataset.splits={train: 0.8, test: 0.2}"],
    ["recipe=translation", "model=lstm_attention", "trainer.max_steps=10", "tokenizer.joint=false", "check=true"],
    ["recipe=image_classification", "seed=3", "run_dir=runs/x", "allow=[a]", "accept=[dataset,seed]"],
    ["recipe=asr", "features.spec_augment.time_masks=1", "--config-dir", "FOLDER"],
    ["recipe=asr", "--cfg", "job", "--resolve", "-p", "model"],
    ["resume=FOLDER", "trainer.max_epochs=2"],
    ["evaluate=FOLDER", "task.decoder=beam"],
]
SWEEPS = [
    ["recipe=asr", "seed=0,1", "optimizer.lr=1e-3,1e-2", "-m"],
    ["recipe=asr", "sweep=optuna", "optimizer.lr=tag(log,interval(1e-4,1e-2))", "seeds=2", "launcher.jobs=2"],
    ["recipe=asr", "model.dropout=range(0,1,0.5)", "objectives=[validation.loss]", "ranges=[seed=0\\,1]"],
]
COMMANDS = {
    "run": RUNS + SWEEPS,
    "sweep": [*SWEEPS, ["FOLDER"]],
    "certify": [["recipe=asr", "steps=3", "decode=2", "gates=semantics", "model=conformer_ctc_tiny"]],
    "predict": [["FOLDER", "task.decoder=beam", "--json", "--from", "FOLDER", "--", "a.wav"], ["FOLDER", "a.wav"]],
}
VALUES = [
    *("", "null", "true", "1", "-1", "0", "1e999", "nan", "-inf", "9" * 400, "0x10", "1_000", "01", "1.5.2"),
    *("[]", "[1", "1]", "{", "}", "{a:b}", "{a:{b:[1]}}", "[[[[1]]]]", "[a,,b]", "(", ")", "'", '"', "'a", 'a"', "\\"),
    *("${", "${}", "${x}", "${seed}", "${oc.env:HOME}", "${oc.env:NOT_THERE}", "${now:%Y}", "${now:}", "${a", "$"),
    *("${hydra:runtime.cwd}", "${hydra:x}", "${.x}", "${..seed}", "${oc.eval:1}", "${model}", "${trainer.max_epochs}"),
    *("???", "_nothing_", "..", "/", "../x", "~", "~nobody/x", "a b", "a,b", "a=b", "#", "@", "%", "*", "glob(*)"),
    *("range(1)", "range(0,9999)", "range(0,1,0)", "choice()", "sort(1)", "interval(1,2)", "tag(a)", "shuffle(1,2)"),
    *("int(x)", "float(1", "str([1])", "json_str(a)", "extend_list(1)", "\u00fc", "\u65e5\u672c", "\U0001f600"),
    *(
        "e\u0301",
        "\udcff",
        "\u202e",
        "\n",
        "\t",
        "a\nb",
        "\x1b[0m",
        "\ufeff",
        "x" * 3000,
        "toolkit.models",
        "os.system",
    ),
]
KEYS = [
    *("", "x", "seed", "model", "model._target_", "optimizer.lr", "optimizer.betas.0", "optimizer.betas[5]", "a.b.c.d"),
    *("hydra", "hydra.run.dir", "hydra/launcher", "hydra.searchpath", "defaults", "recipe", "recipe@x", "model@a:b"),
    *(
        "dataset",
        "dataset.path",
        "dataset.path.x",
        "run_dir",
        "allow",
        "allow.0",
        "resume",
        "evaluate",
        "check",
        "seed.x",
    ),
    *("ranges", "objectives", "sweep", "sweep.x", "launcher", "backend", "tokenizer", "trainer.precision", "-1", "1"),
    *(".", "..", "a.", ".a", "a[", "a]", "\u00fc", "x" * 500, ".".join("abcdefgh" * 20), "_target_", "$", "model/x"),
]
FLAGS = [
    *(
        "--cfg",
        "--cfg=job",
        "--cfg=",
        "-c",
        "--resolve",
        "--package",
        "-p=",
        "--package=a[",
        "--info",
        "--info=x",
        "-i",
    ),
    *(
        "--hydra-help",
        "--version",
        "--config-dir",
        "--config-dir=/no",
        "--config-name=x",
        "-m",
        "--run",
        "--bogus",
        "-",
    ),
    *("--json", "--from", "--from=", "--", "---", "-\u00fc", "--experimental-rerun=x", "--multirun=1", "--no-\u65e5"),
]


def command_line(seed, folder):
    """Return a command line: a verb and its words.

    Args:
        seed: of its mutations.
        folder: in the place of a run folder.
    """
    draw = random.Random(seed)
    verb = draw.choice([*["run"] * 6, "sweep", "certify", "predict", "sweep", draw.choice(VALUES)])
    words = [word.replace("FOLDER", str(folder)) for word in draw.choice(COMMANDS.get(verb, RUNS))]
    for _ in range(draw.choice([0, 1, 1, 2, 3])):
        words = draw.choice(MUTATIONS)(words, draw)
    return [verb, *(word.replace("\0", "") for word in words)]


def _value(words, draw):
    """Set a key of the line to another value."""
    position = draw.randrange(len(words)) if words else 0
    key = words[position].partition("=")[0] if words else ""
    return [*words[:position], f"{key}={draw.choice(VALUES)}", *words[position + 1 :]]


def _override(words, draw):
    return _inserted(words, f"{draw.choice(['', '', '+', '++', '~'])}{draw.choice(KEYS)}={draw.choice(VALUES)}", draw)


def _deletion(words, draw):
    return _inserted(words, f"~{draw.choice([*KEYS, *words])}", draw)


def _flag(words, draw):
    return _inserted(words, draw.choice(FLAGS), draw)


def _word(words, draw):
    return _inserted(words, draw.choice(VALUES), draw)


def _characters(words, draw):
    """Replace, insert or drop characters of a word."""
    position = draw.randrange(len(words)) if words else 0
    word = list(words[position]) if words else []
    for _ in range(draw.randint(1, 3)):
        at = draw.randint(0, len(word))
        word[at : at + draw.randint(0, 2)] = draw.choice(["", draw.choice("[]{}()'\"=,.$~+@#:\\ -_\u00e9\udc80a1")])
    return [*words[:position], "".join(word), *words[position + 1 :]]


def _twice(words, draw):
    return _inserted(words, draw.choice(words), draw) if words else words


def _without(words, draw):
    position = draw.randint(0, len(words))
    return [*words[:position], *words[position + 1 :]]


def _cut(words, draw):
    """Cut a word after its key, or somewhere."""
    position = draw.randrange(len(words)) if words else 0
    word = words[position] if words else ""
    short = draw.choice([word.partition("=")[0], word[: draw.randint(0, len(word))]])
    return [*words[:position], short, *words[position + 1 :]]


def _inserted(words, word, draw):
    position = draw.randint(0, len(words))
    return [*words[:position], word, *words[position:]]


MUTATIONS = [_value, _value, _override, _override, _deletion, _flag, _word, _characters, _twice, _without, _cut]
