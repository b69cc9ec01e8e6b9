"""What a step of the autoregressive backend costs: `python benchmarks/ar.py` (`make bench`).

Beside transformers' MusicGen decoder in the same process, with the same random weights, turn by turn; by how much has been
said; and from a text to the first sound. On a busy machine the figures are printed, and no conclusion is drawn from them.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import typer

from tts.eval.packages import versions
from tts.eval.speed import SENTENCE, measure_rtf

BUSY = 1.5  # load average of a minute, beside which ratios say nothing
SHAPES = {"512 x 8": (512, 8, 8), "1024 x 12": (1024, 12, 16)}  # hidden size x layers, heads; 4 books of 2048 codes
TEXT = 20  # vectors of text that every step attends to


def fastest(runs: dict[str, Callable[[int], Any]], rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a step of each, A B A B …: the least and the median of `rounds` times `steps` steps."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run(2)
            started = time.perf_counter()
            run(steps)
            spent[name].append(1000 * (time.perf_counter() - started) / steps)
    return {name: {"min": min(each), "median": statistics.median(each)} for name, each in spent.items()}


@torch.no_grad()
def beside_musicgen(hidden: int, layers: int, heads: int, rounds: int, steps: int) -> dict[str, Any]:
    """Ours and transformers' at equal architecture and equal weights, one item, both with a cache of 100 positions."""
    import transformers

    from tts.hub.audiocraft import load

    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "ffn_dim": 4 * hidden}
    ids = {"vocab_size": 2048, "num_codebooks": 4, "pad_token_id": 2048, "bos_token_id": 2048}
    theirs = transformers.MusicgenForCausalLM(transformers.MusicgenDecoderConfig(**sizes, **ids)).eval()
    weights = {name: x.clone() for name, x in theirs.state_dict().items() if not name.endswith("embed_positions.weights")}
    network = load(weights, heads).network
    text, codes, held = torch.randn(1, TEXT, hidden), torch.randint(0, 2048, (1, 4)), 100
    nothing = torch.full((1, 4, held), 2048)

    def ours_from(n: int) -> None:
        _, cache = network.start(
            nothing, torch.tensor([held]), None, network.read_vectors(text, torch.ones(1, TEXT).bool()), held + n + 1
        )
        clock = time.perf_counter()
        for _ in range(n):
            network.step(codes, None, cache)
        spent["ours"].append(1000 * (time.perf_counter() - clock) / n)

    def theirs_from(n: int) -> None:
        given = {"encoder_hidden_states": text, "use_cache": True}
        past = theirs(input_ids=nothing.view(4, held), **given).past_key_values
        clock = time.perf_counter()
        for _ in range(n):
            past = theirs(input_ids=codes.view(4, 1), past_key_values=past, **given).past_key_values
        spent["transformers"].append(1000 * (time.perf_counter() - clock) / n)

    spent: dict[str, list[float]] = {"ours": [], "transformers": []}
    for _ in range(rounds):
        ours_from(steps)
        theirs_from(steps)
    told = {name: {"min": min(each), "median": statistics.median(each)} for name, each in spent.items()}
    return {**told, "faster": {kind: told["transformers"][kind] / told["ours"][kind] for kind in ("min", "median")}}


@torch.no_grad()
def by_length(backend: Any, rounds: int, steps: int) -> dict[str, Any]:
    """A step of a backend when 100 and when nearly all positions that it can look back on have been said."""
    network, config = backend.network, backend.config
    codes, told = torch.randint(0, config.size, (1, config.codebooks)), torch.randn(1, config.dim)
    longest = config.context - steps - 2

    def at(held: int) -> Callable[[int], None]:
        cache = network.trunk.cache(1, config.context)
        cache.k.normal_(), cache.v.normal_()

        def run(n: int) -> None:
            cache.lengths = [held]
            for _ in range(n):
                network.step(codes, told, cache)

        return run

    times = fastest({"100": at(100), f"{longest}": at(longest)}, rounds, steps)
    few, many = times["100"], times[f"{longest}"]
    return {**times, "ratio": {kind: many[kind] / few[kind] for kind in ("min", "median")}}


def first_sound(synthesizer: Any, backend: str, runs: int) -> dict[str, float]:
    """Milliseconds from the request to the first chunk, the prompt encoded before."""
    prompt, spent = synthesizer.encode_prompt(None), []
    for seed in range(runs + 1):
        started = time.perf_counter()
        with synthesizer.stream(SENTENCE, prompt, backend=backend, seed=seed) as stream:
            next(stream)
            spent.append(1000 * (time.perf_counter() - started))
    return {"min": min(spent[1:]), "median": statistics.median(spent[1:])}


def main(
    system: str = "base-en", backend: str = "ar", threads: int = 2, rounds: int = 8, steps: int = 25, out: Path | None = None
) -> None:
    """Times in milliseconds, one item. --out: a JSON file for the figures."""
    from tts import Synthesizer

    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    found: dict[str, Any] = {"load average at the start": load, "threads": threads, "versions": versions()}
    found["beside MusicGen"] = {name: beside_musicgen(*shape, rounds, steps) for name, shape in SHAPES.items()}
    synthesizer = Synthesizer.from_pretrained(system, retries=0)
    if backend in synthesizer.parts.backends:
        found["by length"] = by_length(synthesizer.parts.backends[backend], rounds, steps)
        found["first sound"] = first_sound(synthesizer, backend, rounds)
        found["real-time factor"] = measure_rtf(synthesizer, synthesizer.encode_prompt(None), 3, backend=backend).rtf
    found["conclusion"] = "none: the machine was busy" if load > BUSY else "the ratios above"
    told = json.dumps(found, indent=1)
    sys.stdout.write(told + "\n")
    if out is not None:
        out.write_text(told + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
