"""A listening page holds everything it shows, and its diagnosis names what is wrong and nothing else."""

import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import RATE, speech

from tts.eval.pages import Entry, diagnose, hardest, write_page


def with_pauses(samples: np.ndarray) -> np.ndarray:
    return np.pad(samples, RATE // 5).astype(np.float32)


VOICE = with_pauses(speech(2.0))


def entry(samples: np.ndarray = VOICE, prompt: np.ndarray | None = VOICE, **scores: Any) -> Entry:
    return Entry("A <cat> & more", {"id": "one", "phone_errors": 1, "phones": 4, **scores}, samples, prompt)


def test_a_good_item_has_nothing_wrong() -> None:
    pytest.importorskip("librosa")
    assert diagnose(entry(sim=0.8, ovrl=3.1, missed=[], repeated=[], wrong=[], words_lost=0)) == []


def test_every_fault_is_named() -> None:
    pytest.importorskip("librosa")

    def said(samples: np.ndarray, text: str) -> dict[str, Any]:
        return {"heard_phones": ["a"] * 20}  # ten a second in the prompt

    noise = np.random.default_rng(0).normal(0, 0.02, len(VOICE)).astype(np.float32)
    faults = {
        "left out: k æ": entry(missed=["k", "æ"]),
        "twice: t ə": entry(repeated=["t", "ə"]),
        "heard otherwise: θ as f (2 times), t as d": entry(wrong=[["θ", "f"], ["t", "d"], ["θ", "f"]]),
        "4 words in a row are missing": entry(words_lost=4),
        "another voice (SIM 0.41)": entry(sim=0.41),
        "poor sound (DNSMOS 1.9)": entry(ovrl=1.9),
        "12 dB softer than the prompt": entry(VOICE / 4),
        "clipped": entry((VOICE * 20).clip(-1, 1), None),
        "noisy sound": entry(VOICE + noise, None),
        "noisy prompt": entry(VOICE, VOICE + noise),
        "faster than the prompt (20 phones a second, 10 in the prompt)": entry(heard_phones=["a"] * 40),
        "nothing is heard": entry(np.zeros(0, np.float32)),
    }
    for fault, case in faults.items():
        assert fault in diagnose(case, said), fault


def test_the_worst_come_first_and_of_equals_the_least_like_the_prompt() -> None:
    rows = [{"id": i, "phone_errors": e, "phones": 10, "sim": s} for i, e, s in ((0, 1, 0.2), (1, 5, 0.9), (2, 5, 0.3))]
    assert [row["id"] for row in hardest(rows, 2)] == [2, 1]


def test_a_page_needs_no_other_file_and_shows_text_as_text(tmp_path: Path) -> None:
    pytest.importorskip("librosa")
    pytest.importorskip("matplotlib")
    silent = Entry("Gone", {"id": "two"}, np.zeros(0, np.float32))
    spoken = entry(heard="a cat", heard_phones=["k"], alignment=[("k", 0.1, 0.4)], utterance_wer=0.5, sim=0.5)
    write_page(tmp_path / "page.html", "worst", [spoken, silent])
    page = (tmp_path / "page.html").read_text()
    assert "A &lt;cat&gt; &amp; more" in page and "another voice" in page and page.count("<section>") == 2
    assert set(re.findall(r'src="([^;]*)', page)) == {"data:audio/mpeg", "data:image/png"} and page.count("<audio") == 2
    picture = re.search(r'image/png;base64,([^"]*)', page)
    assert picture is not None and b64decode(picture[1])[1:4] == b"PNG"
    assert "| one | 25% | 50% | 0.50 |  | A <cat> & more | another voice" in (tmp_path / "page.md").read_text()
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".html", ".md"]


def test_the_systems_own_recognizer_tells_a_page_what_it_heard(tiny) -> None:
    from tts.eval.phones import PhoneEars

    ears = PhoneEars(tiny.parts.recognizer, tiny.parts.front_end, tiny.parts.encoder)
    told = ears.said(VOICE, "One and two.")
    assert told["missing_run"] <= 8 and told["free"] in (0.0, 1.0) and isinstance(told["heard_phones"], list)
    nothing = ears.said(VOICE[:0], "One.")
    assert nothing["missed"] == ["w", "ʌ", "n"] and nothing["free"] == 0.0 and nothing["missing_run"] == 3
