"""Package pocket-tts with random weights, offline; run as a program it says a text from a cold start.

    python benchmarks/pocket.py CONFIG PROMPT TEXT OUT

Its own packaged configuration, with weights that were drawn here and a tokenizer that gives each word a number, so about as
many tokens as words. It never hears an end, and so speaks as long as it allows itself for that many tokens.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NEVER = 1e9  # a threshold of the end of speech that nothing exceeds
Run = Callable[[int], float]


def available() -> bool:
    return find_spec("pocket_tts") is not None


def write(size: str, folder: Path) -> Path:
    """A configuration of the package, pointing at random weights and a tokenizer that are written beside it."""
    import torch
    import yaml
    from safetensors.torch import save_file

    where = find_spec("pocket_tts")
    assert where is not None and where.submodule_search_locations
    package = Path(next(iter(where.submodule_search_locations)))
    config = yaml.safe_load((package / "config" / f"{size}.yaml").read_text(encoding="utf-8"))
    table, target, weights = (folder / f"{size}.{end}" for end in ("json", "yaml", "safetensors"))
    words = {f"word{i}": i for i in range(config["flow_lm"]["lookup_table"]["n_bins"] - 4)}
    for mark in (".", "!", "?", "<unk>"):
        words[mark] = len(words)
    model = {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}
    kinds = {"normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None}
    told = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], **kinds, "model": model}
    table.write_text(json.dumps(told), encoding="utf-8")
    config["flow_lm"]["lookup_table"] |= {"tokenizer": "tokenizers", "tokenizer_path": str(table)}
    for name in ("weights_path", "weights_path_without_voice_cloning"):
        config.pop(name, None)
    target.write_text(yaml.safe_dump(config), encoding="utf-8")
    torch.manual_seed(0)
    state = build(target).state_dict()
    for x in state.values():
        x.nan_to_num_(0.0)
    save_file({name: x.contiguous().clone() for name, x in state.items()}, weights)
    target.write_text(yaml.safe_dump(config | {"weights_path": str(weights)}), encoding="utf-8")
    return target


def build(config: Path) -> Any:
    """The model of a configuration; the package sets torch to one thread when imported, and uses two threads of its own."""
    import logging

    import torch

    before = torch.get_num_threads()
    from pocket_tts import TTSModel

    torch.set_num_threads(before)
    logging.getLogger("pocket_tts").setLevel(logging.ERROR)
    return TTSModel.load_model(config=str(config), eos_threshold=NEVER).eval()


def load(size: str, folder: Path, seconds: float = 5.0) -> tuple[Any, Any]:
    """The model, and its state after a prompt of noise."""
    import torch

    model = build(write(size, folder))
    return model, model.get_state_for_audio_prompt(0.1 * torch.randn(1, round(model.sample_rate * seconds)))


def alone(work: Callable[[], Any]) -> Any:
    """By one thread of torch, as the package sets it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work()
    finally:
        torch.set_num_threads(before)


def speaking(model: Any, state: Any, text: str) -> Run:
    """Seconds by second of sound."""

    def run(n: int) -> float:
        started, sound = time.perf_counter(), 0.0
        for _ in range(n):
            sound += len(alone(lambda: model.generate_audio(state, text))) / model.sample_rate
        return (time.perf_counter() - started) / sound

    return run


def first(model: Any, state: Any, text: str) -> Run:
    """Seconds until the first chunk of its stream; it is then told to stop, and waited for outside the time."""

    def once() -> float:
        started, enough = time.perf_counter(), threading.Event()
        stream: Iterator[Any] = model.generate_audio_stream(state, text, stop=enough)
        next(stream)
        taken = time.perf_counter() - started
        enough.set()
        for _ in stream:
            pass
        return taken

    return lambda n: sum(alone(once) for _ in range(n)) / n


def main(config: str, prompt: str, text: str, out: str) -> None:
    import soundfile

    model = build(Path(config))
    audio = model.generate_audio(model.get_state_for_audio_prompt(Path(prompt)), text)
    soundfile.write(out, audio.numpy(), model.sample_rate)


if __name__ == "__main__":
    main(*sys.argv[1:])
