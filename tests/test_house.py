"""The house keeps its own rules: imports fall downwards, importing does nothing, files are short and say what they are for."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A module's room is the first folder or file below `tts`; codecs/, vocoders/ and configs/ lie beside it.
FLOOR = {"errors", "files", "clock", "frames", "interfaces", "config", "recording", "audio"}
MODELS = {"sampling", "decoding", "nn"}

# Which rooms a room may import besides itself and the floor. Read from the top: every arrow falls.
MAY_IMPORT: dict[str, set[str]] = {
    "app": {"serve"},
    "serve": {"api", "pipeline", "request", "prompts", "voices", "result", "checkpoint", "weights", "asr", "sampling"}
    | {"narration", "text", "together", "__init__"},
    "cli": {
        "__init__",
        "api",
        "pipeline",
        "request",
        "checkpoint",
        "weights",
        "serve",
        "train",
        "eval",
    },  # the last two: see LAZILY
    "narration": {"request", "result", "script", "streaming", "tries", "prompts", "asr", "text", "sampling"},
    "eval": {"api", "pipeline", "editing", "reconstruction", "result", "text", "asr", "weights"},
    "train": {"parts", "registry", "checkpoint", "weights", "text", "asr", "duration", "backends", "codecs", "vocoders"}
    | MODELS,
    "hub": {"registry", "checkpoint"},
    "__init__": {"api", "pipeline", "result"},
    "api": {"pipeline", "result", "streaming", "weights"},
    "pipeline": {"parts", "prompts", "script", "reconstruction", "result", "registry", "checkpoint", "text", "asr", "sampling"}
    | {"weights", "request", "streaming", "tries", "editing", "voices", "together"},
    "together": {"parts"},
    "editing": {"tries", "parts", "prompts", "request", "result", "script", "asr", "text"},
    "tries": {"parts", "request", "result", "script", "asr", "sampling"},
    "streaming": {"parts", "result", "vocoders"},
    "mixing": {"parts", "decoding", "nn", "text"},
    "request": {"parts", "registry", "checkpoint", "script", "text"},
    "reconstruction": set(),
    "voices": {"prompts", "text"},
    "prompts": {"text", "asr"},
    "script": {"text", "duration"},
    "parts": {"checkpoint", "registry", "text"},
    "result": set(),
    "checkpoint": {"registry"},
    "registry": set(),  # names classes of every room as text, imports none
    "backends": MODELS,
    "codecs": {"nn"},
    "vocoders": {"nn"},
    "asr": {"nn", "text"},
    "duration": {"nn", "decoding"},
    "text": set(),
    "decoding": {"sampling", "nn"},
    "sampling": {"nn"},
    "nn": set(),
    "weights": set(),
    "configs": set(),
    **{room: set() for room in FLOOR},
}
# Only inside functions: what the command line starts, and nothing else of inference.
LAZILY = {("cli", "train"), ("cli", "eval")}
# What any module may import while it is itself imported, besides the standard library; and what rooms for people may.
LIGHT = {"torch", "numpy", "safetensors", "tts"}
ALSO_LIGHT = {"cli": {"typer", "rich"}, "serve": {"typer", "rich"}, "eval": {"rich"}}
# What imports Triton at once, as a kernel must, and is therefore imported only inside functions.
KERNELS = "tts.sampling.kernels."


def modules() -> dict[str, Path]:
    """Every module of the distribution by its name as imported."""
    found = {"app": ROOT / "app.py"} if (ROOT / "app.py").exists() else {}
    for folder in ("tts", "codecs", "vocoders", "configs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "tts" else ("tts", *parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
TESTS = {path.stem: path for path in sorted((ROOT / "tests").rglob("*.py"))}
EVERY_FILE = {**MODULES, **TESTS}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] != "tts" else (parts[1] if len(parts) > 1 else "__init__")


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(EVERY_FILE[name].read_text(encoding="utf-8"))


def imports(name: str) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported as soon as `name` is) for each import statement of a module."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_once) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                source = "." * child.level + (child.module or "")
                for alias in child.names:  # `from tts import registry` imports the module tts.registry
                    yield (f"{source}.{alias.name}" if f"{source}.{alias.name}" in MODULES else source), at_once
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            else:
                inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from walk(child, at_once and not inside)

    yield from walk(tree(name), True)


def own(name: str) -> list[tuple[str, bool]]:
    return [(module, at_once) for module, at_once in imports(name) if module.split(".")[0] == "tts"]


@pytest.mark.parametrize("name", MODULES)
def test_imports_fall_downwards(name):
    here = room(name)
    assert here in MAY_IMPORT, f"{name} is in a room that the picture does not show"
    for module, at_once in own(name):
        there = room(module)
        if there != here and there not in FLOOR:
            assert there in MAY_IMPORT[here], f"{name} may not import {module}"
            assert not (at_once and (here, there) in LAZILY), f"{name} may import {module} only inside a function"


def test_the_picture_itself_has_no_way_up():
    def reach(start: str, path: tuple[str, ...]) -> None:
        assert start not in path, " -> ".join((*path, start))
        for below in MAY_IMPORT[start]:
            reach(below, (*path, start))

    for start in MAY_IMPORT:
        reach(start, ())


def test_backends_codecs_and_vocoders_never_import_one_another():
    siblings = ("backends", "codecs", "vocoders")
    for name in MODULES:
        if room(name) not in siblings:
            continue
        for module, _ in own(name):
            assert room(module) not in set(siblings) - {room(name)}, (name, module)
            if room(name) == room(module) == "backends":
                assert name.split(".")[2:3] == module.split(".")[2:3], f"{name} imports another backend, {module}"


def test_inference_imports_nothing_of_train_or_eval():
    for name in MODULES:
        if room(name) not in {"train", "eval", "cli"}:
            assert not [module for module, _ in own(name) if room(module) in {"train", "eval"}], name


def test_no_module_imports_itself_through_others():
    below = {name: {module for module, at_once in own(name) if at_once and module != "tts"} for name in MODULES}

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        for module in below.get(name, ()):
            visit(module, (*path, name))

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_light_packages_at_once(name):
    legal = LIGHT | ALSO_LIGHT.get(room(name), set()) | set(sys.stdlib_module_names)
    legal |= {"triton"} if name.startswith(KERNELS) else set()
    for module, at_once in imports(name):
        assert not (at_once and module.startswith(KERNELS) and not name.startswith(KERNELS)), f"{name} imports {module} at once"
        assert not module.startswith("."), f"{name} imports {module}; imports are absolute"
        assert not at_once or module.split(".")[0] in legal, f"{name} imports {module} before it is needed"


def test_importing_every_module_prints_nothing_and_touches_no_device():
    light = LIGHT.union(*ALSO_LIGHT.values())
    program = f"""
import importlib, sys
import torch, numpy, safetensors.torch, typer, rich
before = set(sys.modules)
for name in {[name for name in MODULES if name != "app" and not name.startswith(KERNELS)]}:
    importlib.import_module(name)
assert not torch.cuda.is_initialized()
legal = {light | {"torch"}} | set(sys.stdlib_module_names) | {{m.partition(".")[0] for m in before}}
new = {{m.partition(".")[0] for m in set(sys.modules) - before}}
heavy = {{"librosa", "scipy", "soundfile", "torchaudio", "pyloudnorm", "phonemizer", "omegaconf", "yaml", "num2words", "lhotse",
         "lightning_fabric", "matplotlib", "transformers", "gradio", "fastapi", "jiwer", "pocketsphinx", "resemblyzer",
         "triton"}}
sys.exit("imported: " + ", ".join(sorted(new & heavy)) if new & heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_file_is_short_and_says_what_it_is_for(name):
    lines = EVERY_FILE[name].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400, f"{len(lines)} lines; look for the seam"
    if lines:
        docstring = ast.get_docstring(tree(name))
        assert lines[0].startswith(('"""', 'r"""')), "the first line is the docstring"
        assert docstring
        assert docstring.splitlines()[0], "the docstring begins on the first line"


FORBIDDEN = {
    "an unfinished place": r"\b(TODO|FIXME|HACK|XXX)\b",
    "a stub": r"raise NotImplementedError",
    "a catch of everything": r"except(\s+(Base)?Exception)?\s*:",
    "a path outside the repository": r"/work/|\.\./shared|/root/",
    "a pickle": r"\b(import|from)\s+(pickle|dill|joblib)\b|weights_only\s*=\s*False|allow_pickle\s*=\s*True",
    "an index of packages": r"(pypi\.org|download\.pytorch\.org|pythonhosted)",
}


def texts() -> list[Path]:
    folders = ("tts", "codecs", "vocoders", "configs", "tests", "docs", "benchmarks", "notebooks", ".ci")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    kinds = {".py", ".md", ".yaml", ".toml", ".ipynb", ".txt", ".tsv", ".cfg", ""}
    return [p for p in [*ROOT.iterdir(), *inside] if p.is_file() and p.suffix in kinds and p != Path(__file__)]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what):
    for path in texts():
        found = re.search(FORBIDDEN[what], path.read_text(encoding="utf-8", errors="ignore"))
        assert found is None, f"{path.relative_to(ROOT)} holds {what}: {found[0] if found else ''}"


@pytest.mark.parametrize("name", MODULES)
def test_only_the_command_line_prints_or_runs_itself(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "print" or name == "tts.cli", f"line {node.lineno}: log, do not print"
            assert called not in {"eval", "exec", "breakpoint"}, f"line {node.lineno}: {called}"
            if called == "torch.load":
                assert any(k.arg == "weights_only" for k in node.keywords), f"line {node.lineno}: weights_only=True"
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            assert name in {"tts.cli", "app"}, "only a door is run as a program"
