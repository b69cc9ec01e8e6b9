"""The web page, opened by `mynah demo` and app.py: what it looks like, who may come, and what it may load.

browser ─► FastAPI ─┬─► /speech/NAME   the samples of a stream, while they are made
                    └─► Gradio ─► page/: tabs ─► studio, cabinet, uploads ─► one system for all who come

The page asks nothing of any other machine: its fonts are the reader's own, and a Content-Security-Policy forbids the rest. What
is uploaded or made lies in a folder that ends with the page.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tts.errors import MissingPackageError, OutputError, SettingsError
from tts.pipeline import Synthesizer
from tts.serve.page.cabinet import Cabinet
from tts.serve.page.filing import batch_tab, long_tab, voices_tab
from tts.serve.page.kit import Kit
from tts.serve.page.studio import Studio
from tts.serve.page.tabs import compare_tab, edit_tab, speak_tab

TABS = {
    "Speak": speak_tab,
    "Compare": compare_tab,
    "Edit": edit_tab,
    "Long text": long_tab,
    "Voices": voices_tab,
    "Batch": batch_tab,
}
LOOK = Path(__file__).parent / "page"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ONLY_HERE = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; frame-ancestors 'self'"
LARGEST_UPLOAD = "128mb"
KEPT = (600, 6 * 3600)  # seconds: how often files are looked over, and after how long they go
WAITING = 32  # people in the queue
BEAK = ("#fdf6ec", "#fae8cd", "#f4d09c", "#ecb467", "#e29a3f", "#c97a1f", "#a85f14", "#874a12", "#6c3c13", "#573213", "#2f1a08")
PAPER = (
    "#fbfaf8",
    "#f5f3ef",
    "#e9e5de",
    "#d6d0c6",
    "#a8a096",
    "#7a726a",
    "#5a534c",
    "#443e39",
    "#2b2723",
    "#1d1a17",
    "#131110",
)
HEAD = (
    '<div class="mynah-head"><h1>Mynah</h1><p>A text and a few seconds of a voice in; the text in that voice out. All of it on '
    "this machine.</p></div>"
    '<p class="mynah-consent">Speak only in a voice whose owner has agreed, and say that it is synthetic where somebody could '
    "take it for real. Each file you download says so itself: model, seed and settings are written into it.</p>"
)


def open_page(
    system: str = "base-en",
    device: str = "cpu",
    host: str = "127.0.0.1",
    port: int = 7860,
    password: str | None = None,
    ready: Callable[[str], object] = lambda address: None,
) -> None:
    """Open the page, and serve it until it is stopped.

    Args:
        host: 127.0.0.1 for this machine alone. port: 0 takes any that is free. ready: is told the page's address.
        password: asked of whoever comes, under the name "mynah". Without one, those who come from elsewhere cannot keep voices.
    Raises:
        MissingPackageError: the extra "app" is not installed. CheckpointError, SettingsError: the system cannot be loaded.
        OutputError: the address is taken, or not this machine's.
    """
    import socket

    gradio()
    check_password(password)
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise OutputError(f"the page cannot be at {host}:{port} ({reason}); give another --port, or --host") from error
    with listening, ending_folder() as folder:
        app = build_app(Synthesizer.from_pretrained(system, device), folder, host, password)
        shown = f"[{host}]" if ":" in host else host
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        ready(f"http://{shown}:{listening.getsockname()[1]}/")
        server.run(sockets=[listening])


def build_app(synthesizer: Synthesizer, folder: Path, host: str = "127.0.0.1", password: str | None = None) -> Any:
    """The FastAPI application of the page. folder: of its own, for what is uploaded and made. Raises MissingPackageError."""
    gr = gradio()
    from fastapi import FastAPI, Request
    from fastapi.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    check_password(password)
    studio = Studio(synthesizer)
    cabinet = Cabinet(synthesizer, open=host in LOOPBACK or password is not None)
    blocks = build_page(gr, studio, cabinet, folder)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host in LOOPBACK:  # a page elsewhere cannot make its own name mean this machine
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])

    @app.middleware("http")
    async def only_here(request: Request, call_next: Any) -> Response:
        answer = await call_next(request)
        answer.headers["Content-Security-Policy"] = ONLY_HERE
        answer.headers["Referrer-Policy"] = "no-referrer"
        return answer

    @app.get("/speech/{name}")
    def speech(name: str) -> Response:
        pieces = studio.streams.listen(name)
        if pieces is None:
            return PlainTextResponse("there is no such stream, or it was heard before", 404)
        headers = {"X-Sample-Rate": str(synthesizer.system.sample_rate), "Cache-Control": "no-store"}
        return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)

    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth=("mynah", password) if password is not None else None,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        theme=theme(gr),
        css=(LOOK / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{(LOOK / 'page.js').read_text(encoding='utf-8')}</script>",
    )


def check_password(password: str | None) -> None:
    """Raises SettingsError."""
    if password is not None and not password:
        raise SettingsError("the password is empty; give one, or leave it away")


def build_page(gr: Any, studio: Studio, cabinet: Cabinet, folder: Path) -> Any:
    """The Blocks of the page."""
    with gr.Blocks(title="Mynah", analytics_enabled=False, delete_cache=KEPT) as blocks:
        gr.HTML(HEAD)
        kit = Kit(gr, studio, cabinet, folder)
        with gr.Tabs():
            for name, fill in TABS.items():
                with gr.Tab(name):
                    fill(kit)
        kit.follow(blocks)
    return blocks.queue(max_size=WAITING)


def theme(gr: Any) -> Any:
    """Warm paper, dark ink, and the orange of a mynah's beak; only fonts that the reader's machine has."""
    shades = ("c50", "c100", "c200", "c300", "c400", "c500", "c600", "c700", "c800", "c900", "c950")
    beak, paper = (
        gr.themes.Color(name=name, **dict(zip(shades, values, strict=True)))
        for name, values in (("beak", BEAK), ("paper", PAPER))
    )
    fonts = [
        gr.themes.Font(name) for name in ("Inter", "system-ui", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif")
    ]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "DejaVu Sans Mono", "monospace")]
    base = gr.themes.Base(
        primary_hue=beak,
        secondary_hue=beak,
        neutral_hue=paper,
        radius_size="lg",
        spacing_size="md",
        text_size="md",
        font=fonts,
        font_mono=mono,
    )
    return base.set(
        body_background_fill="*neutral_50",
        block_background_fill="white",
        block_border_color="*neutral_200",
        block_label_background_fill="transparent",
        block_label_text_color="*neutral_600",
        block_title_text_color="*neutral_700",
        block_title_text_weight="550",
        block_shadow="none",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        block_background_fill_dark="*neutral_900",
        body_background_fill_dark="*neutral_950",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        slider_color="*primary_500",
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_focus="*primary_500",
        button_large_text_size="*text_md",
        button_large_text_weight="550",
        button_large_padding="9px 16px",
    )


@contextmanager
def ending_folder() -> Iterator[Path]:
    """A folder for all that is uploaded and made while this lasts; Gradio keeps its files there, too."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="mynah-", ignore_cleanup_errors=True) as name:
        os.environ["GRADIO_TEMP_DIR"] = name
        try:
            yield Path(name).resolve()
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def gradio() -> Any:
    """The package. Raises MissingPackageError, saying what to install."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it asks its makers for news, otherwise
    try:
        import gradio as gr
    except ImportError as error:
        raise MissingPackageError(f"the page is made with Gradio 6 ({error}); pip install 'mynah-tts[app]'") from error
    return gr
