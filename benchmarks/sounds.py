"""Codecs and vocoders beside their peers, of equal architecture and random weights: seconds by second of sound."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from harness import Pace, Row, absent, call, interleave, peer, threads
from torch import Tensor, nn

SECONDS = 5.0
VOCOS_NAMES = (  # ours, those of package vocos; longest first
    ("blocks.", "backbone.convnext."),
    (".conv.", ".dwconv."),
    (".expand.", ".pwconv1."),
    (".shrink.", ".pwconv2."),
    (".scale", ".gamma"),
    ("embed.", "backbone.embed."),
    ("final_norm.", "backbone.final_layer_norm."),
    ("out.", "head.out."),
)
ENCODEC_NAMES = (  # those of package encodec, of transformers
    (".model.", ".layers."),
    ("conv.conv.", "conv."),
    ("convtr.convtr.", "conv."),
    ("vq.layers", "layers"),
    ("_codebook", "codebook"),
    ("weight_g", "parametrizations.weight.original0"),
    ("weight_v", "parametrizations.weight.original1"),
)


def codec(pace: Pace = Pace(), threads_: int = 2, seconds: float = SECONDS) -> list[Row]:
    """EnCodec at 24 kHz, 6 kbit/s, there and back. Ours is an adapter of the package: what it adds is measured, no more."""
    package, transformers = peer("encodec"), peer("transformers")
    if package is None:
        return [Row("EnCodec, 24 kHz, 6 kbit/s", note=absent("encodec"))]
    from tts.codecs.encodec import EncodecCodec, EncodecConfig, EncodecDecoder

    from tts.frames import Wave

    with threads(threads_), torch.inference_mode(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the package's weight norm is an old one
        weights = Path(folder) / "encodec.th"
        theirs = package.EncodecModel.encodec_model_24khz(pretrained=False).eval()
        for layer in theirs.quantizer.vq.layers:
            layer._codebook.embed.normal_(std=0.1)  # zeros at the start: every code would be the first
        theirs.set_target_bandwidth(6.0)
        torch.save(theirs.state_dict(), weights)
        config = EncodecConfig(weights, bandwidth=6.0)
        ours, decoder = EncodecCodec(config), EncodecDecoder(config)
        sound = torch.randn(1, 1, round(24_000 * seconds)) * 0.1
        wave, codes = Wave(sound[0], torch.tensor([sound.shape[-1]]), 24_000), theirs.encode(sound)
        frames = ours.encode(wave)
        there: dict[str, Callable[[], Any]] = {"ours": lambda: ours.encode(wave), "encodec": lambda: theirs.encode(sound)}
        back: dict[str, Callable[[], Any]] = {
            "ours": lambda: decoder.decode(ours.embed(frames)),
            "encodec": lambda: theirs.decode(codes),
        }
        if transformers is not None:
            other = transformers.EncodecModel(transformers.EncodecConfig()).eval()
            other.load_state_dict({_renamed(name, ENCODEC_NAMES): x for name, x in theirs.state_dict().items()})
            told = other.encode(sound, bandwidth=6.0).audio_codes
            there["transformers"] = lambda: other.encode(sound, bandwidth=6.0)
            back["transformers"] = lambda: other.decode(told, [None])
        what = f"EnCodec, 24 kHz, 6 kbit/s, {seconds:g} s"
        return [_row(f"{what}, sound to codes", there, pace, seconds), _row(f"{what}, codes to sound", back, pace, seconds)]


def vocoder(pace: Pace = Pace(), threads_: int = 2, seconds: float = SECONDS, small: bool = False) -> list[Row]:
    """Vocos of the public 24 kHz checkpoint's sizes, HiFi-GAN V1's generator at 16 kHz. small: a few channels, to try it."""
    with threads(threads_), torch.inference_mode():
        return [_vocos(pace, seconds, small), _hifigan(pace, seconds, small)]


def _vocos(pace: Pace, seconds: float, small: bool) -> Row:
    from tts.vocoders.istft import Vocos, VocosConfig

    from tts.audio import MelRecipe

    heads, models = peer("vocos.heads"), peer("vocos.models")
    dim, wide, layers = (16, 32, 2) if small else (512, 1536, 8)
    recipe = MelRecipe(sample_rate=24_000, hop=256, bands=100, high=12_000.0, padding="center")
    ours = Vocos(VocosConfig(recipe, dim, wide, layers, n_fft=1024, padding="center")).eval()
    what = f"Vocos, mel at 24 kHz, {_millions(ours)}, {seconds:g} s"
    if heads is None or models is None:
        return Row(what, note=absent("vocos"))
    theirs = nn.ModuleDict(
        {
            "backbone": models.VocosBackbone(100, dim, wide, layers),
            "head": heads.ISTFTHead(dim, 1024, 256, "center"),
        }
    ).eval()
    state = ours.state_dict()
    renamed = {f"backbone.{name}" if name.startswith("norm.") else _renamed(name, VOCOS_NAMES): x for name, x in state.items()}
    theirs.load_state_dict(renamed, strict=False)  # but for the window, which is no weight of ours
    mel = torch.randn(1, 100, round(seconds * 24_000 / 256))
    runs = {"ours": lambda: ours(mel), "vocos": lambda: theirs["head"](theirs["backbone"](mel))}
    return _row(what, runs, pace, seconds)


def _hifigan(pace: Pace, seconds: float, small: bool) -> Row:
    from tts.vocoders.hifigan import HifiGan, HifiGanConfig, load_transformers_state

    from tts.audio import MelRecipe

    recipe = MelRecipe(hop=256)
    rates, kernels = (8, 8, 2, 2), (16, 16, 4, 4)  # V1's
    config = HifiGanConfig(recipe, channels=16 if small else 512, upsample_rates=rates, upsample_kernels=kernels)
    ours = HifiGan(config).eval()
    what, transformers = f"HiFi-GAN V1, mel at 16 kHz, {_millions(ours)}, {seconds:g} s", peer("transformers")
    if transformers is None:
        return Row(what, note=absent("transformers"))
    theirs = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            upsample_initial_channel=config.channels,
            upsample_rates=list(rates),
            upsample_kernel_sizes=list(kernels),
            resblock_kernel_sizes=list(config.resblock_kernels),
            resblock_dilation_sizes=[list(each) for each in config.resblock_dilations],
        )
    ).eval()
    ours.load_state_dict(load_transformers_state(theirs.state_dict()))
    mel = torch.randn(1, 80, round(seconds * 16_000 / 256))
    turned = mel.transpose(1, 2)
    return _row(what, {"ours": lambda: ours(mel), "transformers": lambda: theirs(turned)}, pace, seconds)


def _row(what: str, runs: Mapping[str, Callable[[], Tensor]], pace: Pace, seconds: float) -> Row:
    return Row(what, "s/s", interleave({name: call(run) for name, run in runs.items()}, pace, 1 / seconds))


def _millions(model: nn.Module) -> str:
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M"


def _renamed(name: str, names: tuple[tuple[str, str], ...]) -> str:
    for one, other in names:
        name = name.replace(one, other)
    return name
