"""The `ousel` command as a test calls it."""

from __future__ import annotations

from ousel.cli import main

# A shell may have started the tests with Ctrl-C ignored.
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from ousel.cli import main; sys.exit(main())"
)


def run(capsys, *arguments):
    """Runs the command; returns its exit code, and what it printed to both outputs."""
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err
