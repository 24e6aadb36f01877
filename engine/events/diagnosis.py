"""Why a broker can't be reached, in one line that says what to check.

Brokers and the client tell little: a refused password, an unknown authority and a wrong port all end in the same
timeout. So the layers are tried one by one, connection, TLS, Kafka, the address for clients, and the first that fails
is named.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any

from kafka.errors import IllegalSaslStateError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError

from engine.config import KafkaConfig
from engine.events.probe import Failure, probe

_CONNECT_S = 2.0  # for one address to accept a connection, and for TLS on it
_ANSWER_S = 3.0  # for a broker that accepted one to answer as Kafka
# A refusal is often lost when the broker hangs up behind it: a few tries get the reason.
_TRIES = 8
_PAUSE_S = 0.05

_USUAL_PORT = "9092"
_OBJECTION_S = 0.5  # for a server to say that it wants a client's certificate

# OpenSSL's codes of X509_verify_cert.
_EXPIRED = (9, 10)
_OTHER_NAME = (62, 63, 64)


_TELLING = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, IllegalSaslStateError)


def connection_problem(config: KafkaConfig, settings: Mapping[str, Any], *, everywhere: bool = False) -> str | None:
    """Tries to reach a broker, at its address and at the one that it gives its clients.

    Args:
        settings: those of kafka-python's clients.
        everywhere: whether all brokers of the cluster must be reached, which partitions may need; else one is enough.

    Returns:
        None where they answer, else what is wrong and what to check, without secrets.
    """
    first: str | None = None
    for address in config.bootstrap.split(","):
        if _accepts(address):
            problem = _address_problem(config, settings, address, everywhere)
            if problem is None:
                return None
            first = first or problem
    return first or f"no Kafka broker at {config.bootstrap}: check kafka.bootstrap and that the broker runs"


def _address_problem(config: KafkaConfig, settings: Mapping[str, Any], address: str, everywhere: bool) -> str | None:
    if config.security_protocol.endswith("SSL"):
        problem = _tls_problem(config, address)
        if problem is not None:
            return problem
    failure = _kafka_failure({**settings, "bootstrap_servers": address}, everywhere)
    return None if failure is None else _explained(config, address, failure)


def _explained(config: KafkaConfig, address: str, failure: Failure) -> str:
    """The cause of an error of the Kafka protocol: the certain one where the error says so, else the likely one."""
    protocol, error = config.security_protocol, failure.error
    if failure.advertised:
        return (
            f"{address} answers, but sends its clients to {failure.advertised}, which can't be reached ({error}): check"
            " advertised.listeners of that broker, and that this machine knows the name and may connect"
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"{address} does not offer kafka.sasl_mechanism={config.sasl_mechanism}: check which one it wants"
    if isinstance(error, IllegalSaslStateError):
        return f"{address} wants no SASL: check the port and kafka.security_protocol={protocol}"
    if isinstance(error, SaslAuthenticationFailedError) or (failure.hung_up and protocol.startswith("SASL")):
        who = f"kafka.sasl_username={config.sasl_username!r}"
        return (
            f"{address} refuses {who}: check it, kafka.sasl_password and kafka.sasl_mechanism={config.sasl_mechanism}"
        )
    if failure.hung_up:
        wanted = "SASL_SSL" if protocol == "SSL" else "SASL_PLAINTEXT"
        return f"{address} hangs up on a client without a password: it may want kafka.security_protocol={wanted}"
    if not protocol.endswith("SSL") and _speaks_tls(address):
        return f"{address} speaks TLS: kafka.security_protocol must be SSL or SASL_SSL for this port, got {protocol}"
    if protocol.endswith("SSL"):
        problem = _tls_problem(config, address, _OBJECTION_S)
        if problem is not None:
            return problem
    return (
        f"{address} accepts connections but does not answer as a Kafka broker ({error}):"
        f" check the port and kafka.security_protocol={protocol}"
    )


def _tls_problem(config: KafkaConfig, address: str, listen_s: float = 0.0) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = config.ssl_check_hostname
    try:
        if config.ssl_cafile is not None:
            context.load_verify_locations(config.ssl_cafile)
        else:
            context.load_default_certs()
    except OSError as error:
        return f"kafka.ssl_cafile must name a file of certificates in PEM form, got {config.ssl_cafile} ({error})"
    try:
        if config.ssl_certfile is not None:
            context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile)
    except OSError as error:
        names = f"{config.ssl_certfile} and {config.ssl_keyfile}"
        return f"kafka.ssl_certfile and kafka.ssl_keyfile must be a certificate and its key, got {names} ({error})"
    try:
        _handshake(address, context, listen_s)
    except ssl.SSLCertVerificationError as error:
        return _untrusted(config, address, error)
    except OSError as error:
        if "CERTIFICATE_REQUIRED" in str(error):
            return f"{address} wants a client certificate: set kafka.ssl_certfile and kafka.ssl_keyfile"
        if "ALERT" in str(error):
            return f"{address} refuses the TLS connection ({error}): check kafka.ssl_certfile and kafka.ssl_keyfile"
        where = "check the port and"
        return f"{address} does not speak TLS ({error}): {where} kafka.security_protocol={config.security_protocol}"
    return None


def _untrusted(config: KafkaConfig, address: str, error: ssl.SSLCertVerificationError) -> str:
    why = error.verify_message
    if error.verify_code in _OTHER_NAME:
        return f"the certificate of {address} is for another name ({why}): check kafka.bootstrap, the name must match"
    if error.verify_code in _EXPIRED:
        return f"the certificate of {address} is not valid now ({why}): check it, and this machine's clock"
    trusted = (
        f"kafka.ssl_cafile={config.ssl_cafile}" if config.ssl_cafile else "the system, kafka.ssl_cafile is not set"
    )
    return f"the certificate of {address} is not signed by an authority of {trusted} ({why}): check kafka.ssl_cafile"


def _speaks_tls(address: str) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the question is only whether there is TLS: nothing is sent over it
    try:
        _handshake(address, context)
    except OSError:
        return False
    return True


def _handshake(address: str, context: ssl.SSLContext, listen_s: float = 0.0) -> None:
    host, port = _parsed(address)
    with (
        socket.create_connection((host, port), _CONNECT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        # With TLS 1.3 a server looks at the client's certificate when the handshake is over for the client.
        connection.settimeout(listen_s)
        try:
            connection.recv(1)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            pass  # Kafka never speaks first


def _accepts(address: str) -> bool:
    try:
        socket.create_connection(_parsed(address), _CONNECT_S).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _parsed(address: str) -> tuple[str, int]:
    """Host and port; kafka-python, which connects in the end, takes the same port where none is given."""
    host, _, port = address.strip().rpartition(":")
    if not host or port.endswith("]"):
        host, port = address.strip(), _USUAL_PORT
    return host.strip("[]"), int(port)


def _kafka_failure(settings: Mapping[str, Any], everywhere: bool) -> Failure | None:
    """The most telling failure of a few tries; None where a broker tells its metadata and can be reached."""
    deadline = time.monotonic() + _ANSWER_S
    told: Failure | None = None
    for _ in range(_TRIES):
        left_s = deadline - time.monotonic()
        # A try that ends before it has connected leaves its socket open until the garbage collector comes.
        if left_s < _PAUSE_S:
            break
        failure = probe(settings, left_s, _CONNECT_S, everywhere=everywhere)
        if failure is None or failure.advertised or isinstance(failure.error, _TELLING):
            return failure
        if told is None or failure.hung_up:
            told = failure
        time.sleep(_PAUSE_S)
    return told
