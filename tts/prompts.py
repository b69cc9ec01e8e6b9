"""A recording becomes a voice: its mel, its phones and where they lie.

recording ─► read_prompt ─► mel ─► posteriors ─┬─ prompt_text known ─► align ─┐
                                               └─ not known ────────► read ───┴─► tokens on frames ─► the best 12 s ─► codes
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tts.asr.align import align, read, with_commas
from tts.asr.phone_lm import PhoneLm, read_with_lm
from tts.audio import read_prompt
from tts.errors import TextError
from tts.frames import Frames, Prompt, Tokens, Wave
from tts.interfaces import Encoder, FrameCodec, FrontEnd, Recognizer

# By how much (nats a frame) the path through a transcript may be less likely than the best free path: with what is really said
# it is 0.4 or less, with half of it or something else 0.9 or more.
MISFIT = 0.7
UNCLEAR = 0.3  # confidence of a reading below which the recording hardly holds speech
SPARSE = 2.0  # phones a second, likewise: of speech 5 to 15 are heard, of noise or a tone about one
QUIET_FRAMES = 8  # without a phone: a silence long enough to cut in
KEPT = 64  # encoded prompts that are remembered


@dataclass(frozen=True)
class EncodedPrompt:
    """A voice ready for use: what `Synthesizer.encode_prompt` gives, and `synthesize` takes in place of a recording.

    prompt: one row, with `token_frames`. seconds: how long it is. warnings: sentences on what will cost quality.
    """

    prompt: Prompt
    seconds: float
    warnings: tuple[str, ...] = ()


class PromptEncoder:
    """The parts that hear a prompt. May be used from several threads; the last prompts are remembered by their content."""

    def __init__(
        self,
        encoder: Encoder,
        recognizer: Recognizer,
        front_end: FrontEnd,
        sample_rate: int,
        longest: float = 12.0,
        device: str | torch.device = "cpu",
        codec: FrameCodec | None = None,
        phone_lm: PhoneLm | None = None,
    ) -> None:
        """sample_rate: that of the encoder, in Hz. longest: seconds that are used of a prompt. device: the recognizer's.
        codec: where the prompt's codes are wanted. phone_lm: what reads a prompt without a text; None: the recognizer alone."""
        self.encoder, self.recognizer, self.front_end = encoder, recognizer, front_end
        self.sample_rate, self.longest, self.device, self.codec = sample_rate, longest, device, codec
        self.phone_lm = phone_lm
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, ...], EncodedPrompt] = OrderedDict()

    def encode(self, source: Any, prompt_text: str | None, language: str) -> EncodedPrompt:
        """A recording, or a list of them, as `tts.audio.read_prompt` takes it.

        Args:
            prompt_text: what is said in it; None: the recognizer reads its phones. language: of prompt_text.
        Raises:
            PromptError: the recording cannot be used. TextError: nothing in prompt_text can be pronounced.
        """
        samples, warnings = read_prompt(source, self.sample_rate)
        content = hashlib.sha256(samples.numpy().tobytes()).hexdigest()
        key = (content, repr(prompt_text), language, *warnings)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        encoded = self._encode(Wave.of(samples, self.sample_rate), prompt_text, language, warnings)
        with self._lock:
            self._known[key] = encoded
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return encoded

    @torch.inference_mode()
    def _encode(self, wave: Wave, prompt_text: str | None, language: str, warnings: list[str]) -> EncodedPrompt:
        # 1. hear
        mel = moved(self.encoder.encode(wave), self.device)
        log_probs = self.recognizer.posteriors(mel).data[0].T.float().cpu()  # [T, V]
        # 2. which phones, on which frames
        tokens, frames, complaints = self._phones(log_probs, prompt_text, language)
        # 3. the best part of what is too long
        T, rate = len(log_probs), float(mel.spec.rate)
        most = int(self.longest * rate)
        if most < T:
            start, end = best_window(log_probs, most)
            tokens, frames = cut(tokens, frames, start, end)
            mel = Frames(mel.data[:, :, start:end].contiguous(), torch.full_like(mel.lengths, end - start), mel.spec)
            complaints.append(
                f"The recording has {T / rate:.1f} seconds of speech; the clearest {(end - start) / rate:.1f} of them are used."
            )
        voice = EncodedPrompt(*one_row(mel, tokens, frames, self.front_end.table), (*warnings, *complaints))
        return with_codes(voice, self.codec)

    def _phones(self, log_probs: Tensor, text: str | None, language: str) -> tuple[list[int], list[int], list[str]]:
        """Tokens, frames of each, and complaints."""
        complaints = []
        rate = float(self.recognizer.accepts.rate)
        if text is not None:
            try:
                asked = [token for token in self.front_end.encode(text, language) if isinstance(token, int)]
            except TextError as error:
                raise TextError(f"prompt_text: {error}; or leave it out, and the recording is read") from error
            found = align(log_probs, asked, rate)
            free = float(log_probs.max(1).values.mean())
            if found is not None and free - found.score <= MISFIT:
                return with_commas(asked, found.frames, rate), found.frames, []
            complaints.append("The prompt's text does not seem to be what is said in it, so its phones were read instead.")
        heard = read(log_probs, rate) if self.phone_lm is None else read_with_lm(log_probs, self.phone_lm, rate=rate)
        seconds = len(log_probs) / rate
        if heard.confidence < UNCLEAR or heard.phones < SPARSE * seconds:
            complaints.append(
                "Hardly any speech is heard in the recording; one clear voice, close to the microphone, is better."
            )
        return heard.tokens, heard.frames, complaints


def best_window(log_probs: Tensor, most: int) -> tuple[int, int]:
    """Where the clearest part of a long recording lies.

    Args:
        log_probs: [T, V] log-posteriors, blank first. most: frames, fewer than T.
    Returns:
        (first frame, last frame + 1), at most `most` frames, that hold the most confident speech: the sum of the posteriors of
        all frames with a phone is the greatest. Cut in the middles of silences, where there are any.
    """
    values, labels = log_probs.max(1)
    T, speaks = len(labels), labels > 0
    clear = torch.cat([torch.zeros(1, dtype=torch.float64), (values.exp() * speaks).double().cumsum(0)])  # [T + 1]
    cuts, run = [0], 0
    for t, spoken in enumerate([*speaks.tolist(), True]):
        if not spoken:
            run += 1
        elif run >= QUIET_FRAMES:
            cuts.append(t - run // 2)
        run = run if not spoken else 0
    cuts = sorted({*cuts, T})
    best = (-1.0, 0, most)
    for start in cuts[:-1]:
        inside = [end for end in cuts if start < end <= start + most]
        end = inside[-1] if inside else start + most  # speech without a pause is cut where it must be
        best = max(best, (float(clear[min(end, T)] - clear[start]), start, min(end, T)), key=lambda window: window[0])
    return best[1], best[2]


def cut(tokens: list[int], frames: list[int], start: int, end: int, soundless: bool = False) -> tuple[list[int], list[int]]:
    """The tokens that sound within [start, end), and how many frames of it each lasts; their sum is end - start.

    soundless: also those that last no frames there.
    """
    kept_tokens, kept_frames, at = [], [], 0
    for token, length in zip(tokens, frames, strict=True):
        inside = min(at + length, end) - max(at, start)
        at += length
        if inside > 0 or (soundless and length == inside == 0):
            kept_tokens.append(token)
            kept_frames.append(inside)
    return kept_tokens, kept_frames


@torch.inference_mode()
def with_codes(voice: EncodedPrompt, codec: FrameCodec | None) -> EncodedPrompt:
    """The voice with the codes of its mel; as it is where it has these already, or there is no codec."""
    known = voice.prompt.frames
    if codec is None or ("codes" in known and known["codes"].spec == codec.emits):
        return voice
    return replace(voice, prompt=replace(voice.prompt, frames={**known, "codes": codec.encode_frames(known["mel"])}))


def moved(frames: Frames, device: str | torch.device) -> Frames:
    """The same frames on another device."""
    return replace(frames, data=frames.data.to(device), lengths=frames.lengths.to(device))


def one_row(mel: Frames, tokens: list[int], frames: list[int], table: str) -> tuple[Prompt, float]:
    """One Prompt of one row, and its seconds."""
    assert sum(frames) == mel.data.shape[2], (sum(frames), mel.data.shape)
    seconds = mel.data.shape[2] / float(mel.spec.rate)
    lasts = torch.tensor([frames], dtype=torch.int64)
    return Prompt({"mel": mel}, Tokens.of([tokens], table), torch.tensor([seconds]), lasts), seconds
