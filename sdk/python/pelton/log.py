"""Lines for `pelton pipeline logs`. A call may write 100 lines of 1 KiB; what is over is dropped and counted. Without
pelton, as in unit tests, lines go to standard error."""

import sys


def debug(text):
    """For the author of the plugin."""
    _write("DEBUG", text)


def info(text):
    """Normal progress."""
    _write("INFO", text)


def warn(text):
    """Something was odd, and was dealt with."""
    _write("WARN", text)


def error(text):
    """Something failed."""
    _write("ERROR", text)


try:
    from wit_world.imports import log as _host

    def _write(level, text):
        _host.write(_host.Level[level], str(text))

except ModuleNotFoundError:

    def _write(level, text):
        print(f"{level.lower()}: {text}", file=sys.stderr)
