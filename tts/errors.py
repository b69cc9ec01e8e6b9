"""Every error Mynah raises on purpose, in one tree.

    MynahError
    ├── InputError (ValueError)        what a person gave cannot be used
    │   ├── TextError                  empty, or nothing in it can be pronounced
    │   ├── LanguageError              a language the front end or the checkpoint does not know
    │   ├── PromptError                a recording that is missing, broken, silent, too short or too long
    │   ├── SettingsError              an unknown or impossible option, setting, backend or config key
    │   └── OutputError                a path that cannot be written
    ├── CheckpointError                weights that are truncated, of another version, or not what they say
    │   └── FitError                   two parts of a system do not speak the same frames or symbols
    ├── ShapeError (ValueError)        a tensor of the wrong shape at a public boundary
    ├── TrainingError                  a training run that can go no further
    └── MissingPackageError (ImportError)   an optional package is needed; the message says how to install it

A message names what was got, what is accepted, and what to do.
"""


class MynahError(Exception):
    """The root: `except MynahError` catches everything below."""


class InputError(MynahError, ValueError):
    """What a person gave cannot be used."""


class TextError(InputError):
    """The text is empty, or nothing in it can be pronounced."""


class LanguageError(InputError):
    """The language is unknown to the front end or not listed by the checkpoint."""


class PromptError(InputError):
    """The recording is missing, broken, silent, too short or too long."""


class SettingsError(InputError):
    """An option, a setting, a backend name or a config key is unknown or impossible."""


class OutputError(InputError):
    """A path cannot be written."""


class CheckpointError(MynahError):
    """Weights are truncated, of another format version, or not what they say they are."""


class FitError(CheckpointError):
    """Two parts of a system do not speak the same frames or symbols."""


class ShapeError(MynahError, ValueError):
    """A tensor has the wrong shape at a public boundary."""


class TrainingError(MynahError):
    """A training run can go no further: its loss or its weights are no longer finite."""


class MissingPackageError(MynahError, ImportError):
    """An optional package is needed; the message says how to install it."""


def nearest(name: str, legal: list[str]) -> str:
    """A hint for a mistyped name: " (did you mean 'steps'?)", or "" when nothing is close."""
    from difflib import get_close_matches

    close = get_close_matches(name, legal, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
