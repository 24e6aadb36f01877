import asyncio
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from ousel.v1.model_service_pb2 import GetStatusRequest
from ousel.v1.model_service_pb2_grpc import ModelServiceStub
from ousel.v1.recommender_service_pb2 import Query, RecommendRequest
from prometheus_client.parser import text_string_to_metric_families

from engine.config import Config, ServingConfig
from engine.serving.ports import PortTaken
from engine.serving.server import SERVICES, Server
from tests.engine.serving.fakes import FakeEngine, Served, failure, ranking, until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that someone else listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def make(**serving: object) -> Server:
    engine = FakeEngine()
    config = Config(serving=ServingConfig(**{"port": 0, "metrics_port": 0, **serving}))
    return Server(config, engine, engine.subscriptions, None)


def can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def test_health_follows_the_engine_for_every_service(served: Served):
    stub = health_pb2_grpc.HealthStub(served.channel)

    async def states() -> set[int]:
        requests = [health_pb2.HealthCheckRequest(service=service) for service in ("", *SERVICES)]
        return {(await stub.Check(request)).status for request in requests}

    assert await states() == {NOT_SERVING}
    await served.server.set_serving(True)
    assert await states() == {SERVING}
    await served.server.set_serving(False)
    assert await states() == {NOT_SERVING}
    unknown = stub.Check(health_pb2.HealthCheckRequest(service="ousel.v1.Guess"))
    assert (await failure(unknown))[0] is grpc.StatusCode.NOT_FOUND


async def test_health_watchers_hear_of_a_change_and_of_the_end(served: Served):
    watch = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == NOT_SERVING
    await served.server.set_serving(True)
    assert (await watch.read()).status == SERVING
    stopping = asyncio.create_task(served.server.stop(5))
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()
    await stopping


async def test_a_stock_reflection_client_lists_and_describes_our_services(served: Served):
    def look() -> tuple[set[str], dict[str, list[str]]]:
        with grpc.insecure_channel(f"127.0.0.1:{served.server.port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            pool = descriptor_pool.DescriptorPool(database)
            methods = {name: [m.name for m in pool.FindServiceByName(name).methods] for name in SERVICES}
            return set(database.get_services()), methods

    services, methods = await asyncio.to_thread(look)
    assert services >= {
        "ousel.v1.RecommenderService",
        "ousel.v1.EventService",
        "ousel.v1.ModelService",
        "ousel.v1.PrivacyService",
        "ousel.v1.StateService",
    }
    assert methods["ousel.v1.RecommenderService"] == ["Recommend", "RecommendBatch", "StreamRecommendations"]
    assert methods["ousel.v1.ModelService"] == [
        "PushWeights",
        "RollBack",
        "ListModels",
        "PinModel",
        "UnpinModel",
        "PruneModels",
        "GetStatus",
    ]
    assert methods["ousel.v1.PrivacyService"] == ["ForgetUser", "ExportUser"]
    assert methods["ousel.v1.StateService"] == ["GetDigest", "TakeSnapshot"]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_of_both_versions_describes_itself_and_our_services(served: Served, version: str):
    """The messages are those that the server itself describes: a client of v1 has never heard of v1alpha."""
    service = f"grpc.reflection.{version}.ServerReflection"
    ask = served.channel.stream_stream(f"/{service}/ServerReflectionInfo")()
    await ask.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service).SerializeToString())
    answer = reflection_pb2.ServerReflectionResponse.FromString(await ask.read())
    pool = descriptor_pool.DescriptorPool()
    for file in reversed(answer.file_descriptor_response.file_descriptor_proto):
        pool.AddSerializedFile(file)
    method = pool.FindServiceByName(service).methods_by_name["ServerReflectionInfo"]
    request, response = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
    assert method.input_type.full_name == f"grpc.reflection.{version}.ServerReflectionRequest"

    await ask.write(request(list_services="").SerializeToString())
    listed = {one.name for one in response.FromString(await ask.read()).list_services_response.service}
    assert listed >= {*SERVICES, "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
    for name in sorted(listed):
        await ask.write(request(file_containing_symbol=name).SerializeToString())
        described = response.FromString(await ask.read())
        assert described.WhichOneof("message_response") == "file_descriptor_response", name
    await ask.done_writing()
    assert await ask.code() is grpc.StatusCode.OK


async def test_metrics_parse_and_hold_what_operators_need(served: Served):
    await served.model.GetStatus(GetStatusRequest())

    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{served.server.metrics_port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    families = {family.name: family for family in text_string_to_metric_families(await asyncio.to_thread(scrape))}
    assert set(families) >= {
        "ousel_events_folded",
        "ousel_lag_records",
        "ousel_freshness_seconds",
        "ousel_request_seconds",
        "ousel_model_version",
        "ousel_index_items",
        "ousel_streams",
    }
    latency = {(s.name, s.labels["method"]): s.value for s in families["ousel_request_seconds"].samples}
    assert latency["ousel_request_seconds_count", "ModelService/GetStatus"] >= 1


async def test_a_taken_grpc_port_is_one_clear_line_and_gives_the_other_port_free(taken: int, capfd):
    server = make(port=taken)
    with pytest.raises(PortTaken) as caught:
        await server.start()
    assert str(caught.value) == f"can't listen on 127.0.0.1:{taken} for gRPC: Address already in use"
    assert can_bind(server.metrics_port)
    assert capfd.readouterr() == ("", "")
    await server.stop(0)


async def test_a_taken_metrics_port_is_one_clear_line_and_takes_no_other_port(taken: int, capfd):
    server = make(metrics_port=taken)
    with pytest.raises(PortTaken) as caught:
        await server.start()
    assert str(caught.value) == f"can't listen on 127.0.0.1:{taken} for metrics: Address already in use"
    assert capfd.readouterr() == ("", "")
    assert server.port == 0


async def test_a_second_engine_does_not_share_the_port_of_a_first(served: Served):
    with pytest.raises(PortTaken, match=f"127.0.0.1:{served.server.port} for gRPC"):
        await make(port=served.server.port).start()
    with pytest.raises(PortTaken, match=f"127.0.0.1:{served.server.metrics_port} for metrics"):
        await make(metrics_port=served.server.metrics_port).start()


async def test_an_address_of_another_machine_is_refused_with_its_reason():
    with pytest.raises(PortTaken, match=r"can't listen on 192\.0\.2\.1:50051 for gRPC: Cannot assign"):
        await make(host="192.0.2.1", port=50051).start()


async def test_stopping_frees_both_ports_and_may_be_repeated():
    server = make()
    await server.start()
    ports = [server.port, server.metrics_port]
    assert not any(map(can_bind, ports))
    await server.stop(0)
    await server.stop(0)
    assert all(map(can_bind, ports))


async def test_stopping_lets_a_running_call_finish(served: Served):
    served.engine.hold = True
    call = served.recommender.Recommend(RecommendRequest(query=Query(user_id="u", k=1)))
    await until(lambda: bool(served.engine.asked_futures), "the engine is asked")
    stopping = asyncio.create_task(served.server.stop(30))
    await asyncio.sleep(0.02)
    served.engine.asked_futures[0].set_result(ranking("a"))
    assert (await call).list.items[0].item_id == "a"
    async with asyncio.timeout(5):
        await stopping


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Lets connections say nothing for as long as they like, unless a test sets one of the two times."""
    monkeypatch.setattr("engine.serving.server._FIRST_FRAME_MS", 3_600_000)
    monkeypatch.setattr("engine.serving.server._IDLE_MS", 3_600_000)
    return monkeypatch


def closed_of(opened: list[socket.socket]) -> list[socket.socket]:
    """Those of some non-blocking sockets that the server has closed."""
    found = []
    for one in opened:
        try:
            while one.recv(1024):
                pass
            found.append(one)
        except BlockingIOError:
            pass
        except OSError:
            found.append(one)
    return found


@pytest.mark.parametrize("config", [ServingConfig(port=0, metrics_port=0, max_connections=3)], indirect=True, ids=["3"])
async def test_connections_beyond_the_limit_are_closed_and_the_others_are_served(patient, served: Served):
    await served.model.GetStatus(GetStatusRequest())  # one is open
    with ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", served.server.port), 30)) for _ in range(7)
        ]
        for one in opened:
            one.setblocking(False)
        async with asyncio.timeout(30):
            while len(closed_of(opened)) < 5:
                await asyncio.sleep(0.01)
        await served.model.GetStatus(GetStatusRequest())
        assert len(closed_of(opened)) == 5
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.server.port}", options=options) as channel:
        status = ModelServiceStub(channel).GetStatus(GetStatusRequest(), timeout=30, wait_for_ready=True)
        assert (await status).serving  # a place is free again


async def test_connections_that_never_send_a_frame_give_their_place_free(patient):
    patient.setattr("engine.serving.server._FIRST_FRAME_MS", 200)
    server = make()
    await server.start()
    with socket.create_connection(("127.0.0.1", server.port), 30) as silent:
        async with asyncio.timeout(30):
            while await asyncio.to_thread(silent.recv, 1024):  # until the server closes it
                pass
    await server.stop(0)


async def test_connections_without_a_call_give_their_place_free_and_come_back_for_the_next(patient):
    patient.setattr("engine.serving.server._IDLE_MS", 200)
    server = make()
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = ModelServiceStub(channel)
        await stub.GetStatus(GetStatusRequest(), timeout=30)
        async with asyncio.timeout(30):
            while channel.get_state() is grpc.ChannelConnectivity.READY:
                await asyncio.sleep(0.01)
        assert (await stub.GetStatus(GetStatusRequest(), timeout=30)).serving
    await server.stop(0)
