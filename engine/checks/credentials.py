"""Does the engine ask its callers who they are, where others can reach it, and can it read the tokens?"""

from __future__ import annotations

from collections.abc import Iterator

from engine.checks.finding import Finding, error, ok, warning
from engine.config import Config, ConfigError
from engine.security.exposure import check_exposure, on_loopback
from engine.security.token_file import TokenFile


def look_at_credentials(config: Config) -> Iterator[Finding]:
    """Whether a start is refused for want of credentials, and what the tokens file holds."""
    try:
        check_exposure(config)
        tokens = None if config.security.tokens_file is None else TokenFile(config.security.tokens_file)
    except ConfigError as problem:
        yield error(str(problem))
        return
    if tokens is not None:
        yield ok(f"security.tokens_file {config.security.tokens_file} has so many tokens: {len(tokens.in_force)}")
    elif config.tls.client_authorities is not None:
        yield ok("callers are known by the certificates that tls.client_authorities signs")
    elif on_loopback(config.serving.host):
        yield ok(f"no credentials are asked for, and only this machine can reach serving.host={config.serving.host}")
    else:
        yield warning(
            f"no credentials are asked for on {config.serving.host} (serving.insecure = true): whoever reaches the port"
            " can push models, and export and forget users; set security.tokens_file or tls.client_authorities"
        )
