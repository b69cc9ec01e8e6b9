"""Which codec serves the backends best: `python benchmarks/codecs.py rvq=runs/codec gfsq=runs/gfsq …` (`make codecs`)."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from tts.audio import resample
from tts.checkpoint import load
from tts.errors import FitError, SettingsError
from tts.eval.codec import copy_synthesis
from tts.eval.measures import Meters
from tts.eval.packages import optional, versions
from tts.eval.phones import PhoneEars
from tts.eval.probes import (
    UNKNOWN,
    LanguageProbeConfig,
    PhoneErrors,
    PhoneProbeConfig,
    Spoken,
    label,
    language_probe,
    perplexity,
    phone_probe,
    stack,
)
from tts.eval.protocols import COPIED, Item, read_protocol
from tts.eval.report import HUMAN
from tts.files import write_whole
from tts.frames import Frames, FrameSpec, Wave
from tts.interfaces import Codec, Vocoder
from tts.reconstruction import bits_per_second
from tts.text.tokens import PHONES
from tts.train.asr import aligned, frame_labels
from tts.train.assemble import MODEL, find_part
from tts.train.data import Corpus
from tts.train.run import CONFIG
from tts.train.state import newest_checkpoint
from tts.weights import find

log = logging.getLogger("codecs")

MIN_SCORE = -2.5  # of an alignment whose phones are taken for what is said
SYMBOLS = len(PHONES.recognizer_symbols)
PHONE_PROBE, LANGUAGE_PROBE = PhoneProbeConfig(), LanguageProbeConfig()


@dataclass(frozen=True)
class Contender:
    """A codec with the vocoder that it is heard through."""

    name: str
    source: Path
    codec: Codec
    vocoder: Vocoder

    @property
    def checkpoint(self) -> Path | None:
        """The newest of a training run; a system has none."""
        return newest_checkpoint(self.source) if (self.source / MODEL).is_file() else None


class Clips:
    """Aligned clips of a corpus, drawn with a fixed seed until they last so many hours (None: all of them)."""

    def __init__(self, folder: Path, mel: FrameSpec, sample_rate: int, audio: bool, hours: float | None = None) -> None:
        self.corpus, self.mel, self.sample_rate = Corpus(folder, audio), mel, sample_rate
        if self.corpus.tables["mel"] != mel.flavour:
            raise FitError(f"{folder} holds another mel than the system's; prepare it again")
        most = math.inf if hours is None else 3600 * hours * mel.rate
        self.chosen: list[int] = []
        frames = 0
        for i in torch.randperm(len(self.corpus), generator=torch.Generator().manual_seed(0)).tolist():
            if frames < most and aligned(self.corpus, i, MIN_SCORE):
                self.chosen.append(i)
                frames += self.corpus.item(i).frames
        if not self.chosen:
            raise SettingsError(f"{folder} has no aligned clip; align it with `mynah align`")

    def codes(self, codec: Codec) -> list[Tensor]:
        """[K, T] of each clip: of its mel where the codec is over mels, else of its samples."""
        if codec.embeds == self.mel:
            mels = (self.corpus.mel(i) for i in self.chosen)
            return [codec.encode_frames(Frames(mel[None], torch.tensor([mel.shape[1]]), self.mel)).data[0] for mel in mels]
        sounds = (resample(self.corpus.audio(i), self.sample_rate, codec.sample_rate) for i in self.chosen)
        return [codec.encode(Wave.of(sound, codec.sample_rate)).data[0] for sound in sounds]

    def phones(self, S: Fraction, codes: Sequence[Tensor]) -> list[Tensor]:
        """[T, S] of each clip: what is said in the S mel frames under each code; where S is not whole, amid them, [T, 1]."""
        found = []
        for i, row in zip(self.chosen, codes, strict=True):
            said, T = frame_labels(self.corpus, i, MIN_SCORE), row.shape[1]
            if S.denominator == 1:
                said = label(said, int(S))
            else:
                middles = ((torch.arange(T) + 0.5) * float(S)).long()
                said = said[middles[middles < len(said)]][:, None]
            found.append(F.pad(said, (0, 0, 0, T - len(said)), value=UNKNOWN))  # or cut, where the codes end first
        return found


def main(
    runs: Annotated[list[str], typer.Argument(metavar="NAME=FOLDER", help="A run of `mynah train codec` or waveform-codec.")],
    protocol: Annotated[Path, typer.Option(help="Its recordings are copied.")] = Path("data/protocol.tsv"),
    train: Annotated[Path, typer.Option(help="A prepared, aligned corpus that probes learn from.")] = Path("data/train"),
    valid: Annotated[Path, typer.Option(help="Another one, that they are tried on.")] = Path("data/valid"),
    out: Path = Path("runs/codecs"),
    system: Annotated[str, typer.Option(help="Its recognizer hears phones, its vocoder the codecs over mels.")] = "base-en",
    vocoder: Annotated[str | None, typer.Option(help="Another system, or a run of `mynah train vocoder`.")] = None,
    hours: Annotated[float, typer.Option(help="Of train that probes learn from.")] = 3.0,
    threads: int = 2,
) -> None:
    """A row for each codec: its copies of recordings, and what probes find in its codes. The weights are a run's averaged ones.

    Writes codecs.md, codecs.json and codecs.png (the error of the copied mel over seconds of training) to --out, beside a
    folder of copies for each codec. A codec whose row is there already, of the same weights, is not measured again.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(threads)
    told = load(find(system))
    heard_by = find_vocoder(vocoder if vocoder is not None else system)
    contenders = [contender(run, heard_by) for run in runs]
    items = read_protocol(protocol, COPIED)
    ears = PhoneEars(told.build("recognizer"), told.build("frontend"), told.build("encoder"))
    mel, audio = ears.encoder.emits, any(each.codec.embeds.kind != "mel" for each in contenders)
    learned = Clips(train, mel, told.system.sample_rate, audio, hours)
    tried = Clips(valid, mel, told.system.sample_rate, audio)
    meters = make_meters(ears, out)
    mel_errors: dict[Fraction, PhoneErrors] = {}  # by mel frames a code
    rows = []
    for each in contenders:
        log.info("%s", each.name)
        about = {"checkpoint": str(each.checkpoint), "protocol": str(protocol), "system": system, "vocoder": vocoder}
        about |= {"hours": hours, "probes": [asdict(PHONE_PROBE), asdict(LANGUAGE_PROBE)], "source": str(each.source)}
        path = out / each.name / "row.json"
        row = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if row.get("about") != about:
            row = {"name": each.name, "about": about, **describe(each), **probe(each.codec, learned, tried, mel_errors)}
            row |= copies(each, ears, items, meters, out)
            write_whole(path, json.dumps(row, indent=1).encode())
        rows.append(row)
    found = {"rows": rows, "curves": {each.name: curve(each) for each in contenders}, "versions": versions()}
    write_whole(out / "codecs.json", (json.dumps(found, indent=1) + "\n").encode())
    write_whole(out / "codecs.md", markdown(rows).encode())
    draw(found["curves"], out / "codecs.png")
    typer.echo(markdown(rows))


def find_vocoder(source: str) -> Vocoder:
    """The vocoder of a system or of a training run, which may be of either generator."""
    config = Path(source) / CONFIG
    recipe = json.loads(config.read_text("utf-8"))["recipe"] if config.is_file() else {}
    return find_part("vocoder", recipe.get("generator", "vocos"), source)


def contender(run: str, vocoder: Vocoder) -> Contender:
    """NAME=FOLDER of a training run, which has a vocoder of its own where it is of waveforms, or NAME=SYSTEM."""
    name, equals, source = run.partition("=")
    if not (name and equals and source):
        raise SettingsError(f"a codec is given as NAME=FOLDER, got {run!r}")
    noted = Path(source) / MODEL
    if not noted.is_file():
        system = load(find(source))
        return Contender(name, system.folder, system.build("codec"), system.build("vocoder"))
    if "vocoder" not in json.loads(noted.read_text("utf-8")):
        return Contender(name, Path(source), find_part("codec", "mel", source), vocoder)
    own = find_part("vocoder", "waveform", source)
    return Contender(name, Path(source), find_part("codec", "waveform", source), own)


def make_meters(ears: PhoneEars, out: Path) -> Meters:
    """Words, phones, voices and the distance to the recording; the words of recordings are heard once for all codecs."""
    out.mkdir(parents=True, exist_ok=True)
    return Meters(quality=None, phones=ears.errors, cache=out / "transcripts.json")


# --------------------------------------------------------------------------------------------------------- a row


def describe(each: Contender) -> dict[str, Any]:
    """What the codec is, how large, and how long it was trained."""
    spec, checkpoint = each.codec.emits, each.checkpoint
    parts = [each.codec, *([each.vocoder] if each.vocoder.accepts.kind == "latents" else [])]
    state = json.loads((checkpoint / "state.json").read_text("utf-8")) if checkpoint is not None else {}
    return {
        "flavour": spec.flavour,
        "rate": float(spec.rate),
        "sizes": spec.sizes,
        "bits_per_second": bits_per_second(spec, spec.width),
        "parameters": sum(p.numel() for part in parts if isinstance(part, nn.Module) for p in part.parameters()),
        "trained_steps": state.get("step"),
        "trained_seconds": state.get("elapsed"),
    }


def copies(each: Contender, ears: PhoneEars, items: Sequence[Item], meters: Meters, out: Path) -> dict[str, Any]:
    """The recordings' copies by all codebooks and by half of them, by the vocoder alone where it takes mels; and recordings."""
    K, alone = each.codec.emits.width, each.vocoder.accepts == ears.encoder.emits
    counts = [n for n in dict.fromkeys([K, K // 2, *([0] if alone else [])]) if n or alone]
    report = copy_synthesis(ears.encoder, each.vocoder, items, out / each.name, meters, each.codec, counts)
    kept = {name: {key: value for key, value in row.items() if key != "items"} for name, row in report["rows"].items()}
    return {"copies": kept}


def probe(codec: Codec, train: Clips, valid: Clips, mel_errors: dict[Fraction, PhoneErrors]) -> dict[str, Any]:
    """What probes that learn from `train` find in the codes of `valid`; `mel_errors` keeps what they find in mels."""
    spec, both = codec.emits, (train, valid)
    S = train.mel.rate / spec.rate  # mel frames a code
    codes = [clips.codes(codec) for clips in both]  # of [K, T] each
    phones = [clips.phones(S, rows) for clips, rows in zip(both, codes, strict=True)]
    first = [[row[0] for row in rows] for rows in codes]
    by_code = phone_probe(*_spoken(first, phones), spec.sizes[0], SYMBOLS, PHONE_PROBE)
    if S not in mel_errors and S.denominator == 1:
        stacked = [[stack(clips.corpus.mel(i), int(S)) for i in clips.chosen] for clips in both]
        mel_errors[S] = phone_probe(*_spoken(stacked, phones), len(stacked[0][0]), SYMBOLS, PHONE_PROBE)
    bits = language_probe(*codes, spec.sizes, float(spec.rate), LANGUAGE_PROBE)
    return {
        "perplexity": perplexity(torch.cat(codes[1], 1), spec.sizes).tolist(),
        "phone_errors": asdict(by_code),
        "phone_errors_of_mel": asdict(mel_errors[S]) if S in mel_errors else None,
        "language": {"bits": bits.bits, "total": bits.total, "share": bits.share},
    }


def _spoken(frames: Sequence[Sequence[Tensor]], phones: Sequence[Sequence[Tensor]]) -> list[list[Spoken]]:
    """Train's and valid's frames beside their phones."""
    return [[Spoken(x, y) for x, y in zip(*clips, strict=True)] for clips in zip(frames, phones, strict=True)]


# --------------------------------------------------------------------------------------------------------- told

COLUMNS = ("codec", "kbit/s", "codes", "PESQ-wb", "STOI", "SIM", "WER", "× recordings", "PER")
PROBES = (
    "phone error, book 0",
    "× mel",
    "frame error, book 0",
    "× mel",
    "perplexity",
    "LM bits/s",
    "of nominal",
    "book by book",
)
ABOUT = ("M parameters", "RTF", "trained, min")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Three tables: copies (a line for each number of codebooks), probes, and what the codecs are."""
    lines = ["Copies of recordings, with 95 % confidence intervals.", "", *_head(COLUMNS)]
    for row in rows:
        for name, copy in row["copies"].items():
            if name.startswith("codec "):
                lines.append(_line([f"{row['name']}, {name.removeprefix('codec ')} books", *_scores(row, name, copy)]))
    others = {name: copy for row in rows for name, copy in row["copies"].items() if not name.startswith("codec ")}
    lines += [_line([name if name == HUMAN else "vocoder alone", *_scores({}, name, copy)]) for name, copy in others.items()]
    lines += ["", "What probes find in the codes.", "", *_head(("codec", *PROBES))]
    lines += [_line([row["name"], *_probed(row)]) for row in rows]
    lines += ["", "What they are.", "", *_head(("codec", *ABOUT))]
    for row in rows:
        rtf = row["copies"][f"codec {len(row['sizes'])}"]["metrics"].get("codec_rtf")
        minutes = row["trained_seconds"]
        cells = [f"{row['parameters'] / 1e6:.1f}", "" if rtf is None else f"{rtf['value']:.3f}"]
        lines.append(_line([row["name"], *cells, "" if minutes is None else f"{minutes / 60:.0f}"]))
    return "\n".join(lines) + "\n"


def _scores(row: Mapping[str, Any], name: str, copy: Mapping[str, Any]) -> list[str]:
    """The cells of a row of copies; `row` is empty where no codec took part."""
    bits, n = copy.get("bits_per_second"), int(name.removeprefix("codec ")) if row else 0
    cells = ["" if bits is None else f"{bits / 1000:.2f}", f"{_books(row['sizes'][:n])} at {row['rate']:g} Hz" if row else ""]
    for key, digits, scale in (("pesq", 2, 1), ("stoi", 3, 1), ("sim", 3, 1), ("wer", 1, 100)):
        cells.append(_figure(copy["metrics"].get(key), digits, scale))
    cells.append(_figure(copy.get("wer_times_human"), 2))
    return [*cells, _figure(copy["metrics"].get("per"), 1, 100)]


def _probed(row: Mapping[str, Any]) -> list[str]:
    cells = []
    for what in ("phones", "frames"):
        error, mel = row["phone_errors"][what], row["phone_errors_of_mel"]
        cells += [f"{100 * error:.1f} %", f"{error / mel[what]:.2f}" if mel and mel[what] else ""]
    lm = row["language"]
    cells += [_each(row["perplexity"]), f"{lm['total']:.0f}", f"{100 * lm['share']:.1f} %", _each(lm["bits"])]
    return cells


def _books(sizes: Sequence[int]) -> str:
    """(1024, 1024) to "2 × 1024"."""
    kinds = dict.fromkeys(sizes)
    return " + ".join(f"{list(sizes).count(V)} × {V}" for V in kinds)


def _each(values: Sequence[float]) -> str:
    """All of a few numbers, else the range of many."""
    shown = [f"{value:.0f}" for value in values]
    return " ".join(shown) if len(shown) <= 8 else f"{min(values):.0f} to {max(values):.0f} of {len(values)}"


def _figure(figure: Mapping[str, float] | None, digits: int, scale: float = 1) -> str:
    if figure is None:
        return ""
    value, low, high = (f"{scale * figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value}{' %' if scale == 100 else ''} [{low}, {high}]"


def _head(columns: Sequence[str]) -> list[str]:
    return [_line(columns), _line(["---", *["---:"] * (len(columns) - 1)])]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def curve(each: Contender) -> dict[str, list[float]]:
    """Seconds of training and, then, the mean absolute error of the copied log-mel on valid crops."""
    path = each.source / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
    valid = [line for line in lines if line["kind"] == "valid" and "mel_l1" in line]
    return {"seconds": [line["elapsed"] for line in valid], "mel_l1": [line["mel_l1"] for line in valid]}


def draw(curves: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """A PNG of all curves."""
    figure = optional("matplotlib.figure").Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, line in curves.items():
        axes.plot([seconds / 60 for seconds in line["seconds"]], line["mel_l1"], label=name)
    axes.set(xlabel="minutes of training", ylabel="error of the copied log-mel, valid speakers")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    typer.run(main)
