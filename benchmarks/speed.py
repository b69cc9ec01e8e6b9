"""How fast the default system speaks on this machine: `python benchmarks/speed.py --prompt me.wav` (`make bench`)."""

import json
import sys
import tempfile
from pathlib import Path

import typer

from tts.eval.packages import versions
from tts.eval.speed import SENTENCE, SENTENCE_SECONDS, measure_rtf, time_process

PROMPT_SECONDS = 5.0


def main(prompt: Path | None = None, system: str = "base-en", threads: int = 2, runs: int = 5, out: Path | None = None) -> None:
    """Cold start and peak memory of the command `mynah say`, then the real-time factor of a warm synthesizer.

    --prompt: a recording, cut to five seconds; without it the built-in voice speaks. --out: a JSON file for the figures.
    """
    # 1. cold, first: a child's peak memory would otherwise count what torch takes here
    with tempfile.TemporaryDirectory() as folder:
        words = ["say", SENTENCE, "--system", system, "--seconds", f"{SENTENCE_SECONDS:g}", "--out", f"{folder}/out.wav"]
        words += ["--prompt", str(prompt)] if prompt is not None else []
        cold = time_process([sys.executable, "-m", "tts.cli", *words], threads)

    # 2. warm
    import torch

    from tts import Synthesizer
    from tts.recording import load

    torch.set_num_threads(threads)
    voice = None
    if prompt is not None:
        samples, rate, _ = load(prompt)
        voice = (samples[: round(PROMPT_SECONDS * rate)].numpy(), rate)
    synthesizer = Synthesizer.from_pretrained(system, retries=0)
    warm = measure_rtf(synthesizer, synthesizer.encode_prompt(voice), runs)

    # 3. told
    found = {
        "real-time factor": warm.rtf,
        "real-time factors": warm.rtfs,
        "seconds of sound": warm.seconds,
        "seconds of the first sentence": warm.first_seconds,
        "cold start to a file, seconds": cold.seconds,
        "peak memory, MB": cold.peak_bytes / 1e6,
        "conditions": {
            "sentence": f"{SENTENCE_SECONDS:g} s, check on, no retry",
            "prompt": f"{PROMPT_SECONDS:g} s, already encoded" if prompt is not None else "the built-in voice, already encoded",
            "system": system,
            "threads": threads,
            "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        },
        "versions": versions(),
    }
    told = json.dumps(found, indent=1)
    sys.stdout.write(told + "\n")
    if out is not None:
        out.write_text(told + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
