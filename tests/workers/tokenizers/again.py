"""Learn every tokenizer once more, without a framework: ``python -m tests.workers.tokenizers.again CASES.json``."""

import importlib
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    texts, cases = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    for name, (module, kind, fields, folder) in cases.items():
        Path(folder).mkdir()
        getattr(importlib.import_module(module), kind)(**fields).learn(texts[name], Path(folder))
    assert not {"torch", "tensorflow"} & set(sys.modules)
