"""MusicGen's language model as audiocraft and transformers speak it: the same scores and codes, each under its own names.

    audiocraft.safetensors    facebookresearch/audiocraft 896ec7c, audiocraft/models/lm.py, run unchanged on a CPU in float32
    musicgen.safetensors      transformers' MusicgenForCausalLM

Each holds a tiny model with random weights by its public names, what it was asked and what it said. Audiocraft's text came
from its own T5Conditioner around a tiny T5, its delays from its own pattern. Its scores are those of `forward`, with the text
and without; its codes those of `generate`: greedy, greedy after a prompt with guidance 3, and drawn with guidance 3 among 8
codes at temperature 1.2. Those draws were listened to, not replaced: it was written down where each code lies in the falling
cumulative probability that it was drawn from. The test marked `parity` makes the other file anew, with MYNAH_GOLDEN=write in
the environment for good.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tts.backends.ar.network import Text
from tts.decoding.scores import Scores
from tts.errors import CheckpointError
from tts.frames import Frames, FrameSpec, Plan, Prompt, Tokens, Utterance
from tts.hub.audiocraft import convert, load
from tts.sampling.philox import Purpose

FOLDER = Path(__file__).parent / "golden"
GOLDEN = FOLDER / "musicgen.safetensors"
K, V, STEPS, HEADS = 4, 24, 50, 2


def golden() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights by transformers' names, and text [1, L, D], codes [1, K, S], logits [1, K, S, V], greedy [1, K, S]."""
    tensors = load_file(GOLDEN)
    given = ("text", "codes", "logits", "greedy")
    return {name: x for name, x in tensors.items() if name not in given}, {name: tensors[name] for name in given}


def audiocraft() -> tuple[Any, dict[str, Tensor]]:
    """The backend of audiocraft's own weights, and text [L, C], steps [K, S], logits [2, K, S, V], prompt, codes and tape."""
    tensors = load_file(FOLDER / "audiocraft.safetensors")
    weights = {name.removeprefix("weights."): x for name, x in tensors.items() if name.startswith("weights.")}
    return load(weights, HEADS), tensors


class Tape:
    """Noise that was written down, [K, T]."""

    def __init__(self, draws: Tensor) -> None:
        self.draws = draws

    def uniform(self, seeds: Tensor, purpose: Purpose, step: int, position: Tensor, channel: Tensor) -> Tensor:
        _, frames, books = torch.broadcast_tensors(seeds, position, channel)
        if purpose == Purpose.POINTER:  # which nothing here listens to
            return torch.full(frames.shape, 0.5)
        return self.draws[books, frames.clamp(max=self.draws.shape[1] - 1)]


def asked(backend: Any, text: Tensor, T: int, prompt: Tensor | None = None) -> Utterance:
    """T frames of a text [L, C] after a prompt [K, P]."""
    content = Frames(text.T[None], torch.tensor([len(text)]), FrameSpec("latents", text.shape[1], backend.emits.rate))
    given = None
    if prompt is not None:
        P = prompt.shape[1]
        frames = {"codes": Frames(prompt[None], torch.tensor([P]), backend.emits)}
        given = Prompt(frames, Tokens.of([[]], ""), torch.tensor([P / 50]))
    seeds = torch.zeros(1, dtype=torch.int64)
    return Utterance(Tokens.of([[]], ""), seeds, given, Plan(torch.tensor([T / 50])), content=content)


def whole_logits(backend: Any, codes: Tensor, text: Tensor) -> Tensor:
    """[B, K, S, V] of steps [B, K, S] that are read one after another, whatever they are."""
    network = backend.network
    read = network.read_vectors(text, torch.ones(text.shape[:2]).bool())
    hidden = network(codes, None, read)
    return network.head(hidden.flatten(0, 1)).view(*hidden.shape[:2], K, V).transpose(1, 2)


def greedy_steps(backend: Any, text: Tensor) -> Tensor:
    """[1, K, STEPS] as the delays lay them, one step after another with a cache."""
    network = backend.network
    read = network.read_vectors(text, torch.ones(text.shape[:2]).bool())
    nothing = torch.full((1, K, 1), V)
    scores, cache = network.start(nothing, torch.ones(1).long(), None, read, STEPS + 1)
    said = []
    for s in range(STEPS):
        said.append(likeliest(scores, s))
        scores = network.step(said[-1], None, cache)
    return torch.stack(said, -1)


def likeliest(scores: Scores, s: int) -> Tensor:
    assert scores.logits is not None
    return scores.logits.argmax(-1).where(torch.arange(K) <= s, V)


@torch.no_grad()
def test_scores_are_audiocrafts_with_the_text_and_without() -> None:
    backend, said = audiocraft()
    network, steps = backend.network, said["steps"].expand(2, -1, -1)
    text = network.read_vectors(said["text"][None], torch.ones(1, len(said["text"])).bool())
    text = Text(*(torch.cat((x, torch.zeros_like(x))) for x in (text.vectors, text.known)))
    hidden = network(steps, None, text)
    logits = network.head(hidden.flatten(0, 1)).view(2, -1, K, V).transpose(1, 2)
    assert torch.allclose(logits, said["logits"], atol=1e-4)
    assert not torch.allclose(logits[0], logits[1], atol=0.1)


def test_codes_are_audiocrafts_greedy_and_after_a_prompt_with_guidance() -> None:
    backend, said = audiocraft()
    alone = backend.generate(asked(backend, said["text"], STEPS), {"temperature": 0.0, "guidance": 1.0})
    assert torch.equal(alone.data[0], said["greedy"])  # among them one said 38 times on end, which is no loop to be left
    after = asked(backend, said["text"], STEPS, said["prompt"])
    assert torch.equal(backend.generate(after, {"temperature": 0.0, "guidance": 3.0}).data[0], said["guided"])


def test_by_the_same_chances_the_codes_are_audiocrafts() -> None:
    backend, said = audiocraft()
    backend.noise = Tape(said["tape"])
    made = backend.generate(asked(backend, said["text"], STEPS), {"temperature": 1.2, "top_k": 8, "guidance": 3.0})
    assert torch.equal(made.data[0], said["drawn"])


@torch.no_grad()
def test_scores_and_greedy_codes_are_those_of_the_golden_file() -> None:
    weights, said = golden()
    backend = load(weights, HEADS)
    assert torch.allclose(whole_logits(backend, said["codes"], said["text"]), said["logits"], atol=1e-4)
    assert torch.equal(greedy_steps(backend, said["text"]), said["greedy"])


@torch.no_grad()
def test_the_backend_itself_says_those_codes_from_content() -> None:
    weights, said = golden()
    backend = load(weights, HEADS)
    frames = STEPS - 3  # those that are complete
    made = backend.generate(asked(backend, said["text"][0], frames), {"temperature": 0.0, "guidance": 1.0})
    assert torch.equal(made.data, torch.stack([said["greedy"][:, k, k : k + frames] for k in range(K)], 1))


def test_the_names_of_a_whole_model_are_known_and_others_are_told() -> None:
    weights, _ = golden()
    whole = {f"decoder.{name}": x for name, x in weights.items()} | {"text_encoder.shared.weight": torch.zeros(1)}
    whole |= {"enc_to_dec_proj.weight": torch.zeros(16, 12), "enc_to_dec_proj.bias": torch.zeros(16)}
    config, _ = convert(whole, HEADS)
    assert (config["text_dim"], config["codebooks"], config["size"], config["depth"]) == (12, K, V, 2)
    with pytest.raises(CheckpointError, match=r"out_norm\.weight is missing"):
        convert({name: x for name, x in weights.items() if "decoder.layer_norm" not in name}, HEADS)
    with pytest.raises(CheckpointError, match=r"model\.decoder\.other is unknown"):
        convert(weights | {"model.decoder.other": torch.zeros(1)}, HEADS)
    with pytest.raises(CheckpointError, match="needs q, k and v"):
        convert({name: x for name, x in weights.items() if "layers.0.self_attn.q_proj" not in name}, HEADS)


@pytest.mark.parity
@torch.no_grad()
def test_scores_and_greedy_codes_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": HEADS, "ffn_dim": 48, "initializer_factor": 0.5}
    ids = {"vocab_size": V, "num_codebooks": K, "pad_token_id": V, "bos_token_id": V, "max_position_embeddings": 64}
    theirs = transformers.MusicgenForCausalLM(transformers.MusicgenDecoderConfig(**sizes, **ids)).eval()
    weights = {name: x.clone() for name, x in theirs.state_dict().items() if not name.endswith("embed_positions.weights")}
    ours = load(weights, HEADS)
    text, codes = torch.randn(1, 5, 16), torch.randint(0, V + 1, (1, K, 12))

    def logits(steps: Tensor) -> Tensor:
        return theirs(input_ids=steps[0], encoder_hidden_states=text).logits.view(1, K, -1, V)

    expected = logits(codes)
    assert torch.allclose(whole_logits(ours, codes, text), expected, atol=1e-4)
    read = torch.full((1, K, 1), V)
    for s in range(STEPS):
        read = torch.cat((read, likeliest(Scores(text, logits(read)[:, :, -1], {}), s)[..., None]), -1)
    greedy = read[..., 1:]
    assert torch.equal(greedy_steps(ours, text), greedy)
    if os.environ.get("MYNAH_GOLDEN") == "write":
        GOLDEN.parent.mkdir(exist_ok=True)
        said = {"text": text, "codes": codes, "logits": expected, "greedy": greedy}
        save_file({name: x.contiguous() for name, x in (weights | said).items()}, GOLDEN)
