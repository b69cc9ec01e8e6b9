"""MusicGen's language model in our words: the same scores and the same greedy codes, under both families of names.

The golden file holds a tiny decoder of transformers with random weights, what it was asked and what it said; the test marked
`parity` makes it anew, with MYNAH_GOLDEN=write in the environment for good.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tts.decoding.scores import Scores
from tts.errors import CheckpointError
from tts.frames import Frames, FrameSpec, Plan, Tokens, Utterance
from tts.hub.audiocraft import convert, from_transformers, load

GOLDEN = Path(__file__).parent / "golden" / "musicgen.safetensors"
K, V, STEPS, HEADS = 4, 24, 50, 2


def golden() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights by transformers' names, and text [1, L, D], codes [1, K, S], logits [1, K, S, V], greedy [1, K, S]."""
    tensors = load_file(GOLDEN)
    given = ("text", "codes", "logits", "greedy")
    return {name: x for name, x in tensors.items() if name not in given}, {name: tensors[name] for name in given}


def as_audiocraft(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As a file of audiocraft's has them, with the projection of its text that a bare decoder lacks."""
    renamed = from_transformers(state)
    prefix = "condition_provider.conditioners.description.output_proj"
    return renamed | {f"{prefix}.weight": torch.eye(16), f"{prefix}.bias": torch.zeros(16)}


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
@pytest.mark.parametrize("names", [dict, as_audiocraft])
def test_scores_and_greedy_codes_are_those_of_the_golden_file(names: Any) -> None:
    weights, said = golden()
    backend = load(names(weights), HEADS)
    assert torch.allclose(whole_logits(backend, said["codes"], said["text"]), said["logits"], atol=1e-4)
    assert torch.equal(greedy_steps(backend, said["text"]), said["greedy"])


@torch.no_grad()
def test_the_backend_itself_says_those_codes_from_content() -> None:
    weights, said = golden()
    backend = load(weights, HEADS)
    frames = STEPS - 3  # those that are complete
    text = Frames(
        said["text"].transpose(1, 2), torch.tensor([said["text"].shape[1]]), FrameSpec("latents", 16, backend.emits.rate)
    )
    asked = Utterance(Tokens.of([[]], ""), torch.zeros(1).long(), plan=Plan(torch.tensor([frames / 50])), content=text)
    made = backend.generate(asked, {"temperature": 0.0, "guidance": 1.0})
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
