"""TLS, certificates and tokens of the client, against a server that asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from ousel import AsyncClient, Client, Credentials, InvalidArgument, Unavailable
from ousel.channel import engines
from ousel.cli import main
from ousel.v1 import model_service_pb2, model_service_pb2_grpc

from deploy.local.certificates import issue_certificate, issue_certificates

TOKEN = "s3cret-token"


class Engine(model_service_pb2_grpc.ModelServiceServicer):
    """Tells what it is asked with: the `authorization` of each call, and the certificate's name of its caller."""

    def __init__(self, credentials: grpc.ServerCredentials | None, address: str = "127.0.0.1") -> None:
        self.authorizations: list[Any] = []
        self.callers: list[Any] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        listen = self._server.add_insecure_port if credentials is None else self._server.add_secure_port
        self.port = listen(f"{address}:0", *([] if credentials is None else [credentials]))
        self._server.start()

    def GetStatus(self, request: Any, context: grpc.ServicerContext) -> model_service_pb2.GetStatusResponse:
        self.authorizations.append(dict(context.invocation_metadata()).get("authorization"))
        self.callers.append(context.auth_context().get("x509_common_name"))
        return model_service_pb2.GetStatusResponse(serving=True)

    def stop(self) -> None:
        self._server.stop(None).wait(10)


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("issued") / "tls"
    issue_certificates(folder)
    issue_certificate(folder, "client", "shop")
    return folder


@pytest.fixture
def plain() -> Iterator[Engine]:
    engine = Engine(None)
    yield engine
    engine.stop()


@pytest.fixture
def secure(issued: Path) -> Iterator[Engine]:
    """Asks for a certificate of the same authority."""
    pair = (issued / "server.key").read_bytes(), (issued / "server.crt").read_bytes()
    authority = (issued / "ca.pem").read_bytes()
    engine = Engine(grpc.ssl_server_credentials([pair], authority, require_client_auth=True))
    yield engine
    engine.stop()


def with_files(issued: Path, **more: Any) -> Credentials:
    return Credentials(
        authorities=issued / "ca.pem", certificate=issued / "client.crt", key=issued / "client.key", **more
    )


async def test_both_clients_show_their_certificate_and_check_the_engines(secure, issued):
    address, credentials = f"localhost:{secure.port}", with_files(issued, token=TOKEN)
    with Client(address, credentials=credentials) as client:
        assert client.status().serving
    async with AsyncClient(address, credentials=credentials) as client:
        assert (await client.status()).serving
    assert secure.callers == [[b"shop"]] * 2
    assert secure.authorizations == [f"Bearer {TOKEN}"] * 2


def test_several_engines_have_the_name_of_the_first_in_their_certificates_or_the_given_one(secure, issued):
    two = [f"localhost:{secure.port}", f"127.0.0.1:{secure.port}"]
    with Client(two, credentials=with_files(issued)) as client:
        assert client.status().serving
    with Client(f"127.0.0.1:{secure.port}", credentials=with_files(issued, server_name="localhost")) as client:
        assert client.status().serving
    with (
        Client(two, timeout_s=1, credentials=with_files(issued, server_name="elsewhere")) as client,
        pytest.raises(Unavailable),
    ):
        client.status()


def test_a_client_without_a_certificate_or_with_another_authority_is_not_answered(secure, issued, tmp_path):
    other = issue_certificates(tmp_path / "other")
    for credentials in (Credentials(authorities=issued / "ca.pem"), Credentials(authorities=other), None):
        with (
            Client(f"localhost:{secure.port}", timeout_s=2, credentials=credentials) as client,
            pytest.raises(Unavailable),
        ):
            client.status()
    assert secure.callers == []


def test_a_token_file_is_read_again_when_it_changes(plain, tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with Client(f"127.0.0.1:{plain.port}", credentials=Credentials(token_file=file)) as client:
        client.status()
        new = tmp_path / "new"
        new.write_text("another-one")
        new.replace(file)
        client.status()
        file.write_text("no token")
        client.status()
        file.unlink()
        client.status()
    assert plain.authorizations == [f"Bearer {TOKEN}", *["Bearer another-one"] * 3]


@pytest.mark.parametrize("address", ["engine:50051", "10.0.0.1:50051", "dns:///engine:50051", "ipv4:10.0.0.1:1"])
def test_a_token_goes_in_plain_text_to_the_loopback_only_unless_that_is_said(address, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    for credentials in (Credentials(token=TOKEN), Credentials(token_file=file)):
        with pytest.raises(InvalidArgument, match=r"a token would go to .* in plain text") as refused:
            engines(address, credentials)
        assert TOKEN not in str(refused.value)
    assert engines(address, Credentials(token=TOKEN, insecure=True)).metadata()
    assert engines(address, Credentials(token=TOKEN, tls=True)).metadata()
    assert engines(address).metadata() is None


@pytest.mark.parametrize(
    "address", ["localhost:1", "127.0.0.1:1", "[::1]:1", "127.8.8.8:1", "unix:/tmp/x", "ipv6:[::1]:1"]
)
def test_the_loopback_is_known_by_its_names(address):
    assert engines(address, Credentials(token=TOKEN)).metadata() == (("authorization", f"Bearer {TOKEN}"),)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"certificate": "a"}, "certificate needs key"),
        ({"key": "a"}, "key needs certificate"),
        ({"token": "a", "token_file": "b"}, "only one of token and token_file"),
        ({"token": f"{TOKEN} {TOKEN}"}, "token must be a text of visible ASCII characters"),
        ({"token": f"{TOKEN}\n"}, "token must be a text of visible ASCII characters"),
        ({"token": 7}, "token must be a text"),
        ({"token_file": b"a"}, "token_file must be the path of a file"),
        ({"tls": "no"}, "tls must be True or False"),
    ],
)
def test_credentials_that_are_none_are_refused_and_never_shown(given, said):
    with pytest.raises(InvalidArgument, match=said) as refused:
        Credentials(**given)
    assert TOKEN not in str(refused.value)
    assert TOKEN not in repr(Credentials(token=TOKEN))


def test_a_file_that_cannot_be_read_is_named_unless_it_may_be_the_token_itself(tmp_path):
    with pytest.raises(InvalidArgument, match=r"authorities must name a file that can be read, got '/no/such.pem'"):
        engines("a:1", Credentials(authorities="/no/such.pem"))
    with pytest.raises(InvalidArgument, match=r"token_file must name a file that can be read, got '.*gone'"):
        engines("127.0.0.1:1", Credentials(token_file=tmp_path / "gone"))
    with pytest.raises(InvalidArgument, match="token_file must name a file that can be read") as refused:
        engines("127.0.0.1:1", Credentials(token_file=TOKEN))
    assert TOKEN not in str(refused.value)
    (tmp_path / "empty").touch()
    with pytest.raises(InvalidArgument, match="the token in token_file must be a text"):
        engines("127.0.0.1:1", Credentials(token_file=tmp_path / "empty"))


def test_several_addresses_are_one_target_of_numbers():
    assert engines(["localhost:1", "127.0.0.1:2"]).target == "ipv4:127.0.0.1:1,127.0.0.1:2"
    assert engines(["[::1]:1", "[::1]:2"]).target == "ipv6:[::1]:1,[::1]:2"
    assert engines(["127.0.0.1:1"]).target == "127.0.0.1:1"
    with pytest.raises(InvalidArgument, match="all be of IPv4, or all of IPv6"):
        engines(["127.0.0.1:1", "[::1]:2"])
    with pytest.raises(
        InvalidArgument, match=r"address must be host:port of a host that is known, got 'no\.invalid:1'"
    ):
        engines(["127.0.0.1:1", "no.invalid:1"])


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("OUSEL_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_the_command_line_takes_them_from_options_and_from_variables(secure, issued, tmp_path, variables, capsys):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    files = ["--tls-ca", issued / "ca.pem", "--tls-cert", issued / "client.crt", "--tls-key", issued / "client.key"]
    address = ["--address", f"localhost:{secure.port}"]
    assert main([*map(str, [*address, *files, "--token-file", token]), "status", "--json"]) == 0
    for name, value in zip(("CA", "CERT", "KEY"), files[1::2], strict=True):
        variables.setenv(f"OUSEL_TLS_{name}", str(value))
    variables.setenv("OUSEL_TOKEN", TOKEN)
    assert main(["status", "--json", *address]) == 0
    assert secure.authorizations == [f"Bearer {TOKEN}"] * 2
    assert '"serving": true' in capsys.readouterr().out


def test_the_command_line_says_which_option_is_wrong(variables, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["status", "--tls-key", "k"])
    assert ended.value.code == 2
    assert "--tls-key needs certificate" in capsys.readouterr().err
    assert main(["status", "--tls-ca", str(tmp_path / "gone.pem")]) == 2
    assert "--tls-ca must name a file that can be read" in capsys.readouterr().err
    variables.setenv("OUSEL_TOKEN", TOKEN)
    assert main(["status", "--address", "10.0.0.1:1"]) == 2
    said = capsys.readouterr().err
    assert "a token would go to 10.0.0.1 in plain text" in said
    assert TOKEN not in said
