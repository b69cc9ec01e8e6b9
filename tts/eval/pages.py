"""Listening pages: the worst items of an evaluation in one HTML file, each with its sounds, its picture and what is wrong."""

from __future__ import annotations

import io
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from tts.eval.measures import Listener, speech_extent
from tts.eval.packages import optional
from tts.eval.plots import draw_item
from tts.eval.quality import RATE
from tts.files import write_whole

# From where on something is called wrong.
LEVEL_DB = 6.0  # louder or softer than the prompt by this
PACE = 1.3  # faster or slower than the prompt by this factor
CLIPPED = 0.001  # share of samples at full scale
NOISY_DB = 25.0  # the loud parts stand above the silent ones by less
STRANGER = 0.6  # SIM below this is another voice
POOR = 2.2  # DNSMOS OVRL below this is a poor sound
SHOWN = 6  # pairs of phones that are named

STYLE = """body{font:15px/1.45 sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}
section{border-top:1px solid #ccc;padding:.6em 0 1em}img{width:100%}audio{height:2em;vertical-align:middle}
table{border-collapse:collapse}td,th{padding:.1em .8em .1em 0;text-align:left;vertical-align:top}.wrong{color:#a00}"""


@dataclass(frozen=True)
class Entry:
    """One item: its text, what it scored (a row of `tts.eval.measures.measure`), and sounds [N] at 16 kHz."""

    text: str
    scores: Mapping[str, Any]
    samples: np.ndarray
    prompt: np.ndarray | None = None
    recording: np.ndarray | None = None


def hardest(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The `count` rows with the highest PER (without one: WER), among equals those with the lowest SIM."""

    def order(row: Mapping[str, Any]) -> tuple[float, float]:
        per = _per(row)
        return -(per if per is not None else row.get("utterance_wer", 0.0)), row.get("sim", 1.0)

    return sorted(rows, key=order)[:count]


def diagnose(entry: Entry, listener: Listener | None = None) -> list[str]:
    """What is wrong with an item, a short sentence each; [] where nothing is found. listener: hears how fast the prompt is."""
    scores, sound = entry.scores, entry.samples
    start, end = speech_extent(sound)
    if end == start:
        return ["nothing is heard"]
    found = [
        f"{said}: {' '.join(scores[key])}" for said, key in (("left out", "missed"), ("twice", "repeated")) if scores.get(key)
    ]
    pairs = Counter(f"{asked} as {heard}" for asked, heard in scores.get("wrong", ()))
    if pairs:
        often = [f"{pair} ({n} times)" if n > 1 else pair for pair, n in pairs.most_common(SHOWN)]
        found.append(f"heard otherwise: {', '.join(often)}")
    if scores.get("words_lost"):
        found.append(f"{scores['words_lost']} words in a row are missing")
    if scores.get("sim", 1.0) < STRANGER:
        found.append(f"another voice (SIM {scores['sim']:.2f})")
    if scores.get("ovrl", 5.0) < POOR:
        found.append(f"poor sound (DNSMOS {scores['ovrl']:.1f})")
    if np.mean(np.abs(sound) > 0.999) > CLIPPED:
        found.append("clipped")
    found += [
        f"noisy {what}" for what, clip in (("sound", sound), ("prompt", entry.prompt)) if clip is not None and _noisy(clip)
    ]
    if entry.prompt is not None:
        found += _beside_prompt(entry, entry.prompt, listener)
    return found


def write_page(path: str | Path, title: str, entries: Sequence[Entry], listener: Listener | None = None) -> None:
    """Write a page that needs no other file, and beside it a summary as Markdown, each whole or not at all."""
    path = Path(path)
    faults = [diagnose(entry, listener) for entry in entries]
    body = "".join(_section(entry, wrong) for entry, wrong in zip(entries, faults, strict=True))
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    write_whole(path, f"{head}<h1>{escape(title)}</h1>{body}</html>\n".encode())
    lines = [f"# {title}", "", "| item | PER | WER | SIM | OVRL | text | what is wrong |", "|---|---|---|---|---|---|---|"]
    for entry, wrong in zip(entries, faults, strict=True):
        cells = [entry.scores["id"], *_figures(entry.scores).values(), entry.text, "; ".join(wrong) or "nothing was found"]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    write_whole(path.with_suffix(".md"), ("\n".join(lines) + "\n").encode())


def _section(entry: Entry, wrong: Sequence[str]) -> str:
    scores = entry.scores
    sounds = {"spoken": entry.samples, "prompt": entry.prompt, "recording": entry.recording}
    present = {name: sound for name, sound in sounds.items() if sound is not None and len(sound)}
    players = " ".join(f"{name} {_player(sound)}" for name, sound in present.items())
    shown = {name: sound for name, sound in present.items() if name != "prompt"}
    picture = b64encode(draw_item(shown, "", scores.get("alignment", ()), dpi=80)).decode() if shown else ""
    told = {
        "text": entry.text,
        "words heard": scores.get("heard", ""),
        "phones heard": " ".join(scores.get("heard_phones", ())),
        "missed": " ".join(scores.get("missed", ())),
        "repeated": " ".join(scores.get("repeated", ())),
        "scores": ", ".join(f"{name} {figure}" for name, figure in _figures(scores).items() if figure),
    }
    rows = "".join(f"<tr><th>{name}<td>{escape(value)}" for name, value in told.items() if value)
    verdict = f'<p class="wrong">{escape("; ".join(wrong))}' if wrong else "<p>Nothing was found."
    drawn = f'<img alt="mel and phones" src="data:image/png;base64,{picture}">' if picture else ""
    return f"<section><h2>{escape(str(scores['id']))}</h2>{verdict}<p>{players}<table>{rows}</table>{drawn}</section>\n"


def _player(samples: np.ndarray) -> str:
    """Samples [N] as an <audio> that holds its MP3."""
    packed = io.BytesIO()
    optional("soundfile").write(packed, samples.clip(-1, 1), RATE, format="MP3")
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{b64encode(packed.getvalue()).decode()}"></audio>'


def _figures(scores: Mapping[str, Any]) -> dict[str, str]:
    """PER, WER, SIM and OVRL as they are shown; "" where one was not measured."""
    shares = {"PER": _per(scores), "WER": scores.get("utterance_wer")}
    means = {"SIM": scores.get("sim"), "OVRL": scores.get("ovrl")}
    figures = {name: "" if value is None else f"{value:.0%}" for name, value in shares.items()}
    return figures | {name: "" if value is None else f"{value:.2f}" for name, value in means.items()}


def _per(scores: Mapping[str, Any]) -> float | None:
    return scores["phone_errors"] / scores["phones"] if scores.get("phones") else None


def _beside_prompt(entry: Entry, prompt: np.ndarray, listener: Listener | None) -> list[str]:
    """How level and pace differ from the prompt's."""
    found = []
    (start, end), (first, last) = speech_extent(entry.samples), speech_extent(prompt)
    if first == last:
        return ["nothing is heard in the prompt"]
    louder = _level(entry.samples, start, end) - _level(prompt, first, last)
    if abs(louder) > LEVEL_DB:
        found.append(f"{abs(louder):.0f} dB {'louder' if louder > 0 else 'softer'} than the prompt")
    ours = len(entry.scores.get("heard_phones", ())) / (end - start)
    theirs = len(listener(prompt, "").get("heard_phones", ())) / (last - first) if listener is not None else 0.0
    if ours and theirs and not 1 / PACE < ours / theirs < PACE:
        pace = f"{ours:.0f} phones a second, {theirs:.0f} in the prompt"
        found.append(f"{'faster' if ours > theirs else 'slower'} than the prompt ({pace})")
    return found


def _level(samples: np.ndarray, start: float, end: float) -> float:
    """Decibels of full scale between two times."""
    speech = samples[round(start * RATE) : round(end * RATE)].astype(np.float64)
    return float(10 * np.log10(np.mean(speech**2) + 1e-12))


def _noisy(samples: np.ndarray) -> bool:
    """Whether its loudest 20 ms stand little above its most silent ones."""
    frames = samples[: len(samples) // (RATE // 50) * (RATE // 50)].reshape(-1, RATE // 50)
    if not len(frames):
        return False
    silent, loud = np.percentile(10 * np.log10((frames.astype(np.float64) ** 2).mean(1) + 1e-12), [5, 95])
    return bool(loud - silent < NOISY_DB)
