"""`ousel-engine token`: makes a token for one client, and the line that lets it in."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from engine.failures import WrongValue
from engine.security.roles import Role
from engine.security.tokens import TokenLineError, new_token


def make_token(name: str, roles: Iterable[Role], expires: str | None) -> None:
    """Prints a new token, and its line for the file that engines read."""
    try:
        made, line = new_token(name, dict.fromkeys(roles), expires)
    except TokenLineError as error:
        raise WrongValue(f"ousel-engine token: {error}") from None
    # What is meant for people goes beside the output, so that a script reads a token and a line.
    print("The token, which is shown only now; the client sends it as `authorization: Bearer TOKEN`:", file=sys.stderr)
    print(made, flush=True)
    print("The line for the file that security.tokens_file names:", file=sys.stderr)
    print(line)
