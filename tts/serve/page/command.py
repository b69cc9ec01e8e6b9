"""What `mynah demo` takes; the page itself is opened by tts/serve/demo.py."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console

errors = Console(stderr=True, highlight=False, soft_wrap=True)
PASSWORD = "MYNAH_PASSWORD"  # the environment variable that holds it


def demo(
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 is every one of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 7860,
    password: Annotated[
        str | None,
        typer.Option(help=f"Asked of whoever comes, for the user mynah; or in {PASSWORD}, where nobody sees it."),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    system: Annotated[
        str, typer.Option(help="A system that comes with the package, or the folder of a checkpoint.")
    ] = "base-en",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Open a web page to speak, compare, edit and read aloud; docs/demo.md shows it."""
    from tts.serve.demo import LOOPBACK, open_page

    password = password if password is not None else os.environ.get(PASSWORD)
    if host not in LOOPBACK and password is None:
        errors.print(
            f"warning: whoever reaches {host} may use this page and the voices you keep, but not add or remove any; "
            f"give --password or {PASSWORD}",
            markup=False,
        )

    def ready(address: str) -> None:
        typer.echo(f"Mynah is at {address} until Ctrl-C")
        if browser:
            import webbrowser

            webbrowser.open(address)

    open_page(system, device, host, port, password, ready)


def run() -> None:
    """The same without the other commands, for app.py. Exits with 2 where it cannot be done."""
    import sys

    from tts.errors import MynahError

    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command()(demo)
    try:
        alone(prog_name="app.py")
    except MynahError as error:
        errors.print(f"mynah: {error}", markup=False)
        sys.exit(2)
