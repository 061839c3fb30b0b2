"""The twins agree with every instruction set that the processor has: each rounds sums in another order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.backend import Backends
from tests.twins import cases, components
from tests.twins.compare import first_difference, float32_limit, float64_limit

MODELS = components.specs("models")
# flag of the processor -> settings; oneDNN's is an upper bound, ATen's is taken without a check
INSTRUCTIONS = {
    "sse4_1": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx512bw": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "avx512_bf16": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
}


def available() -> list[str]:
    """Those of ``INSTRUCTIONS`` that this processor has; none where Linux does not tell."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().partition("\nflags")[2].partition("\n")[0].split()) if info.exists() else set()
    return [name for name in INSTRUCTIONS if name in flags]


@pytest.fixture(scope="module", params=[(name, onednn) for name in available() for onednn in "01"], ids="-".join)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of both precisions under one setting."""
    name, onednn = request.param
    folder = tmp_path_factory.mktemp(f"{name}-{onednn}")
    (folder / "backends").mkdir()
    every = [case for model in MODELS for case in cases.cases_of(model) if case.kind in ("reference", "narrow")]
    with pytest.MonkeyPatch.context() as patch:
        for key, value in (INSTRUCTIONS[name] | {"TF_ENABLE_ONEDNN_OPTS": onednn}).items():
            patch.setenv(key, value)
        with Backends(folder / "backends") as backends:
            cases.run(backends, every, folder)
    return folder


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model", MODELS)
def test_twins_agree_with_other_instructions(model: str, folder: Path) -> None:
    torch, torch_wide = (cases.result(folder, "torch", f"{model}.{kind}") for kind in ("narrow", "reference"))
    tf, tf_wide = (cases.result(folder, "tf", f"{model}.{kind}") for kind in ("narrow", "reference"))
    assert first_difference(torch_wide, tf_wide, float64_limit) is None
    assert first_difference(torch, tf, float32_limit((torch, torch_wide), (tf, tf_wide))) is None


@pytest.mark.long
def test_the_processor_tells_three_instruction_sets() -> None:
    """Else the test above would run with fewer and nobody would notice."""
    assert len(available()) >= 3
