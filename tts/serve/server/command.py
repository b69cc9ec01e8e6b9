"""What `mynah serve` takes, and how the server begins and ends; what it answers is in tts/serve/http.py."""

from __future__ import annotations

import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tts.errors import MissingPackageError, SettingsError

if TYPE_CHECKING:
    from tts.pipeline import Synthesizer

KEYS = "MYNAH_API_KEYS"  # the environment variable that holds them
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def serve(
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 is every one of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Requests spoken at once; one a core, or 16 on a GPU, if not given.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of each request; with another number the last bits may differ.")] = 1,
    api_key_file: Annotated[Path | None, typer.Option(help=f"Keys, one a line; {KEYS} holds others.")] = None,
    max_characters: Annotated[int, typer.Option(min=1, help="Of a text.")] = 10_000,
    max_upload: Annotated[float, typer.Option(min=0.01, help="MB of a recording.")] = 10.0,
    max_seconds: Annotated[float, typer.Option(min=1, help="Of a recording.")] = 60.0,
    max_waiting: Annotated[int, typer.Option(min=0, help="Requests that wait for their turn; the next is answered 429.")] = 64,
    system: Annotated[
        str, typer.Option(help="A system that comes with the package, or the folder of a checkpoint.")
    ] = "base-en",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Speak over HTTP, as OpenAI's clients ask for it; docs/server.md has examples."""
    try:
        import uvicorn
    except ImportError as error:
        raise MissingPackageError("the server needs uvicorn; run `pip install 'mynah-tts[serve]'`") from error
    from tts.serve.batch import count_workers
    from tts.serve.http import ServerConfig, make_app
    from tts.serve.server.guard import LOOPBACK, Limits
    from tts.together import MOST

    # 1. what is asked
    keys = find_keys(api_key_file)
    limits = Limits(characters=max_characters, upload=round(max_upload * 2**20), seconds=max_seconds, waiting=max_waiting)
    at_once = MOST if device.startswith("cuda") else count_workers(device)
    config = ServerConfig(workers if workers is not None else at_once, host, keys, limits)
    if host not in LOOPBACK and not keys:
        errors.print(f"warning: whoever reaches {host} may use this server; give --api-key-file or {KEYS}", markup=False)
    listening = _listen(host, port)
    # 2. what speaks
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    app = make_app(_load(system, device, threads), config)
    # 3. until somebody stops it
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            server_header=False,
            access_log=False,
            log_level="warning",
            backlog=128,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=round(limits.patience),
        )
    )
    typer.echo(f"http://{host}:{listening.getsockname()[1]}/v1: {config.workers} workers; Ctrl-C ends it")
    sys.stdout.flush()
    with listening:
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn has ended in good order, and hands it on
            sys.exit(130)


def find_keys(file: Path | None) -> frozenset[bytes]:
    """Digests of the keys in a file and in the environment. Raises SettingsError."""
    from tts.serve.server.guard import read_keys

    try:
        written = file.read_text(encoding="utf-8") if file is not None else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{file} cannot be read ({getattr(error, 'strerror', None) or error}); give a file with an API key in each line"
        ) from error
    keys = read_keys(written)
    if file is not None and not keys:
        raise SettingsError(f"{file} holds no API key; write one in each line")
    return keys | read_keys(os.environ.get(KEYS, ""))


def _listen(host: str, port: int) -> socket.socket:
    """Before the weights are loaded, so that a port that is taken is known at once. Raises SettingsError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(found[0], socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(found[4])
    except OSError as error:
        raise SettingsError(
            f"nothing can listen at {host}, port {port} ({error.strerror}); give another --port, or --host"
        ) from error
    return listening


def _load(system: str, device: str, threads: int) -> Synthesizer:
    """A system that has spoken once, so that nobody waits for what is imported and made when first used."""
    import torch

    from tts.pipeline import Synthesizer

    torch.set_num_threads(threads)
    synthesizer = Synthesizer.from_pretrained(system, device)
    for _ in synthesizer.stream("I am ready.", check=True):
        pass
    synthesizer.synthesize("I am ready.")
    import librosa.effects  # noqa: F401  which reads recordings, and takes long to come

    return synthesizer
