"""How well durations are foretold: texts of recordings are planned in the voices of their speakers, by several predictors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import nn

from tts.asr.align import align
from tts.audio import read_prompt
from tts.errors import InputError, OutputError
from tts.eval.protocols import Item
from tts.eval.report import RESAMPLES, save_report
from tts.frames import Tokens, Wave
from tts.interfaces import Duration

log = logging.getLogger(__name__)
CLOSING_SECONDS = 0.1  # of silence that a plan ends with; the rest of a recording's margins is not speech


def compare_durations(
    items: Sequence[Item], synthesizer: Any, predictors: Mapping[str, Duration], folder: str | Path, seed: int = 0
) -> dict[str, Any]:
    """Plan every item that has a recording, in the voice of its prompt, and write folder/durations.json.

    A recording lasts from its first phone to its last, by the system's recognizer, and CLOSING_SECONDS; what does not align is
    left out. An error is that of the whole plan, not of its phones.

    Args:
        synthesizer: a `tts.pipeline.Synthesizer`, for its parts; the predictors read its symbols.
    Returns:
        rows by predictor: `weights` (their count), `metrics` (median_percent, mean_percent, seconds, bias_percent, each with
        value, low, high) and `items`.
    Raises:
        InputError: no item has a recording that aligns. OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error}); give a folder you may write to") from error
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in predictors}
    parts, language = synthesizer.parts, synthesizer.system.languages[0]
    for item in items:
        ids = [token for token in parts.front_end.encode(item.text, language) if isinstance(token, int)]
        lasted = None if item.recording is None else speech_seconds(parts, item.recording, ids, synthesizer.system.sample_rate)
        if lasted is None:
            log.warning("%s has no recording in which its text is found; it is left out", item.id)
            continue
        voice = synthesizer.encode_prompt(item.prompt, item.prompt_text).prompt
        for name, duration in predictors.items():
            planned = float(duration.plan(Tokens.of([ids], duration.table), voice).seconds)
            rows[name].append({"id": item.id, "seconds": lasted, "planned": planned, "speaker": item.speaker})
    if not any(rows.values()):
        raise InputError("no item has a recording in which its text is found; durations are compared with recordings")
    report: dict[str, Any] = {
        "interval": f"95 % bootstrap over {len(next(iter(rows.values())))} recordings, {RESAMPLES} resamples, seed {seed}",
        "rows": {name: {"weights": count_weights(predictors[name])} | summarise(row, seed) for name, row in rows.items()},
    }
    save_report(report, folder / "durations.json")
    return report


def speech_seconds(parts: Any, recording: Path, ids: Sequence[int], sample_rate: int) -> float | None:
    """How long a recording says these tokens, or None where they are not found in it. sample_rate: the encoder's, in Hz."""
    samples, _ = read_prompt(str(recording), sample_rate)
    with torch.inference_mode():
        mel = parts.encoder.encode(Wave.of(samples, sample_rate))
        log_probs = parts.recognizer.posteriors(mel).data[0].T.float().cpu()  # [T, V]
    rate = float(mel.spec.rate)
    found = align(log_probs, ids, rate)
    return None if found is None else sum(found.frames[1:-1]) / rate + CLOSING_SECONDS


def summarise(items: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Errors of plans: `seconds` against `planned`. Every figure with its 95 % bootstrap interval."""
    lasted, planned = (np.array([item[key] for item in items]) for key in ("seconds", "planned"))
    relative = 100 * (planned / lasted - 1)
    draws = np.random.default_rng(seed).integers(len(items), size=(RESAMPLES, len(items)))

    def figure(values: np.ndarray, act: Callable[..., Any]) -> dict[str, float]:
        low, high = np.percentile(act(values[draws], axis=1), [2.5, 97.5])
        return {"value": float(act(values, axis=0)), "low": float(low), "high": float(high), "n": len(items)}

    metrics = {
        "median_percent": figure(np.abs(relative), np.median),
        "mean_percent": figure(np.abs(relative), np.mean),
        "seconds": figure(np.abs(planned - lasted), np.mean),
        "bias_percent": figure(relative, np.mean),
    }
    return {"metrics": metrics, "items": [dict(item) for item in items]}


def count_weights(duration: Any) -> int:
    """Of a network; 0 of a rule or a function."""
    return sum(weight.numel() for weight in duration.parameters()) if isinstance(duration, nn.Module) else 0


def duration_table(report: Mapping[str, Any]) -> Table:
    """A report as a table: a line for each predictor, "value [low, high]"."""
    drawn = Table("", "weights", "median error, %", "mean error, %", "mean error, s", "bias, %", caption=report["interval"])
    for name, row in report["rows"].items():
        figures = []
        for metric, digits in (("median_percent", 1), ("mean_percent", 1), ("seconds", 2), ("bias_percent", 1)):
            value, low, high = (row["metrics"][metric][key] for key in ("value", "low", "high"))
            figures.append(f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
        drawn.add_row(name, f"{row['weights']:,}", *figures)
    return drawn
