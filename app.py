"""The web page on this machine: `python app.py` opens what `mynah demo` opens, with its options."""

from tts.serve.page.command import run

if __name__ == "__main__":
    run()
