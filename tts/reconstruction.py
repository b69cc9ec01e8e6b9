"""Sound through a codec and a vocoder and back: the copy that no backend's speech can be better than.

wave ─┬─► encoder ─► frames ──────────────────────────────────────┬─► vocoder ─► wave
      └─► codec: encode ─► codes [B, K, T] ─► embed n of K books ─┘
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tts.clock import Clock
from tts.errors import SettingsError
from tts.frames import FrameSpec, Wave, check_fit
from tts.interfaces import Codec, Encoder, Vocoder, samples_per_frame

# Long recordings are copied piece by piece. Pieces, and what they see of their neighbours, are multiples of GRID frames, so
# that the strides of a codec fall where they would in the whole.
PIECE = 1024  # frames; 20 seconds of base-en's mel
GRID = 64  # frames
VIEW = 128  # frames to either side that an encoder may need; of decoding, codecs and vocoders declare how many


@torch.inference_mode()
def reconstruct(
    samples: Tensor,
    encoder: Encoder,
    vocoder: Vocoder,
    codec: Codec | None = None,
    n_codebooks: int | None = None,
    clock: Clock | None = None,
) -> Tensor:
    """A copy of a recording, sample beside sample; the networks' memory does not grow with its length.

    Args:
        samples: [N] float32 at the vocoder's sample rate, N at least 1.
        n_codebooks: see `count_codebooks`; with 0 the codec is left out.
        clock: is told of the stages "encoder" or "codec", and "vocoder".
    Returns:
        [N] float32, on the device of `samples`.
    Raises:
        SettingsError: as `count_codebooks`. FitError: what comes to the vocoder is not what it takes.
    """
    clock = clock if clock is not None else Clock()
    n = count_codebooks(codec, n_codebooks)
    used = codec if n else None
    if used is not None:
        check_fit("the codec", used.embeds, "the vocoder", vocoder.accepts)
    else:
        check_fit("the encoder", encoder.emits, "the vocoder", vocoder.accepts)
    rate, N = vocoder.sample_rate, len(samples)
    hop = samples_per_frame(rate, vocoder.accepts.rate)
    contexts = zip(vocoder.context, used.context if used is not None else (0, 0), strict=True)
    before, after = (-(-(VIEW + sum(sides)) // GRID) * GRID * hop for sides in contexts)  # samples
    copies = []
    for start in range(0, N, PIECE * hop):
        end = min(start + PIECE * hop, N)
        first, last = max(start - before, 0), min(end + after, N)
        wave = Wave(samples[None, first:last], torch.tensor([last - first], device=samples.device), rate)
        with clock("encoder" if used is None else "codec"):
            frames = encoder.encode(wave) if used is None else used.embed(used.encode(wave), n)
        with clock("vocoder"):
            copy = vocoder.decode(frames).samples[0].float()
        copies.append(copy[start - first : end - first])
    copied = torch.cat(copies)
    return F.pad(copied, (0, N - len(copied)))  # on a "center" grid a vocoder leaves out what follows the last frame


def count_codebooks(codec: Codec | None, n_codebooks: int | None) -> int:
    """How many codebooks are meant: None is all of them, 0 none of them, which is the vocoder alone.

    Raises SettingsError: n_codebooks is not one of 0..K, or there is no codec and it is not 0.
    """
    if codec is None:
        if n_codebooks == 0:
            return 0
        raise SettingsError("this system has no codec; give n_codebooks=0, for the vocoder alone, or a system that has one")
    K = codec.emits.width
    if n_codebooks is None:
        return K
    if isinstance(n_codebooks, bool) or not isinstance(n_codebooks, int) or not 0 <= n_codebooks <= K:
        raise SettingsError(f"n_codebooks must be 1..{K}, or 0 for the vocoder alone, got {n_codebooks!r}")
    return n_codebooks


def bits_per_second(codes: FrameSpec, n_codebooks: int) -> float:
    """What the first n_codebooks take when a code of V takes log2 V bits."""
    return float(codes.rate) * sum(math.log2(V) for V in codes.sizes[:n_codebooks])
