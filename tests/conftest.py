"""What many tests share: a tiny system with random weights, and recordings to speak like."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from torch import nn

from tts import registry
from tts.config import load_config

ROOT = Path(__file__).parent.parent
RATE = 16_000


def tiny_durations():
    """80 ms for each phone, 50 ms for each boundary."""
    from tts.duration.rules import RuleConfig
    from tts.text.tokens import PHONES

    boundaries = tuple(i for i in range(len(PHONES)) if PHONES.is_boundary(i))
    seconds = tuple(0.05 if i in boundaries else 0.08 for i in range(len(PHONES)))
    return RuleConfig(PHONES.identity, seconds, boundaries, tuple(i for i in boundaries if i != PHONES.id(" ")))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A checkpoint folder: every part at 16 channels with random weights, and one built-in voice."""
    from tts.checkpoint import System
    from tts.pipeline import Synthesizer
    from tts.prompts import save_voice
    from tts.train.assemble import complete, put_together

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
