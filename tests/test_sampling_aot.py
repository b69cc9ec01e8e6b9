"""Every kernel compiles for the GPUs of three generations, on a machine that has none."""

import os

import pytest

pytest.importorskip("triton", reason="Triton exists for Linux only")

I64, F32, F64, BOOL, I32, INT, FLOAT = "*i64", "*fp32", "*fp64", "*i1", "*i32", "i32", "fp32"
ALL = {"TOP_P": True, "MIN_P": True, "KEEP": 32, "BLOCK": 64}
NONE = {"TOP_P": False, "MIN_P": False, "KEEP": 64, "BLOCK": 64}
FLAGS = "GUIDED", "FORBIDDEN", "ENDING", "LOOP"
# Of each kernel: its file, the types of what it is given (scores in bfloat16), and what is settled when it is compiled.
KERNELS = {
    "sample_codes": (
        "codes",
        ["*bf16", F64, I64, INT, INT, BOOL, INT, INT, INT, BOOL, F32, I64, I64, I64, I64, I32, INT, INT, FLOAT, *[INT] * 4],
        {**dict.fromkeys(FLAGS, True), "INJECTED": False, "PARTS": 1, **ALL},
    ),
    "embed_codes": (
        "codes",
        ["*bf16", "*bf16", I64, INT, INT, I64, I64, I64, I64, INT, INT, INT, INT, INT, INT],
        {"K": 8, "GROUPS": 2, "SUM": True, "BLOCK": 256},
    ),
    "draw_cells": (
        "masked",
        ["*bf16", I64, INT, BOOL, I64, I64, *[F32] * 5, I64, F32, F32, I32, INT, INT, INT, INT, INT, FLOAT, FLOAT, FLOAT],
        {"GUIDED": True, "TEMPERED": False, "INJECTED": False, "NOISY": True, "TOP_K": True, **ALL},
    ),
    "keep_cells": ("masked", [I64, INT, BOOL, I64, F32, I64, INT, INT], {"BLOCK": 64}),
    "spec_verify": ("speculative", [F32, F32, I64, F32, I64, I64, INT], {"DRAFTS": 4, "ROUNDS": 40, "BLOCK": 64}),
    "flow_step": ("flow", ["*bf16", "*bf16", "*bf16", FLOAT, FLOAT, INT], {"GUIDED": True, "BLOCK": 1024}),
}
# The same with as little as possible in them.
PLAIN = {"INJECTED": True, "PARTS": 0, "TEMPERED": True, "NOISY": False, "TOP_K": False, "SUM": False, "GROUPS": 1, **NONE}
PLAIN |= dict.fromkeys(FLAGS, False)


def test_every_kernel_is_compiled_here():
    import re
    from pathlib import Path

    folder = Path(__file__).parent.parent / "tts/sampling/kernels"
    found = {}
    for path in folder.glob("*.py"):
        if path.stem != "rows":
            found |= dict.fromkeys(
                re.findall(r"^@triton\.jit\ndef (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE), path.stem
            )
    assert found == {name: file for name, (file, _, _) in KERNELS.items()}


@pytest.mark.parametrize(
    ("name", "arch", "plain"),
    [(name, arch, False) for name in KERNELS for arch in (80, 90, 100)]
    + [(name, 90, True) for name in ("sample_codes", "embed_codes", "draw_cells", "flow_step")],
)
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")
def test_a_kernel_compiles_ahead_of_time(name, arch, plain):
    from importlib import import_module

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    file, types, settled = KERNELS[name]
    settled = {key: PLAIN.get(key, value) if plain else value for key, value in settled.items()}
    kernel = getattr(import_module(f"tts.sampling.kernels.{file}"), name)
    signature = dict(zip(kernel.arg_names, [*types, *("constexpr" for _ in settled)], strict=True))
    assert set(kernel.arg_names[len(types) :]) == set(settled)
    source = ASTSource(kernel, signature, constexprs=settled)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 1})
    assert len(compiled.asm["cubin"]) > 1000
