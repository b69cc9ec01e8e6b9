"""The web page in a real browser: it opens, speaks, streams, stops, and says what went wrong; no other machine is asked."""

import asyncio
import os
import re
import shutil
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
from conftest import RATE, speech

pytest.importorskip("gradio", reason="the extra app is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium")) or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("chromium is not installed", allow_module_level=True)

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
MICROPHONE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
PATIENCE = 120_000  # ms, on a machine that is busy with other things
PASSWORD = "nine lives"


@pytest.fixture(scope="module")
def outward():
    """Addresses of other machines that this process wanted to reach."""
    asked: list[str] = []
    connect = socket.socket.connect

    def watching(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            asked.append(str(address))
            raise OSError("no network in this test")
        return connect(self, address)

    socket.socket.connect = watching
    yield asked
    socket.socket.connect = connect


@contextmanager
def serving(synthesizer, password=None):
    """A page of its own, served by a thread; gives its address."""
    import uvicorn

    from tts.serve.demo import build_app, ending_folder

    with ending_folder() as folder, socket.create_server(("127.0.0.1", 0)) as listening:
        app = build_app(synthesizer, folder, password=password)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(20)
    assert not folder.exists(), "what was uploaded and made is gone with the page"


@pytest.fixture(scope="module")
def address(tiny, outward, tmp_path_factory):
    """Of a page of the tiny system."""
    with pytest.MonkeyPatch.context() as patch, serving(tiny) as at:
        patch.setenv("MYNAH_HOME", str(tmp_path_factory.mktemp("demo-home")))
        yield at


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, whose microphone hears a voice of 140 Hz again and again."""
    spoken = tmp_path_factory.mktemp("microphone") / "voice.wav"
    soundfile.write(spoken, speech(10.0, 48_000), 48_000)
    flags = [*FLAGS, *MICROPHONE, f"--use-file-for-fake-audio-capture={spoken}"]
    with sync_api.sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        except sync_api.Error as error:
            pytest.skip(f"chromium does not start: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def windows(browser):
    """Where windows are opened; what one has loaded the next one need not load again."""
    context = browser.new_context(viewport={"width": 1180, "height": 900}, permissions=["microphone"])
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def visit(windows, address):
    """Open the page in a window of its own. Whatever it asks of other machines, or logs as an error, fails."""
    pages, amiss = [], []

    def open_window():
        page = windows.new_page()
        pages.append(page)
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else amiss.append(r.url))
        page.on("pageerror", lambda error: amiss.append(str(error)))
        page.on("console", lambda m: amiss.append(m.text) if m.type == "error" else None)
        page.goto(address)
        wake(page)
        return page

    yield open_window
    for page in pages:
        page.close()
    assert amiss == []


def wake(page) -> None:
    """Wait until the page listens: until then a button can be seen, and a click on it is lost."""
    page.wait_for_function("window.mynah?.awake")


def sound(page) -> tuple[float, float]:
    """Seconds and loudest sample of the sound that the first player on the page holds."""
    page.locator("audio").first.wait_for(state="attached")
    page.wait_for_function("document.querySelector('audio').src")
    return tuple(
        page.evaluate("""async () => {
            const file = await (await fetch(document.querySelector("audio").src)).arrayBuffer();
            const sound = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(file);
            return [sound.duration, Math.max(...sound.getChannelData(0).slice(0, 100000).map(Math.abs))];
        }""")
    )


def choose(page, label: str, option: str) -> None:
    page.get_by_role("listbox", name=label).or_(page.get_by_label(label)).first.click()
    page.get_by_role("option", name=option).first.click()


def test_a_text_is_typed_spoken_by_the_keyboard_alone_and_heard(visit, outward):
    page = visit()
    page.keyboard.press("Control+A")  # the text has the focus
    page.keyboard.type("One two three.")
    page.keyboard.press("Control+Enter")
    page.get_by_text("The recognizer listened").wait_for()
    seconds, loudest = sound(page)
    assert 0.3 < seconds < 5 and loudest > 0.001
    assert page.locator(".mynah-picture svg path").get_attribute("d").startswith("M")
    name = page.evaluate("document.querySelector('audio').src.split('/').pop()")
    assert name == "mynah-flow-0.wav"
    page.get_by_role("button", name="Another take").click()
    page.wait_for_function("document.querySelector('audio')?.src.endsWith('mynah-flow-1.wav')")
    assert outward == []


def test_a_backend_that_streams_is_heard_while_it_speaks(visit):
    page = visit()
    page.get_by_role("button", name="How it is said").first.click()
    choose(page, "Backend", "ar ·")
    page.get_by_label("Text").first.fill("One two three four five.")
    page.get_by_role("button", name="Speak", exact=True).click()
    page.get_by_text("Afterwards the recognizer").wait_for()
    page.wait_for_function("window.mynah.seconds > 0")
    seconds, _ = sound(page)
    page.wait_for_function(f"Math.abs(window.mynah.seconds - {seconds}) < 0.01")


def stop(page) -> None:
    """Press what stops, and see that it does: on the page, and in the work behind it."""
    page.get_by_role("button", name="Stop", exact=True).locator("visible=true").click()
    page.get_by_text("Stopped.").wait_for()
    end = time.monotonic() + PATIENCE / 1000
    while any(thread.name.startswith("mynah_") for thread in threading.enumerate()):
        assert time.monotonic() < end, "it is still at work"
        page.wait_for_timeout(50)


def test_what_is_being_spoken_is_stopped_and_the_next_text_does_not_wait(visit, monkeypatch):
    from tts import pipeline

    said, say = [], pipeline.say

    def slowly(*arguments):
        said.append(arguments)
        time.sleep(1.0)
        return say(*arguments)

    monkeypatch.setattr(pipeline, "say", slowly)
    page = visit()
    page.get_by_label("Text").first.fill("One. " * 390)
    page.get_by_role("button", name="Speak", exact=True).click()
    page.get_by_text("of 390 sentences are spoken").wait_for()
    stop(page)
    assert len(said) < 390 and page.locator("audio[src]").count() == 0
    monkeypatch.undo()
    page.get_by_label("Text").first.fill("One.")
    page.get_by_role("button", name="Speak", exact=True).click()
    page.get_by_text("The recognizer listened").wait_for()


def test_an_edit_is_stopped(visit, tiny, monkeypatch):
    def edit(self, recording, before, after, progress, **options):
        for number in range(390):
            progress(number, 390)
            time.sleep(1.0)

    monkeypatch.setattr(type(tiny), "edit", edit)
    page = visit()
    page.get_by_role("tab", name="Edit").click()
    page.get_by_role("button", name="I have none").click()
    page.locator(".mynah-changes ins").wait_for()
    page.get_by_role("button", name="Change it").click()
    page.get_by_text("of 390 changes are made").wait_for()
    stop(page)


def test_a_voice_comes_from_the_microphone(visit, monkeypatch):
    from tts.serve.page.studio import Studio

    asked, speak = [], Studio.speak

    def listening(self, request, *rest):
        samples, rate = soundfile.read(request.prompt, dtype="float32", always_2d=True)
        asked.append((samples.mean(1), rate))
        return speak(self, request, *rest)

    monkeypatch.setattr(Studio, "speak", listening)
    page = visit()
    choose(page, "Voice", "A recording")
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_text(re.compile(r"^0:0[3-9]$")).locator("visible=true").first.wait_for()
    with page.expect_response(lambda answer: "/upload" in answer.url, timeout=PATIENCE):
        page.get_by_role("button", name="Stop", exact=True).first.click()
    page.get_by_role("button", name="Play", exact=True).locator("visible=true").first.wait_for()  # it can be listened to
    page.get_by_label("Text").first.fill("One.")
    page.get_by_role("button", name="Speak", exact=True).click()
    page.get_by_text("The recognizer listened").wait_for()
    samples, rate = asked[0]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    loudest = spectrum.argmax() * rate / len(samples)
    assert len(samples) > rate and abs(loudest - 140) < 10, "what the microphone heard is the prompt"


def test_who_does_not_know_the_password_stays_outside(browser, tiny):
    import urllib.error
    import urllib.request

    with serving(tiny, PASSWORD) as at:
        for path in ("config", "gradio_api/info", "gradio_api/queue/data?session_hash=x"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(at + path, timeout=30)
            assert refused.value.code == 401
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(at)
        for password, let_in in (("wrong", False), (PASSWORD, True)):
            page.get_by_label("username").fill("mynah")
            page.get_by_label("password").fill(password)
            page.get_by_role("button", name="Login").click()
            if not let_in:
                page.get_by_text("Incorrect").wait_for()
                assert page.get_by_role("button", name="Speak", exact=True).count() == 0
        wake(page)
        page.get_by_label("Text").first.fill("One.")
        page.get_by_role("button", name="Speak", exact=True).click()
        page.get_by_text("The recognizer listened").wait_for()
        page.close()


def test_what_went_wrong_is_a_sentence_and_the_page_goes_on(visit):
    page = visit()
    page.get_by_label("Text").first.fill("One. [pause:<img src=x>]")
    page.get_by_role("button", name="Speak", exact=True).click()
    page.get_by_text("A pause lasts more than 0 and at most 30 seconds").first.wait_for()
    assert page.get_by_text("Traceback").count() == 0 and page.locator("img[src=x]").count() == 0
    page.get_by_label("Text").first.fill("One.")
    page.get_by_role("button", name="Speak", exact=True).click()
    page.get_by_text("The recognizer listened").wait_for()


def test_two_windows_hear_their_own(visit):
    one, two = visit(), visit()
    one.get_by_label("Text").first.fill("One.")
    two.get_by_label("Text").first.fill("One two three four five six seven eight.")
    for page in (one, two):
        page.get_by_role("button", name="Speak", exact=True).click()
    for page in (one, two):
        page.get_by_text("The recognizer listened").wait_for()
    assert sound(one)[0] < sound(two)[0] / 2


def test_all_backends_stand_side_by_side(visit):
    page = visit()
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("tabpanel").get_by_label("Text").locator("visible=true").fill("One.")
    page.get_by_role("button", name="Speak with all of them").click()
    page.locator("tr:has-text('mixed')").wait_for()
    assert page.locator("audio[src]").count() == 4


def test_an_upload_becomes_a_voice_that_speaks(visit, tmp_path):
    soundfile.write(tmp_path / "ann.wav", speech(3.0), RATE)
    page = visit()
    page.get_by_role("tab", name="Voices").click()
    page.get_by_role("textbox", name="Name").fill("ann")
    page.get_by_role("button", name="Keep this voice").click()
    page.get_by_text("statement by which the speaker has agreed").first.wait_for()
    page.get_by_role("textbox", name="Consent").fill("I agree. Ann")
    page.get_by_label("Recordings of this one speaker").locator("input").or_(
        page.locator("input[type=file][multiple]")
    ).first.set_input_files(tmp_path / "ann.wav")
    page.get_by_text("ann.wav").first.wait_for()
    page.get_by_role("button", name="Keep this voice").click()
    page.get_by_text("ann is kept").wait_for()
    page.get_by_role("tab", name="Speak").click()
    choose(page, "Voice", "ann")
    page.get_by_role("button", name="Speak", exact=True).click()
    page.get_by_text("The recognizer listened").wait_for()


def test_only_pages_of_this_machine_may_ask(address):
    """A name of somebody else's that leads here is refused, and so is a stream that nobody opened."""
    import http.client

    host, port = address.removeprefix("http://").rstrip("/").split(":")
    for path, name, status in (("/", "evil.example", 400), ("/", f"127.0.0.1:{port}", 200), ("/speech/x", "localhost", 404)):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", path, headers={"Host": name})
        answer = connection.getresponse()
        assert answer.status == status
        if status == 200:
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        connection.close()


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=/etc/passwd", "/gradio_api/file=pyproject.toml", "/gradio_api/file=../../etc/passwd"]
)
def test_no_file_of_this_machine_is_handed_out(address, path):
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(address.rstrip("/") + path, timeout=30)
    assert refused.value.code in (403, 404)
