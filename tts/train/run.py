"""From a config to a training run: `mynah train asr|duration|codec|vocoder|… CONFIG key=…`, by the names of TRAININGS.

The run's folder keeps the resolved config. A machine with torch, numpy and safetensors alone trains from it:
`from tts.train.run import train; train("vocoder", "config.json")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from tts.checkpoint import fill, load
from tts.config import load_config, to_json
from tts.errors import SettingsError, nearest
from tts.files import write_whole
from tts.text.tokens import PHONES
from tts.train.ar import ARRecipe, ARTask
from tts.train.asr import RecognizerRecipe, RecognizerTask
from tts.train.assemble import note_configs
from tts.train.backend import BackendRecipe, BackendTask
from tts.train.codec import CodecRecipe, CodecTask
from tts.train.data import Corpus
from tts.train.duration import DurationRecipe, DurationTask
from tts.train.filter import FilterRecipe, FilterTask
from tts.train.loop import LoopConfig, Task, fit
from tts.train.masked import MaskedBackendTask, MaskedRecipe
from tts.train.speaker import SpeakerRecipe, SpeakerTask
from tts.train.state import export, newest_checkpoint
from tts.train.vocoder import VocoderRecipe, VocoderTask
from tts.train.waveform_codec import WaveCodecRecipe, WaveCodecTask
from tts.weights import embedded, find


@dataclass(frozen=True)
class Training:
    """Where the data lies, where the run goes, and how long it lasts; a recipe says the rest."""

    loop: LoopConfig
    train: Path = Path("data/train")  # prepared corpora
    valid: Path = Path("data/valid")
    # An earlier run or a system ("base-en"), whose weights this run begins with, if it does not go on.
    start: Path | None = None


@dataclass(frozen=True)
class RecognizerTraining(Training):
    recipe: RecognizerRecipe = field(default_factory=RecognizerRecipe)
    out: Path = Path("runs/asr")

    def task(self) -> Task:
        model = replace(self.recipe.model, symbols=PHONES.recognizer_symbols, table=PHONES.identity)
        recipe = replace(self.recipe, model=model)
        return RecognizerTask(recipe, Corpus(self.train, audio=False), Corpus(self.valid, audio=False))


@dataclass(frozen=True)
class VocoderTraining(Training):
    recipe: VocoderRecipe = field(default_factory=VocoderRecipe)
    out: Path = Path("runs/vocoder")

    def task(self) -> Task:
        return VocoderTask(self.recipe, Corpus(self.train), Corpus(self.valid))


@dataclass(frozen=True)
class CodecTraining(Training):
    recipe: CodecRecipe = field(default_factory=CodecRecipe)
    out: Path = Path("runs/codec")

    def task(self) -> Task:
        return CodecTask(self.recipe, Corpus(self.train, audio=False), Corpus(self.valid, audio=False))


@dataclass(frozen=True)
class WaveCodecTraining(Training):
    recipe: WaveCodecRecipe = field(default_factory=WaveCodecRecipe)
    out: Path = Path("runs/waveform-codec")

    def task(self) -> Task:
        return WaveCodecTask(self.recipe, Corpus(self.train), Corpus(self.valid))


@dataclass(frozen=True)
class BackendTraining(Training):
    recipe: BackendRecipe = field(default_factory=BackendRecipe)
    out: Path = Path("runs/backend")

    def task(self) -> Task:
        return BackendTask(self.recipe, Corpus(self.train, audio=False), Corpus(self.valid, audio=False))


@dataclass(frozen=True)
class ARTraining(Training):
    recipe: ARRecipe = field(default_factory=ARRecipe)
    out: Path = Path("runs/ar")

    def task(self) -> Task:
        return ARTask(self.recipe, Corpus(self.train, audio=False), Corpus(self.valid, audio=False), self.out)


@dataclass(frozen=True)
class MaskedTraining(Training):
    recipe: MaskedRecipe = field(default_factory=MaskedRecipe)
    out: Path = Path("runs/masked")

    def task(self) -> Task:
        return MaskedBackendTask(self.recipe, Corpus(self.train, audio=False), Corpus(self.valid, audio=False), self.out)


@dataclass(frozen=True)
class FilterTraining(Training):
    recipe: FilterRecipe = field(default_factory=FilterRecipe)
    out: Path = Path("runs/filter")

    def task(self) -> Task:
        return FilterTask(self.recipe, Corpus(self.train, audio=False), Corpus(self.valid, audio=False))


@dataclass(frozen=True)
class DurationTraining(Training):
    recipe: DurationRecipe = field(default_factory=DurationRecipe)
    out: Path = Path("runs/duration")

    def task(self) -> Task:
        return DurationTask(self.recipe, Corpus(self.train, audio=False), Corpus(self.valid, audio=False))


@dataclass(frozen=True)
class SpeakerTraining(Training):
    recipe: SpeakerRecipe = field(default_factory=SpeakerRecipe)
    out: Path = Path("runs/speaker")

    def task(self) -> Task:
        return SpeakerTask(self.recipe, Corpus(self.train, audio=False), Corpus(self.valid, audio=False))


CONFIG = "config.json"  # in the folder of a run: all values that it was started with
TRAININGS: dict[str, Any] = {
    "asr": RecognizerTraining,
    "duration": DurationTraining,
    "codec": CodecTraining,
    "waveform-codec": WaveCodecTraining,
    "vocoder": VocoderTraining,
    "speaker": SpeakerTraining,
    "backend": BackendTraining,
    "ar": ARTraining,
    "masked": MaskedTraining,
    "filter": FilterTraining,
}


def train(what: str, config: str | PathLike[str] | None, overrides: Sequence[str] = ()) -> Path:
    """Train, or go on where an earlier run of the same folder stopped; returns the run's folder.

    Args:
        config: a YAML or JSON file with `loop`, `recipe`, `train`, `valid` and `out`. overrides: such as "loop.steps=1000".
    Raises:
        SettingsError: an unknown recipe, or a mistake in the config. CheckpointError: no prepared corpus where one should be.
        OutputError: the run's folder cannot be written.
    """
    if what not in TRAININGS:
        raise SettingsError(f"unknown recipe {what!r}{nearest(what, list(TRAININGS))}; choose one of {', '.join(TRAININGS)}")
    if config is None:
        raise SettingsError(f"give a config to train {what} by, such as configs/train/{what}.yaml")
    training = load_config(TRAININGS[what], config, overrides)
    task = training.task()
    if training.start is not None and newest_checkpoint(training.out) is None:
        earlier = _weights(training.start)
        for name, module in task.modules().items():
            if name in earlier or name not in task.aids():
                fill(module, earlier.get(name, {}), f"{name} of {training.start}")
    note_configs(training.out, task.modules())
    write_whole(training.out / CONFIG, to_json(training).encode())
    fit(task, training.loop, training.out)
    return training.out


def _weights(start: Path) -> dict[str, dict[str, Tensor]]:
    """Weights by module: those of a system, by its name or folder, or the averaged ones of a run."""
    if str(start) not in embedded() and not (start / "config.yaml").is_file():
        return export(start)
    system = load(find(str(start)))
    return {role.rpartition(".")[2]: system.state(role) for role, part in system.system.parts.items() if part.file}
