"""EnCodec's 24 kHz model as a Codec and a Vocoder: an adapter on the package `encodec`, with weights that the user has.

    wave ─► SEANet encoder ─► residual quantizer ─► codes [B, K, T] at 75 Hz, V = 1024 ─► latents [B, 128, T] ─► decoder ─► wave

Nothing is downloaded. The 48 kHz model is left out: it is stereo, cuts sound into seconds that it normalises and cross-fades,
and so has no codes that a backend could read frame by frame.
Source: Défossez et al. 2022, "High fidelity neural audio compression" (arXiv:2210.13438).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from sys import maxsize
from typing import Any

import torch
from torch import Tensor
from tts.codecs.checks import check_codes, check_wave

from tts.errors import CheckpointError, MissingPackageError, SettingsError
from tts.frames import Frames, FrameSpec, Wave, check_fit

SAMPLE_RATE = 24_000  # Hz
HOP = 320  # samples
SIZE = 1024  # codes in a codebook
CODEBOOKS = {1.5: 2, 3.0: 4, 6.0: 8, 12.0: 16, 24.0: 32}  # by kbit/s
LATENTS = FrameSpec("latents", 128, Fraction(SAMPLE_RATE, HOP), flavour="EnCodec 24 kHz")
SOURCE = "https://dl.fbaipublicfiles.com/encodec/v0/encodec_24khz-d7cc33bc.th"


@dataclass(frozen=True)
class EncodecConfig:
    """weights: the file of the 24 kHz model as its makers publish it. bandwidth: 1.5, 3, 6, 12 or 24 kbit/s."""

    weights: Path | None = None
    bandwidth: float = 6.0

    def __post_init__(self) -> None:
        if self.bandwidth not in CODEBOOKS:
            legal = ", ".join(f"{rate:g}" for rate in CODEBOOKS)
            raise SettingsError(f"bandwidth must be one of {legal} kbit/s, got {self.bandwidth:g}")


class EncodecCodec:
    """A Codec. Not a module, so that a system's folder holds no copy of the weights; it computes where its input lies."""

    def __init__(self, config: EncodecConfig = EncodecConfig()) -> None:
        """Raises MissingPackageError, or CheckpointError where the weights are not given or not those of the model."""
        model = load_encodec(config.weights)
        self.config = config
        self.sample_rate = SAMPLE_RATE
        self.encoder, self.quantizer = model.encoder, model.quantizer.vq
        K = CODEBOOKS[config.bandwidth]
        self.emits = FrameSpec("codes", K, LATENTS.rate, (SIZE,) * K, LATENTS.flavour)
        self.embeds = LATENTS
        self.context = (0, 0)  # frames that a latent depends on beside its own code

    @torch.no_grad()
    def encode(self, wave: Wave) -> Frames:
        """A wave at 24 kHz to codes [B, K, T], lengths ceil(N / 320). Raises FitError (the rate), InputError (no samples).

        Row by row, since the encoder mirrors the end of what it is given.
        """
        check_wave(wave, SAMPLE_RATE)
        self.encoder.to(wave.samples.device)
        self.quantizer.to(wave.samples.device)
        lengths = -(-wave.lengths // HOP)
        codes = wave.samples.new_zeros(len(lengths), self.emits.width, int(lengths.max()), dtype=torch.int64)
        for row, samples, N in zip(codes, wave.samples, wave.lengths.tolist(), strict=True):
            found = self.quantizer.encode(self.encoder(samples[None, None, :N]), n_q=self.emits.width)  # [K, 1, T]
            row[:, : found.shape[-1]] = found[:, 0]
        return Frames(codes, lengths, self.emits)

    @torch.no_grad()
    def embed(self, codes: Frames, n_codebooks: int | None = None) -> Frames:
        """Codes to latents [B, 128, T]: the sum of the vectors of the first n_codebooks. Raises as `check_codes`."""
        data = check_codes(codes, self.emits, n_codebooks)
        self.quantizer.to(data.device)
        return Frames(self.quantizer.decode(data.transpose(0, 1)), codes.lengths, self.embeds)

    def vectors(self, k: int) -> Tensor:
        """Codebook k as [V, 128]."""
        vectors: Tensor = self.quantizer.layers[k].codebook
        return vectors


class EncodecDecoder:
    """A Vocoder of EnCodec's latents.

    Its two LSTM layers remember everything, so the context to the left has no bound; to the right it is that of the first
    convolution, which mirrors the first frames.
    """

    def __init__(self, config: EncodecConfig = EncodecConfig()) -> None:
        """Raises as EncodecCodec."""
        self.config = config
        self.sample_rate = SAMPLE_RATE
        self.accepts = LATENTS
        self.context = (maxsize, 6)
        self.decoder = load_encodec(config.weights).decoder

    @torch.no_grad()
    def decode(self, frames: Frames) -> Wave:
        """Latents to a wave of 320 samples a frame. Raises FitError for frames of another spec."""
        check_fit("these frames", frames.spec, "the vocoder", self.accepts)
        self.decoder.to(frames.data.device)
        samples = frames.data.new_zeros(len(frames.data), frames.data.shape[-1] * HOP)
        for row, latents, T in zip(samples, frames.data, frames.lengths.tolist(), strict=True):
            if T:
                row[: T * HOP] = self.decoder(latents[None, :, :T])[0, 0]
        return Wave(samples.clamp(-1, 1), frames.lengths * HOP, SAMPLE_RATE)


def load_encodec(weights: Path | None) -> Any:
    """The package's EncodecModel at 24 kHz, in evaluation mode, with the weights of a file.

    Raises:
        MissingPackageError: the package is not installed.
        CheckpointError: no file is given, or it is missing, broken, or of another model (such as the one at 48 kHz).
    """
    try:
        from encodec import EncodecModel
    except ImportError as error:
        raise MissingPackageError("the EnCodec adapter needs: pip install encodec") from error
    advice = f"get {SOURCE} and give its path as `weights`"
    if weights is None:
        raise CheckpointError(f"EnCodec's weights are not part of Mynah; {advice}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the package's weight norm is an old one
        model = EncodecModel.encodec_model_24khz(pretrained=False)
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except OSError as error:
        raise CheckpointError(f"{weights} cannot be read ({error.strerror}); {advice}") from error
    except (RuntimeError, EOFError, TypeError, ValueError, LookupError, torch.serialization.pickle.UnpicklingError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{weights} does not hold the weights of EnCodec's 24 kHz model ({why}); {advice}") from error
    return model.eval().requires_grad_(False)
