"""Killed and resumed: whatever the recipe, a run ends in the weights of one that was left alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, speech
from test_train_loop import steps_logged

from tts.audio import MelRecipe, log_mel
from tts.checkpoint import load
from tts.errors import CheckpointError
from tts.text.tokens import PHONES
from tts.train.data import CorpusWriter, Item, save_alignment
from tts.train.run import train
from tts.train.state import export

STEPS = 70
MARGIN = 40  # steps after the last kill, since a busy machine is slow to kill
LOOP = [f"loop.steps={STEPS}", "loop.warmup=10", "loop.threads=1", "loop.validate_every=20", "loop.log_every=10"]
# of each recipe: its tiny config, and what else makes a resume inexact if it is forgotten
RECIPES = {
    "asr": ["asr.yaml", "recipe.model.dropout=0.1"],
    "codec": ["codec.yaml", "recipe.lowpass_share=0.5"],
    "vocoder": ["vocoder.yaml", "recipe.lowpass_share=0.5"],
    "waveform-codec": ["waveform-codec.yaml", "recipe.lowpass_share=0.5"],
    "backend": ["flow.yaml", "recipe.model.dropout=0.1", "recipe.draw.drop_all=0.3"],
    "ar": ["ar.yaml", "recipe.model.dropout=0.1", "recipe.draw.drop_all=0.3", "recipe.codec={codec}"],
    "masked": ["masked.yaml", "recipe.draw.drop_all=0.3", "recipe.codec={codec}"],
    "duration": ["duration.yaml"],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight aligned clips of two speakers, half a second to a second long."""
    folder, recipe = tmp_path_factory.mktemp("corpus") / "toy", MelRecipe()
    ids = [PHONES.id(symbol) for symbol in (" ", "ð", "ə", " ", "k", "ˈæ", "t", ".")]
    rows = []
    with CorpusWriter(
        folder, {"symbols": list(PHONES.symbols), "table": PHONES.identity, "mel": recipe.spec.flavour}
    ) as writer:
        for i in range(8):
            samples = torch.from_numpy(speech(0.5 + 0.07 * i, recipe.sample_rate, hz=100.0 + 20 * i))
            mel = log_mel(samples[None], recipe)[0]  # [bands, T]
            T = mel.shape[1]
            rows.append([T - 21, *[3] * 7])
            item = Item(f"{i}", f"speaker {i % 2}", "toy", "F", "en-us", T / 50, "the cat", T, len(samples), tuple(ids), 1.5)
            writer.add(item, mel, samples)
    save_alignment(folder, [ids] * 8, rows, [-1.0] * 8)
    return folder


@pytest.fixture(scope="module")
def codec(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a codec, whose codes others learn."""
    words = [f"train={corpus}", f"valid={corpus}", f"out={tmp_path_factory.mktemp('codec')}"]
    return train("codec", ROOT / "configs/tiny/codec.yaml", words)


@pytest.mark.parametrize("what", RECIPES)
def test_a_recipe_killed_at_three_random_moments_ends_in_the_weights_of_an_undisturbed_run(
    what: str, corpus: Path, codec: Path, tmp_path: Path
) -> None:
    config, *more = (word.format(codec=codec) for word in RECIPES[what])
    config = str(ROOT / "configs/tiny" / config)
    words = [f"train={corpus}", f"valid={corpus}", *LOOP, *more]
    left_alone, folder = tmp_path / "undisturbed", tmp_path / "killed"
    train(what, config, [*words, f"out={left_alone}"])

    script = "import sys; from tts.train.run import train; train(sys.argv[1], sys.argv[2], sys.argv[3:])"
    command = [sys.executable, "-c", script, what, config, *words, f"out={folder}"]
    at = kill_thrice([*command, "loop.checkpoint_seconds=0.0"], folder, STEPS - MARGIN)
    train(what, config, [*words, f"out={folder}"])

    undisturbed, killed = export(left_alone), export(folder)
    assert undisturbed.keys() == killed.keys()
    for module, state in undisturbed.items():
        for name, weight in state.items():
            assert torch.equal(weight, killed[module][name]), (module, name, at)
    assert steps_logged(folder) == steps_logged(left_alone)


ALONE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(name, name=name)
BLOCKED = {"omegaconf", "yaml", "soundfile", "lightning_fabric", "typer", "rich", "librosa", "pyloudnorm", "torchaudio",
           "phonemizer", "espeakng_loader", "num2words", "tensorboard", "scipy"}
sys.meta_path.insert(0, Blocker())
from tts.train.run import train
for what in sys.argv[2:]:
    train(what, f"{sys.argv[1]}/{what}/config.json")
"""


def test_every_recipe_trains_from_a_resolved_config_by_torch_numpy_and_safetensors_alone(
    corpus: Path, codec: Path, tmp_path: Path
) -> None:
    for what, recipe in RECIPES.items():
        config, *more = (word.format(codec=codec) for word in recipe)
        words = [f"train={corpus}", f"valid={corpus}", *more, "loop.steps=2", "loop.threads=1", f"out={tmp_path / what}"]
        train(what, ROOT / "configs/tiny" / config, words)
    first = {what: export(tmp_path / what) for what in RECIPES}
    for what in RECIPES:
        shutil.rmtree(next((tmp_path / what).glob("checkpoint-*")))  # so that there is something to do
    done = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path), *RECIPES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for what, modules in first.items():
        for module, state in export(tmp_path / what).items():
            assert all(torch.equal(weight, modules[module][name]) for name, weight in state.items()), (what, module)


def test_a_start_is_where_a_run_begins_and_not_where_it_goes_on(corpus: Path, tmp_path: Path) -> None:
    def run(name: str, *more: str) -> dict[str, torch.Tensor]:
        words = [f"train={corpus}", f"valid={corpus}", "loop.steps=1", "loop.lr=0.0", f"out={tmp_path / name}", *more]
        return export(train("asr", ROOT / "configs/tiny/asr.yaml", words))["recognizer"]

    def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.allclose(weight, other[name]) for name, weight in one.items())

    first = run("first", "recipe.seed=1")
    start = f"start={tmp_path / 'first'}"
    second = run("second", start)
    assert alike(second, first) and not alike(second, run("third"))
    with pytest.raises(CheckpointError, match="lacks the tensor"):
        train(
            "vocoder",
            ROOT / "configs/tiny/vocoder.yaml",
            [f"train={corpus}", f"valid={corpus}", start, f"out={tmp_path / 'v'}"],
        )
    shutil.rmtree(tmp_path / "first")
    assert alike(run("second", start, "loop.steps=2"), second)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        run("fourth", start)


def test_a_run_may_begin_with_the_weights_of_a_system(corpus: Path, tmp_path: Path, tiny_folder: Path) -> None:
    words = [f"train={corpus}", f"valid={corpus}", "loop.steps=1", "loop.lr=0.0", f"start={tiny_folder}", f"out={tmp_path}"]
    begun = export(train("asr", ROOT / "configs/tiny/asr.yaml", words))["recognizer"]
    for name, weight in load(tiny_folder).state("recognizer").items():
        assert torch.allclose(begun[name], weight), name


def kill_thrice(command: list[str], folder: Path, before: int) -> list[int]:
    """Run a training three times, and end it by SIGKILL at three random moments; returns the steps of the moments."""
    draw = random.Random()  # truly random: any moment must do
    at = sorted(draw.sample(range(1, before), 3))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    for moment in at:
        run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while run.poll() is None and reached(folder) < moment:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.02)
        assert run.poll() is None, f"ended before it was killed at {moment}: {run.communicate()[1]!r}"
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert moment <= reached(folder)
    return at


def reached(folder: Path) -> int:
    """The step of the newest whole checkpoint; leaves half-written ones alone."""
    return max((int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*")), default=0)
