"""What a report says, in sentences that a person understands: what the self-check heard, how long it took, what to heed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from tts.asr.check import Check
from tts.result import Report

# How each phone of the recognizer sounds, by a word in which its letters are marked.
LIKE = {
    **{"ə": "*a*bout", "ɚ": "bett*er*", "ɐ": "*a*gain", "ᵻ": "ros*e*s", "i": "happ*y*", "iː": "s*ee*", "ɪ": "s*i*t"},
    **{"ɛ": "b*e*d", "æ": "c*a*t", "ʌ": "c*u*p", "ɑː": "f*a*ther", "ɔ": "n*o*rth", "ɔː": "th*ou*ght", "ʊ": "b*oo*k"},
    **{"uː": "m*oo*n", "ɜː": "b*ir*d", "eɪ": "d*ay*", "aɪ": "m*y*", "ɔɪ": "b*oy*", "aʊ": "n*ow*", "oʊ": "g*o*"},
    **{"p": "*p*en", "b": "*b*ook", "t": "*t*ea", "d": "*d*ay", "k": "*k*ey", "ɡ": "*g*o", "tʃ": "*ch*in", "dʒ": "*j*am"},
    **{
        "f": "*f*ive",
        "v": "*v*oice",
        "θ": "*th*ink",
        "ð": "*th*is",
        "s": "*s*ee",
        "z": "*z*oo",
        "ʃ": "*sh*e",
        "ʒ": "plea*s*ure",
    },
    **{"h": "*h*at", "m": "*m*an", "n": "*n*o", "ŋ": "si*ng*", "l": "*l*eg", "ɹ": "*r*ed", "j": "*y*es", "w": "*w*e"},
    **{"ɾ": "wa*t*er", "ʔ": "uh*-*oh"},
}


def heard(report: Report, after: Check | None = None) -> str:
    """What the recognizer heard of it, in HTML. after: what it heard when all was said, of a stream that went unchecked."""
    if after is not None:
        return _verdict(after.passed, after.missed, after.repeated, len(after.asked), streamed=True)
    verdicts = [sentence.passed for sentence in report.sentences]
    if None in verdicts:
        return _line("unknown", "Nobody listened to this, so nothing is known of how well it was said.")
    again = report.tries - len(report.sentences)
    more = ""
    if again:
        more = f" It was tried {'once' if again == 1 else f'{again} times'} more, and the best was kept."
    return _verdict(all(verdicts), report.missed, report.repeated) + (_line("note", more.strip()) if more else "")


def sounds(phones: Sequence[str]) -> str:
    """Phones as the words that they are like, in HTML: "t as in <b>t</b>ea, twice"."""
    named = []
    for phone, count in Counter(phones).most_common(5):
        often = "" if count == 1 else ", twice" if count == 2 else f", {count} times"
        parts = LIKE[phone].split("*") if phone in LIKE else None
        if parts is None:
            named.append(f"“{escape(phone)}”{often}")
        else:
            before, marked, behind = parts
            named.append(f"the one in “{before}<b>{marked}</b>{behind}”{often}")
    others = len(set(phones)) - len(named)
    return "; ".join(named) + (f"; and {others} more" if others > 0 else "")


def taken(report: Report) -> str:
    """How long it is and how long it took, in HTML."""
    pace = 1 / max(report.real_time_factor, 1e-9)
    first = f", the first sound after {report.first_audio_seconds:.2f} s" if report.first_audio_seconds is not None else ""
    steps = f", {report.settings['steps']} steps" if isinstance(report.settings.get("steps"), int) else ""
    return (
        f'<p class="mynah-taken">{report.seconds:.2f} s of speech, made in {report.spent_seconds:.2f} s{first}: '
        f"{pace:.1f} times as fast as it is spoken. Backend {escape(report.backend)}, seed {report.seed}{steps}.</p>"
    )


def warned(warnings: Sequence[str]) -> str:
    """What to heed, in HTML."""
    return "".join(_line("note", escape(warning)) for warning in dict.fromkeys(warnings))


def told(report: Report, after: Check | None = None) -> str:
    """All of it."""
    complaints = {sentence.complaint for sentence in report.sentences}
    others = [warning for warning in report.warnings if warning not in complaints]  # which `heard` has said
    return f'<div class="mynah-told">{heard(report, after)}{warned(others)}{taken(report)}</div>'


def _verdict(passed: bool, missed: Sequence[str], repeated: Sequence[str], asked: int = 0, streamed: bool = False) -> str:
    listened = "Afterwards the recognizer listened" if streamed else "The recognizer listened"
    if passed and not missed:
        return _line("good", f"{listened} and heard every sound of the text" + (f", all {asked} of them." if asked else "."))
    faults = []
    if missed:
        n = f"{len(missed)} sound{'s' if len(missed) > 1 else ''}"
        faults.append(f"did not hear {n}{f' of {asked}' if asked else ''}: {sounds(missed)}")
    if repeated:
        faults.append(f"heard something twice: {sounds(repeated)}")
    said = f"{listened} and {', and it '.join(faults)}."
    if passed:
        return _line("good", f"{said} So few are no cause for concern; it mishears people, too.")
    return _line("bad", f"{said} Another take may do better, or shorter sentences.")


def _line(kind: str, sentence: str) -> str:
    return f'<p class="mynah-{kind}">{sentence}</p>'
