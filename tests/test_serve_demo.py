"""The web page in a real browser: it opens, speaks, streams, and says what went wrong, without asking any other machine."""

import asyncio
import os
import shutil
import socket
import threading

import pytest
import soundfile
from conftest import RATE, speech

pytest.importorskip("gradio", reason="the extra app is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
# Asked for, since a click may come before the page is awake on a busy one: CHROMIUM=chromium pytest tests/test_serve_demo.py
CHROMIUM = shutil.which(os.environ.get("CHROMIUM", ""))
if CHROMIUM is None:
    pytest.skip("no browser is named in CHROMIUM", allow_module_level=True)

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 60_000  # ms, on a machine that is busy with other things


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


@pytest.fixture(scope="module")
def address(tiny, outward, tmp_path_factory):
    """Of a page of the tiny system, served by a thread."""
    import uvicorn

    from tts.serve.demo import build_app, ending_folder

    home = tmp_path_factory.mktemp("demo-home")
    before = os.environ.get("MYNAH_HOME")
    os.environ["MYNAH_HOME"] = str(home)
    with ending_folder() as folder, socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(build_app(tiny, folder), log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(20)
    if before is not None:
        os.environ["MYNAH_HOME"] = before
    assert not folder.exists(), "what was uploaded and made is gone with the page"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        except sync_api.Error as error:
            pytest.skip(f"chromium does not start: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, address):
    """Open the page in a window of its own. Whatever it asks of other machines, or logs as an error, fails."""
    contexts, amiss = [], []

    def open_window():
        context = browser.new_context(viewport={"width": 1180, "height": 900})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else amiss.append(r.url))
        page.on("pageerror", lambda error: amiss.append(str(error)))
        page.on("console", lambda m: amiss.append(m.text) if m.type == "error" else None)
        page.goto(address)
        page.get_by_role("button", name="Speak", exact=True).wait_for()
        return page

    yield open_window
    for context in contexts:
        context.close()
    assert amiss == []


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
