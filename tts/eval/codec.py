"""Copy synthesis: recordings through vocoder and codec and back, measured beside the recordings themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from tts.audio import resample, save
from tts.clock import Clock
from tts.errors import InputError
from tts.eval.measures import Clip, Meters, measure, read_clip
from tts.eval.plots import plot_item
from tts.eval.probes import perplexity
from tts.eval.protocols import Item
from tts.eval.quality import RATE
from tts.eval.report import HUMAN, build_report, save_report
from tts.frames import Wave
from tts.interfaces import Codec, Encoder, Vocoder
from tts.reconstruction import bits_per_second, count_codebooks, reconstruct

PLOTS = 4  # pictures, of the first items


def copy_synthesis(
    encoder: Encoder,
    vocoder: Vocoder,
    items: Sequence[Item],
    folder: str | Path | None = None,
    meters: Meters | None = None,
    codec: Codec | None = None,
    n_codebooks: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Send the recordings of a protocol's items through vocoder and codec, and measure the copies and the recordings.

    Args:
        folder: where to keep the copies (vocoder/ID.wav, codec-8/ID.wav, …), pictures of some in plots/, report.json and
            transcripts.json; None: nowhere.
        n_codebooks: a row each, 0 being the vocoder alone; None: 0, and of a codec all, half and one.
    Returns:
        the report (see `build_report`) with the rows "vocoder", "codec 8", "codec 4", … (PESQ, STOI and SIM against the
        recording itself) and "recordings" (SIM against the prompt, as in every evaluation). A row of the codec has its
        "bits_per_second", and report["codec"] tells how the codebooks are used.
    Raises:
        SettingsError: there are not so many codebooks. FitError: what the encoder or the codec gives is not what the vocoder
        takes. InputError: no item has a recording.
    """
    rows = _rows(encoder, vocoder, codec, n_codebooks)
    meters = meters if meters is not None else Meters()
    meters.require()
    items = [item for item in items if item.recording is not None]
    if not items:
        raise InputError("no item has a recording; copy synthesis needs a protocol with recordings")
    folder = Path(folder) if folder is not None else None
    if folder is not None and meters.cache is None:
        meters = replace(meters, cache=folder / "transcripts.json")

    # 1. copy
    recordings = [read_clip(item.recording) for item in items if item.recording is not None]
    copies: dict[str, list[np.ndarray]] = {}
    spent: dict[str, list[dict[str, float]]] = {}
    for row, n in rows.items():
        copy_of(recordings[0], encoder, vocoder, codec, n)  # not timed: the first time everything is slower
        clocks = [Clock() for _ in items]
        copies[row] = [
            copy_of(recording, encoder, vocoder, codec, n, clock) for recording, clock in zip(recordings, clocks, strict=True)
        ]
        spent[row] = [{f"{stage}_seconds": seconds for stage, seconds in clock.spent.items()} for clock in clocks]
    if folder is not None:
        _keep(items, recordings, copies, folder)
    # 2. measure
    measured = {}
    for row, sounds in copies.items():
        clips = [
            Clip(item.id, sound, item.text or None, recording, reference=recording)
            for item, recording, sound in zip(items, recordings, sounds, strict=True)
        ]
        measured[row] = [scores | times for scores, times in zip(measure(clips, meters), spent[row], strict=True)]
    voices = [read_clip(item.prompt) if item.prompt and item.prompt != item.recording else None for item in items]
    human = [
        Clip(item.id, recording, item.text or None, voice)
        for item, recording, voice in zip(items, recordings, voices, strict=True)
    ]
    measured[HUMAN] = measure(human, meters)
    # 3. report
    about = {"copy_synthesis": vocoder.accepts.flavour, "meters": meters.names, "threads": torch.get_num_threads()}
    report = build_report(measured, about, seed)
    if codec is not None:
        report["codec"] = _codebooks(codec, recordings)
        for row, n in rows.items():
            report["rows"][row] |= {"bits_per_second": bits_per_second(codec.emits, n)} if n else {}
    if folder is not None:
        save_report(report, folder / "report.json")
    return report


def copy_of(
    recording: np.ndarray,
    encoder: Encoder,
    vocoder: Vocoder,
    codec: Codec | None = None,
    n_codebooks: int = 0,
    clock: Clock | None = None,
) -> np.ndarray:
    """A recording [N] at 16 kHz as `tts.reconstruction.reconstruct` copies it, [N] at 16 kHz, sample beside sample."""
    sound = resample(torch.from_numpy(recording), RATE, vocoder.sample_rate)
    copy = reconstruct(sound, encoder, vocoder, codec, n_codebooks, clock)
    return resample(copy, vocoder.sample_rate, RATE)[: len(recording)].numpy()


def codebook_table(report: dict[str, Any]) -> Table:
    """How the codebooks of a report's codec are used: a row for each, with its perplexity over the recordings."""
    told = report["codec"]
    drawn = Table(caption=f"{told['rate']:g} frames a second, {told['frames']} frames")
    for heading in ("codebook", "size", "perplexity"):
        drawn.add_column(heading, justify="right")
    for k, (size, found) in enumerate(zip(told["sizes"], told["perplexity"], strict=True)):
        drawn.add_row(str(k), str(size), f"{found:.0f}")
    return drawn


def _rows(encoder: Encoder, vocoder: Vocoder, codec: Codec | None, asked: Sequence[int] | None) -> dict[str, int]:
    """The name of each row, and its number of codebooks."""
    if asked is None:
        K = codec.emits.width if codec is not None else 0
        alone = codec is None or encoder.emits == vocoder.accepts  # not where the vocoder reads the codec's own latents
        asked = [*([0] if alone else []), *sorted({K, K // 2, min(K, 1)} - {0}, reverse=True)]
    counts = [count_codebooks(codec, n) for n in asked]
    return {f"codec {n}" if n else "vocoder": n for n in counts}


def _keep(items: Sequence[Item], recordings: Sequence[np.ndarray], copies: dict[str, list[np.ndarray]], folder: Path) -> None:
    """Write the copies, and for the first items a picture of the mels: the recording's, and those of its copies beneath."""
    for row, sounds in copies.items():
        place = folder / row.replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        for item, sound in zip(items, sounds, strict=True):
            save(place / f"{item.file_name}.wav", torch.from_numpy(sound), RATE)
    (folder / "plots").mkdir(exist_ok=True)
    for i, (item, recording) in enumerate(zip(items[:PLOTS], recordings, strict=False)):
        shown = {"recording": recording, **{row: sounds[i] for row, sounds in copies.items()}}
        plot_item(folder / "plots" / f"copies-{item.file_name}.png", shown, f"{item.id}: {item.text}")


def _codebooks(codec: Codec, recordings: Sequence[np.ndarray]) -> dict[str, Any]:
    """What the codec's codes are, and how evenly each codebook is used over all recordings together."""
    waves = [Wave.of(resample(torch.from_numpy(x), RATE, codec.sample_rate), codec.sample_rate) for x in recordings]
    codes = torch.cat([codec.encode(wave).data[0] for wave in waves], dim=1)  # [K, T]
    spec = codec.emits
    return {
        "flavour": spec.flavour,
        "rate": float(spec.rate),
        "sizes": list(spec.sizes),
        "frames": codes.shape[1],
        "perplexity": perplexity(codes, spec.sizes).tolist(),
    }
