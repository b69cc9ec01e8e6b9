"""What many tests share: a tiny system with random weights, and recordings to speak like."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from torch import nn

from tts import registry
from tts.audio import MelRecipe
from tts.config import load_config
from tts.text.tokens import PHONES

ROOT = Path(__file__).parent.parent
RATE = 16_000
TOY_MEL = MelRecipe(bands=4)


def tiny_durations():
    """80 ms for each phone, 50 ms for each boundary."""
    from tts.duration.rules import RuleConfig

    boundaries = tuple(i for i in range(len(PHONES)) if PHONES.is_boundary(i))
    seconds = tuple(0.05 if i in boundaries else 0.08 for i in range(len(PHONES)))
    return RuleConfig(PHONES.identity, seconds, boundaries, tuple(i for i in boundaries if i != PHONES.id(" ")))


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch) -> Path:
    """An empty folder of a user's own voices, not that of whoever runs the tests; a test may fill it."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("MYNAH_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A checkpoint folder: every part at 16 channels with random weights, and one built-in voice."""
    from tts.checkpoint import System
    from tts.pipeline import Synthesizer
    from tts.train.assemble import complete, put_together
    from tts.voices import save_voice

    folder = tmp_path_factory.mktemp("systems") / "tiny"
    system = complete(load_config(System, ROOT / "configs/tiny/system.yaml"), tiny_durations())
    states = {}
    for role, part in system.parts.items():
        torch.manual_seed(len(states))
        made = registry.build(role.partition(".")[0], part.type, part.config)
        if isinstance(made, nn.Module):
            states[role] = made.state_dict()
    put_together(folder, system, states)
    save_voice(folder, "tiny", Synthesizer.from_pretrained(folder).encode_prompt((speech(2.0), RATE)))
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    """The tiny system, loaded."""
    from tts.pipeline import Synthesizer

    return Synthesizer.from_pretrained(tiny_folder)


def speech(seconds: float, rate: int = RATE, hz: float = 140.0) -> np.ndarray:
    """Something like a voice, [N] float32: a buzz that comes and goes four times a second."""
    t = np.arange(round(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 20))
    return (0.1 * buzz * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t))).astype(np.float32)


@pytest.fixture(scope="session")
def recording(tmp_path_factory) -> Path:
    """Three seconds of something like a voice, as a file."""
    import soundfile

    path = tmp_path_factory.mktemp("recordings") / "me.wav"
    soundfile.write(path, speech(3.0), RATE)
    return path


def toy_corpus(folder: Path, clips: int = 6, score: float = -1.0):
    """Aligned clips of two speakers, 20 frames each or more; the mel of every frame is the id of its phone, four times."""
    from tts.train.data import Corpus, CorpusWriter, Item, save_alignment

    stressed = PHONES.id("ˈæ")
    rows, frames = [], []
    tables = {"symbols": list(PHONES.symbols), "table": PHONES.identity, "mel": TOY_MEL.spec.flavour}
    with CorpusWriter(folder, tables) as writer:
        for i in range(clips):
            ids, lasts = [1, stressed, 80 + i, 7], [3, 10 + 2 * i + i % 2, 0, 7]
            T = sum(lasts)
            mel = torch.repeat_interleave(torch.tensor(ids), torch.tensor(lasts)).float().expand(4, T)
            writer.add(Item(f"{i}", f"speaker {i % 2}", "toy", "F", "en-us", T / 50, "x", T, 0, tuple(ids)), mel)
            rows.append(ids)
            frames.append(lasts)
    save_alignment(folder, rows, frames, [score] * clips)
    return Corpus(folder, audio=False)


def toy_codec():
    """A codec of such mels, with random weights: two books of eight codes."""
    from tts.codecs.autoencoder import MelCodec, MelCodecConfig
    from tts.codecs.rvq import RVQConfig

    torch.manual_seed(0)
    sizes = {"dim": 16, "hidden": 16, "encoder_layers": (1, 1), "decoder_layers": (1, 1)}
    rvq = RVQConfig(dim=16, codebooks=2, size=8, code_dim=4, warmup=2)
    return MelCodec(MelCodecConfig(mel=TOY_MEL, **sizes, rvq=rvq, mel_mean=60.0, mel_std=40.0)).eval()
