"""Copy synthesis: recordings through a vocoder and back, measured beside the recordings themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tts.audio import resample, save
from tts.errors import InputError
from tts.eval.measures import Clip, Meters, measure, read_clip
from tts.eval.protocols import Item
from tts.eval.quality import RATE
from tts.eval.report import HUMAN, build_report, save_report
from tts.frames import Wave, check_fit
from tts.interfaces import Encoder, Vocoder


def copy_synthesis(
    encoder: Encoder,
    vocoder: Vocoder,
    items: Sequence[Item],
    folder: str | Path | None = None,
    meters: Meters | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Send the recordings of a protocol's items through `encoder` and `vocoder`, and measure both.

    Args:
        folder: where to keep the copies (copies/ID.wav) and report.json; None: nowhere.
    Returns:
        the report (see `build_report`) with the rows "copies" (PESQ, STOI and SIM against the recording itself) and
        "recordings" (SIM against the prompt, as in every evaluation).
    Raises:
        FitError: the encoder's frames are not the vocoder's. InputError: no item has a recording.
    """
    check_fit("the encoder", encoder.emits, "the vocoder", vocoder.accepts)
    meters = meters if meters is not None else Meters()
    meters.require()
    human, copies = [], []
    for item in items:
        if item.recording is None:
            continue
        recording = read_clip(item.recording)
        copy = copy_of(recording, encoder, vocoder)
        human.append(Clip(item.id, recording, item.text, read_clip(item.prompt)))
        copies.append(Clip(item.id, copy, item.text, recording, reference=recording))
        if folder is not None:
            place = Path(folder) / "copies" / f"{item.file_name}.wav"
            place.parent.mkdir(parents=True, exist_ok=True)
            save(place, torch.from_numpy(copy), RATE)
    if not copies:
        raise InputError("no item has a recording; copy synthesis needs a protocol with recordings")
    if folder is not None and meters.cache is None:
        meters = replace(meters, cache=Path(folder) / "transcripts.json")
    rows = {"copies": measure(copies, meters), HUMAN: measure(human, meters)}
    report = build_report(rows, {"copy_synthesis": vocoder.accepts.flavour, "meters": meters.names}, seed)
    if folder is not None:
        save_report(report, Path(folder) / "report.json")
    return report


def copy_of(recording: np.ndarray, encoder: Encoder, vocoder: Vocoder) -> np.ndarray:
    """A recording [N] at 16 kHz as the vocoder says it, [N] at 16 kHz, sample beside sample."""
    sound = resample(torch.from_numpy(recording), RATE, vocoder.sample_rate)
    with torch.inference_mode():
        copy = vocoder.decode(encoder.encode(Wave.of(sound, vocoder.sample_rate))).samples[0].float().cpu()
    copy = resample(copy[: len(sound)], vocoder.sample_rate, RATE)
    return copy[: len(recording)].numpy()
