"""Pictures of alignments are whole PNGs, for any clip, also one in which nothing was heard."""

from pathlib import Path

import pytest
import torch

from tts.eval.alignments import plot_alignment
from tts.text.tokens import PHONES


@pytest.mark.parametrize("words", ["ð ə", ""])
def test_a_picture_shows_mel_phones_and_posteriors(words: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    tokens = [PHONES.id(" "), *(PHONES.id(phone) for phone in words.split())]
    frames = [12 - 4 * len(words.split()), *(4 for _ in words.split())]
    log_probs = torch.randn(12, len(PHONES.recognizer_symbols)).log_softmax(-1)
    path = tmp_path / "clip.png"
    plot_alignment(path, torch.randn(80, 12), log_probs, tokens, frames, title="$3 {and an odd_title & \\more$")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5_000
