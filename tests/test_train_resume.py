"""Killed and resumed: whatever the recipe, a run ends in the weights of one that was left alone."""

from __future__ import annotations

import os
import random
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
    "vocoder": ["vocoder.yaml", "recipe.lowpass_share=0.5"],
    "backend": ["flow.yaml", "recipe.model.dropout=0.1", "recipe.draw.drop_all=0.3"],
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


@pytest.mark.parametrize("what", RECIPES)
def test_a_recipe_killed_at_three_random_moments_ends_in_the_weights_of_an_undisturbed_run(
    what: str, corpus: Path, tmp_path: Path
) -> None:
    config, *more = RECIPES[what]
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
