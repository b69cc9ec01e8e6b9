"""Sound in and out: load, save, resample, trim, loudness, mel."""

from __future__ import annotations

import io
import json
import math
import os
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tts.errors import OutputError, PromptError, SettingsError
from tts.files import write_whole
from tts.frames import Frames, FrameSpec, Wave
from tts.recording import SECONDS, load

LOUDNESS = -23.0  # LUFS, the level of EBU R 128
PEAK = 0.99  # `level` never amplifies beyond this
MARGIN = 0.1  # seconds of silence that `trim` leaves on both sides
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}


@dataclass(frozen=True)
class MelRecipe:
    """Every number of a log-mel spectrogram; the default is the house's mel, 50 frames a second.

    padding "same": (win_length - hop) / 2 samples are mirrored on both sides, so N samples give ceil(N / hop) frames and
    frame t is centred on samples [t * hop, (t + 1) * hop). "center" (torch.stft's, which Vocos and F5 use) mirrors
    n_fft / 2 and gives N // hop + 1 frames centred on t * hop.
    """

    sample_rate: int = 16_000  # Hz
    n_fft: int = 1024
    win_length: int = 1024  # samples
    hop: int = 320  # samples
    bands: int = 80
    low: float = 0.0  # Hz
    high: float = 8_000.0  # Hz
    scale: str = "htk"  # or "slaney"
    power: int = 1  # 1: magnitude, 2: power
    floor: float = 1e-5  # the natural logarithm is taken of max(value, floor)
    padding: str = "same"  # or "center"

    def __post_init__(self) -> None:
        for name, legal in (("scale", ("htk", "slaney")), ("padding", ("same", "center"))):
            if getattr(self, name) not in legal:
                raise SettingsError(f"{name} of a mel must be one of {', '.join(legal)}, got {getattr(self, name)!r}")

    @property
    def spec(self) -> FrameSpec:
        flavour = (
            f"log-mel {self.sample_rate} Hz, n_fft {self.n_fft}, window {self.win_length}, hop {self.hop}, {self.bands} "
            f"{self.scale} bands {self.low:g}-{self.high:g} Hz, power {self.power}, floor {self.floor:g}, {self.padding}"
        )
        return FrameSpec("mel", self.bands, Fraction(self.sample_rate, self.hop), flavour=flavour)


@lru_cache(maxsize=8)
def mel_filters(recipe: MelRecipe) -> tuple[Tensor, Tensor]:
    """The window [win_length] and the filterbank [n_fft // 2 + 1, bands] of a recipe, on the CPU."""
    with torch.inference_mode(False):  # they are kept for later callers, who may want gradients through them
        low, high = _to_mel(recipe.low, recipe.scale), _to_mel(recipe.high, recipe.scale)
        edges = _to_hertz(torch.linspace(low, high, recipe.bands + 2), recipe.scale)  # of the triangles, in Hz
        hertz = torch.linspace(0, recipe.sample_rate // 2, recipe.n_fft // 2 + 1)[:, None]  # of the bins
        rise = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
        fall = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
        return torch.hann_window(recipe.win_length), torch.minimum(rise, fall).clamp(min=0)


# Not torchaudio's filterbank, which these equal: a machine that only trains has torch alone.
def _to_mel(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 2595 * math.log10(1 + hertz / 700)
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def _to_hertz(mel: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return torch.where(mel < 15, 200 / 3 * mel, 1000 * torch.exp(math.log(6.4) / 27 * (mel - 15)))


def log_mel(samples: Tensor, recipe: MelRecipe = MelRecipe()) -> Tensor:
    """Natural-log mel spectrogram.

    Args:
        samples: [B, N] float32 at recipe.sample_rate.
    Returns:
        [B, bands, T] float32; T = ceil(N / hop) for "same", N // hop + 1 for "center".
    """
    window, filters = (x.to(samples.device) for x in mel_filters(recipe))
    if recipe.padding == "same":
        edge = (recipe.win_length - recipe.hop) // 2
        samples = F.pad(samples, (0, -samples.shape[-1] % recipe.hop))
        mode = "reflect" if samples.shape[-1] > edge else "constant"
        samples = F.pad(samples[:, None], (edge, edge), mode=mode)[:, 0]
    spectrum = torch.stft(
        samples,
        recipe.n_fft,
        recipe.hop,
        recipe.win_length,
        window,
        center=recipe.padding == "center",
        return_complex=True,
    ).abs()  # [B, n_fft // 2 + 1, T]
    if recipe.power != 1:
        spectrum = spectrum.pow(recipe.power)
    mel = filters.T @ spectrum  # [B, bands, T]
    return mel.clamp(min=recipe.floor).log()


class MelEncoder:
    """The mel as an Encoder: waves to log-mel frames."""

    def __init__(self, config: MelRecipe = MelRecipe()) -> None:
        self.recipe = config
        self.emits = config.spec

    def encode(self, wave: Wave) -> Frames:
        """Samples [B, N] at the recipe's rate to mel frames [B, bands, T]; padding beyond a row's length reads as silence."""
        assert wave.sample_rate == self.recipe.sample_rate, (wave.sample_rate, self.recipe.sample_rate)
        hop = self.recipe.hop
        extra = 1 if self.recipe.padding == "center" else 0
        lengths = wave.lengths // hop + 1 if extra else -(-wave.lengths // hop)
        return Frames(log_mel(wave.samples, self.recipe), lengths, self.emits)


def read_prompt(source: Any, rate: int) -> tuple[Tensor, list[str]]:
    """Everything between a person's recording and an encoder: load, resample, trim, level.

    Args:
        source: what `load` takes, or a list of such recordings of one speaker, which are joined in order.
        rate: the sample rate wanted, in Hz.
    Returns:
        samples [N] float32 at `rate`, and sentences on what will cost quality.
    Raises:
        PromptError: as `load`, or the list is empty or too long together.
    """
    sources = source if isinstance(source, list) else [source]
    if not sources:
        raise PromptError("the list of recordings is empty; give one recording or more, or None for the built-in voice")
    parts: list[Tensor] = []
    warnings: list[str] = []
    for number, one in enumerate(sources, start=1):
        samples, given, complaints = load(one)
        samples = level(trim(resample(samples, given, rate), rate), rate)
        parts.append(samples)
        name = "The recording" if len(sources) == 1 else f"Recording {number}"
        warnings += [complaint.replace("The recording", name, 1) for complaint in complaints]
    joined = torch.cat(parts)
    seconds = len(joined) / rate
    if seconds > SECONDS[1]:
        raise PromptError(
            f"{len(sources)} recordings with {seconds / 60:.1f} minutes of speech; "
            f"{SECONDS[1] / 60:g} minutes are accepted, and 3 to 12 seconds are best"
        )
    if seconds < 2.0:
        warnings.append(f"There are only {seconds:.1f} seconds of speech to copy the voice from; 3 to 12 are better.")
    return joined, warnings


def resample(samples: Tensor, old: int, new: int) -> Tensor:
    """Samples [..., N] at `old` Hz to `new` Hz, band-limited (torchaudio's windowed sinc); ceil(N * new / old) of them.

    The filter grows with the terms of new / old, so a ratio such as 16000 / 44099 is taken as the nearest one with a
    denominator up to 1000: the pitch is then off by less than 0.01 %.
    """
    ratio = Fraction(new, old).limit_denominator(1000)
    if ratio == 1:
        return samples
    from torchaudio.functional import resample as sinc_resample

    return sinc_resample(samples, ratio.denominator, ratio.numerator)


def trim(samples: Tensor, rate: int, below_db: float = 40.0) -> Tensor:
    """Cut what is `below_db` quieter than the loudest 50 ms from both ends of a recording [N], but leave MARGIN seconds.

    The first call in a process imports librosa, which takes about 1.5 seconds on a laptop.
    """
    from librosa.effects import trim as find_speech

    _, (start, end) = find_speech(samples.numpy(), top_db=below_db, frame_length=rate // 20, hop_length=rate // 100)
    margin = round(MARGIN * rate)
    return samples[max(0, start - margin) : end + margin]


def level(samples: Tensor, rate: int, lufs: float = LOUDNESS) -> Tensor:
    """Bring a recording [N] to an integrated loudness, limited so that no sample passes PEAK. Digital silence stays so."""
    peak = float(samples.abs().max()) if samples.numel() else 0.0
    if peak == 0.0:
        return samples
    return samples * min(10.0 ** ((lufs - loudness(samples, rate)) / 20.0), PEAK / peak)


def loudness(samples: Tensor, rate: int) -> float:
    """Integrated loudness of a recording [N], in LUFS (ITU-R BS.1770-4); of digital silence -inf.

    What is shorter than one block of that meter (0.4 s), or quieter than its gate, is measured by its plain mean square.
    """
    found = -float("inf")
    if samples.numel() >= 0.4 * rate:
        import pyloudnorm

        found = float(pyloudnorm.Meter(rate).integrated_loudness(samples.double().numpy()))
    if not math.isfinite(found) and samples.numel():
        found = -0.691 + 10.0 * float(samples.double().square().mean().log10())
    return found


def save(path: str | os.PathLike[str], samples: Tensor, rate: int, **provenance: Any) -> Path:
    """Write samples [N] (or [N, channels]) as wav, flac, ogg, opus or mp3, whichever the extension says.

    The file appears whole or not at all. `provenance` (model, seed, settings, …) is written into its comment as JSON.

    Raises:
        OutputError: the extension or the rate is not one of the format's, or the path cannot be written.
    """
    path = Path(path)
    write_whole(path, encode(samples, rate, path.suffix.lower(), name=str(path), provenance=provenance))
    return path


def encode(samples: Tensor, rate: int, extension: str, *, name: str = "the sound", provenance: dict[str, Any]) -> bytes:
    """What `save` writes into a file; extension: such as ".wav". name: what to call it in an error. Raises OutputError."""
    import numpy as np
    import soundfile

    if extension not in FORMATS:
        raise OutputError(f"{name} must end in one of {', '.join(FORMATS)}, got {extension or 'no extension'!r}")
    container, subtype = FORMATS[extension]
    data = np.asarray(samples.detach().cpu() if isinstance(samples, Tensor) else samples, dtype=np.float32).clip(-1.0, 1.0)
    if subtype == "PCM_16":  # libsndfile divides by 32768 and multiplies by 32767; what is read and written shall stay the same
        data = np.rint(data * 32768.0).clip(-32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    try:
        channels = 1 if data.ndim == 1 else data.shape[1]
        with soundfile.SoundFile(buffer, "w", rate, channels, subtype, format=container) as sound:
            if provenance:
                sound.comment = json.dumps(provenance, sort_keys=True, default=str)
            sound.write(data)
    except soundfile.LibsndfileError as error:
        raise OutputError(
            f"{name}: {container} cannot hold {channels} channels at {rate} Hz ({error.error_string}); try .wav"
        ) from error
    return buffer.getvalue()
