"""What `mynah eval` does: which evaluation is asked for, with which system and instruments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tts.errors import SettingsError
from tts.eval.codec import codebook_table, copy_synthesis
from tts.eval.edits import edit_table, replacements, run_edits
from tts.eval.hard import category_tables, hard_items, run_hard
from tts.eval.measures import Meters
from tts.eval.noise import NoisyPrompts
from tts.eval.phones import PhoneEars
from tts.eval.pool import run_pooled
from tts.eval.protocols import COPIED, read_protocol
from tts.eval.report import table
from tts.eval.run import TRIES, Speaks, Tries, run
from tts.pipeline import Synthesizer


def evaluate(
    protocols: Sequence[Path],
    out: Path,
    system: str = "base-en",
    backend: str = "flow",
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    tries: Sequence[int] = (),
    rerank: Sequence[int] = (),
    hard: bool = False,
    pages: int = 0,
    copies: bool = False,
    n_codebooks: Sequence[int] | None = None,
    prompt_snr: float | None = None,
    edits: int = 0,
) -> list[Table]:
    """Run one evaluation of a system, as the words of the command line say, and give its tables. Raises SettingsError."""
    speaking = {"--set": settings, "--tries": tries, "--rerank": rerank, "--hard": hard, "--pages": pages}
    spoken = [name for name, given in speaking.items() if given] + ["--prompt-snr"] * (prompt_snr is not None)
    if copies and spoken:
        raise SettingsError(f"--copies speaks nothing, so it goes without {' and '.join(spoken)}")
    if n_codebooks and not copies:
        raise SettingsError("--n-codebooks is for --copies; give both or neither")
    if copies and not protocols:
        raise SettingsError("say what to copy: --protocol FILE, a TSV of recordings")
    if edits and (copies or hard or len(protocols) != 1 or spoken != ["--set"] * bool(settings)):
        raise SettingsError(
            "--edits replaces words of recordings: give one --protocol with recordings, and no other evaluation"
        )
    if not protocols and not hard:
        raise SettingsError("say what to speak: --protocol FILE, or --hard")
    if len(protocols) > 1 and (copies or hard):
        raise SettingsError(f"{'--copies' if copies else '--hard'} takes one --protocol, got {len(protocols)}")
    least = [("--tries", 1, tries), ("--rerank", 2, rerank), ("--pages", 0, [pages])]
    wrong = [f"{name} must be {low} or more, got {n}" for name, low, counts in least for n in counts if n < low]
    if wrong:
        raise SettingsError("; ".join(wrong))
    synthesizer = Synthesizer.from_pretrained(system)
    parts = synthesizer.parts
    ears = PhoneEars(parts.recognizer, parts.front_end, parts.encoder)
    meters = Meters(phones=ears.errors, align=ears.align, said=ears.said)
    if copies:
        items = read_protocol(protocols[0], COPIED)
        report = copy_synthesis(parts.encoder, parts.vocoder, items, out, meters, parts.codec, n_codebooks, seed)
        return [table(report), *([codebook_table(report)] if "codec" in report else [])]
    if edits:
        chosen = replacements(read_protocol(protocols[0]), edits, seed)
        return [edit_table(run_edits(chosen, synthesizer, out, ears, backend, seed, settings))]
    speaks: Speaks = synthesizer if prompt_snr is None else NoisyPrompts(synthesizer, prompt_snr)
    rows = [Tries(count) for count in tries] + [Tries(count, rerank=True) for count in rerank]
    options: dict[str, Any] = {"backend": backend, "seed": seed, "settings": settings, "pages": pages}
    if hard:
        voices = read_protocol(protocols[0]) if protocols else ()
        report = run_hard(hard_items(voices), speaks, out, meters, rows or (Tries(2),), **options)
        return [table(report), *category_tables(report)]
    if len(protocols) > 1:
        report = run_pooled(protocols, speaks, out, meters, tries=rows or TRIES, **options)
    else:
        report = run(protocols[0], speaks, out, meters, tries=rows or TRIES, **options)
    return [table(report)]
