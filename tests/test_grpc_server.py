"""The gRPC server itself: what it lets in, how it keeps time, what it bears, how it ends."""

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import grpc
import numpy as np
import pytest
import tensorflow as tf
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from app.errors import RequestError
from app.serving.grpc_api import GrpcServer
from app.serving.http.access import Access
from app.serving.metrics import ServingMetrics
from app.serving.model_config import ModelSettings
from app.serving.repository import ModelRepository
from app.serving.servable import Servable
from app.serving.service import PredictionService
from app.serving.text_protos import SslConfig

PATIENCE = 30  # seconds that a test waits for what has to come
PREDICT = "/tensorflow.serving.PredictionService/Predict"


class Upper(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def upper(self, text):
        return {"text": tf.strings.upper(text)}


class Gated(PredictionService):
    """The service with a gate before the models: a request that came in stays until the gate opens."""

    def __init__(self, repository: ModelRepository, metrics: ServingMetrics) -> None:
        super().__init__(repository, metrics)
        self.gate, self.arrivals = threading.Event(), threading.Semaphore(0)

    def lease(self, spec):
        self.arrivals.release()
        assert self.gate.wait(PATIENCE)
        return super().lease(spec)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory):
    base = tmp_path_factory.mktemp("models") / "toy"
    module = Upper()
    tf.saved_model.save(module, str(base / "1"), signatures={"serving_default": module.upper})
    repository = ModelRepository([ModelSettings("toy", base)], Servable, poll_seconds=0)
    repository.start()
    yield repository
    repository.close()


@pytest.fixture(scope="module")
def metrics():
    metrics = ServingMetrics()
    yield metrics
    metrics.close()


@pytest.fixture(scope="module")
def service(repository: ModelRepository, metrics: ServingMetrics) -> PredictionService:
    return PredictionService(repository, metrics)


@contextmanager
def serving(service: PredictionService, **options) -> Iterator[GrpcServer]:
    server = GrpcServer(service, "127.0.0.1:0", **options)
    server.start()
    try:
        yield server
    finally:
        server.stop(PATIENCE)


@contextmanager
def asking(service: PredictionService, **options) -> Iterator[grpc.Channel]:
    with serving(service, **options) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


def predictions(channel: grpc.Channel) -> prediction_service_pb2_grpc.PredictionServiceStub:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def ask(*texts: str) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "toy"
    request.inputs["text"].CopyFrom(tf.make_tensor_proto(np.array(texts or ("abc",), object), tf.string))
    return request


def texts(response: predict_pb2.PredictResponse) -> list[bytes]:
    return list(response.outputs["text"].string_val)


def failure(call, request, **options) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=PATIENCE, **options)
    return caught.value.code().name, caught.value.details()


def outcomes(metrics: ServingMetrics) -> dict[str, int]:
    """How the requests ended: name of the code -> count."""
    count = r'^:tensorflow:serving:request_count{.*status="(\w+)"} (\S+)$'
    return {code: int(float(n)) for code, n in re.findall(count, metrics.exposition().decode(), re.MULTILINE)}


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def test_a_message_above_the_limit_is_refused(service):
    with asking(service, max_message_bytes=10_000) as channel:
        stub = predictions(channel)
        code, message = failure(stub.Predict, ask("x" * 20_000))
        assert code == "RESOURCE_EXHAUSTED"
        assert "larger than max" in message
        assert stub.Predict(ask("x" * 5_000))


def test_what_goes_wrong_in_the_server_is_told_without_a_word_of_the_request(service, repository, caplog):
    class Broken(PredictionService):
        def lease(self, spec):
            raise RuntimeError(f"a secret text of {spec.name}")

    with asking(Broken(repository, service.metrics)) as channel:
        stub = predictions(channel)
        assert failure(stub.Predict, ask()) == ("INTERNAL", "The server failed to answer")
    assert caplog.messages == ["Predict failed: RuntimeError"]


# --- tokens and TLS ---


def test_a_call_needs_the_token(service):
    token = "0123456789abcdef0123456789abcdef"
    with asking(service, allows=Access([token]).allows) as channel:
        predict, status = predictions(channel).Predict, model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
        about_toy = get_model_status_pb2.GetModelStatusRequest(model_spec=ask().model_spec)
        right, wrong = (("authorization", f"Bearer {token}"),), (("authorization", "Bearer wrong"),)
        assert texts(predict(ask(), metadata=right)) == [b"ABC"]
        assert status(about_toy, metadata=right).model_version_status
        refused = ("UNAUTHENTICATED", "A bearer token is needed in the metadata 'authorization'")
        assert failure(predict, ask()) == refused
        assert failure(predict, ask(), metadata=wrong) == refused
        assert failure(predict, ask(), metadata=right + wrong) == refused
        assert failure(status, about_toy, metadata=wrong) == refused


class Authority:
    """Signs certificates for 127.0.0.1, with itself at the root."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "toy authority")])
        self.certificate = self._certificate(self.name, self.key, x509.BasicConstraints(True, None))

    def issue(self) -> tuple[str, str]:
        """A key and its certificate as PEM texts."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "toy")])
        format_ = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, format_, serialization.NoEncryption())
        return pem.decode(), self._certificate(name, key, x509.BasicConstraints(False, None))

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, basic: x509.BasicConstraints) -> str:
        now = datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        builder = builder.add_extension(names, False).add_extension(basic, True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def secure_predict(port: int, credentials: grpc.ChannelCredentials):
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        stub = predictions(channel)
        return texts(stub.Predict(ask(), timeout=PATIENCE))


def test_tls_with_the_servers_certificate(service, authority):
    with serving(service, ssl=SslConfig(*authority.issue())) as server:
        trusting = grpc.ssl_channel_credentials(authority.certificate.encode())
        assert secure_predict(server.port, trusting) == [b"ABC"]
        stranger = grpc.ssl_channel_credentials(Authority().certificate.encode())
        with pytest.raises(grpc.RpcError) as caught:
            secure_predict(server.port, stranger)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            plain = predictions(channel)
            assert failure(plain.Predict, ask())[0] == "UNAVAILABLE"


def test_tls_with_the_clients_certificate_too(service, authority):
    ssl = SslConfig(*authority.issue(), custom_ca=authority.certificate, client_verify=True)
    with serving(service, ssl=ssl) as server:
        root = authority.certificate.encode()
        key, certificate = authority.issue()
        known = grpc.ssl_channel_credentials(root, key.encode(), certificate.encode())
        assert secure_predict(server.port, known) == [b"ABC"]
        with pytest.raises(grpc.RpcError) as caught:
            secure_predict(server.port, grpc.ssl_channel_credentials(root))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_key_that_is_none_is_named(service, authority):
    _, certificate = authority.issue()
    with pytest.raises(RequestError, match="server_key and server_cert of the TLS file"):
        GrpcServer(service, "127.0.0.1:0", ssl=SslConfig("no key", certificate))


def test_a_port_in_use_is_named(service):
    with serving(service) as server:
        taken = f"127.0.0.1:{server.port}"
        with pytest.raises(RequestError, match=rf"^cannot listen on {taken} for gRPC: it is in use"):
            GrpcServer(service, taken)


# --- time, load, the end ---


@contextmanager
def gated(repository: ModelRepository, **options) -> Iterator[tuple]:
    """A server whose requests stay until the gate opens: its service, the server, a stub for it."""
    service = Gated(repository, ServingMetrics())
    with (
        closing(service.metrics),
        serving(service, **options) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        try:
            yield service, server, predictions(channel)
        finally:
            service.gate.set()


def test_a_request_whose_time_is_up_gets_deadline_exceeded(repository):
    with gated(repository) as (service, _, stub):
        call = stub.Predict.future(ask(), timeout=0.3)
        assert service.arrivals.acquire(timeout=PATIENCE)
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        service.gate.set()
        until(lambda: outcomes(service.metrics))
        assert outcomes(service.metrics) == {"DEADLINE_EXCEEDED": 1}


def test_a_request_whose_time_runs_out_while_it_waits_is_not_worked_on(repository):
    with gated(repository, workers=1) as (service, _, stub):
        first = stub.Predict.future(ask(), timeout=PATIENCE)
        assert service.arrivals.acquire(timeout=PATIENCE)
        second = stub.Predict.future(ask(), timeout=0.3)
        assert second.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: outcomes(service.metrics))
        assert outcomes(service.metrics) == {"DEADLINE_EXCEEDED": 1}
        service.gate.set()
        assert texts(first.result()) == [b"ABC"]
        assert not service.arrivals.acquire(blocking=False)


def test_a_request_that_the_client_gave_up_is_not_worked_on(repository):
    with gated(repository, workers=1) as (service, _, stub):
        first = stub.Predict.future(ask(), timeout=PATIENCE)
        assert service.arrivals.acquire(timeout=PATIENCE)
        second = stub.Predict.future(ask(), timeout=PATIENCE)
        time.sleep(0.2)  # it has to be on the way for there to be something to give up
        second.cancel()
        time.sleep(1)  # and the server has to have heard of it
        service.gate.set()
        assert texts(first.result()) == [b"ABC"]
        assert stub.Predict(ask(), timeout=PATIENCE).outputs
        assert service.arrivals.acquire(timeout=PATIENCE)
        assert not service.arrivals.acquire(blocking=False)


def test_more_requests_than_may_be_under_way_are_refused_at_once(repository):
    with gated(repository, max_concurrent=2) as (service, _, stub):
        calls = [stub.Predict.future(ask(), timeout=PATIENCE) for _ in range(2)]
        for _ in calls:
            assert service.arrivals.acquire(timeout=PATIENCE)
        code, message = failure(stub.Predict, ask())
        assert (code, message) == ("RESOURCE_EXHAUSTED", "Concurrent RPC limit exceeded!")
        service.gate.set()
        assert [texts(call.result()) for call in calls] == [[b"ABC"]] * 2


def test_a_client_that_does_not_send_its_message_is_cut_off(service):
    with asking(service, message_seconds=0.2, max_concurrent=1) as channel:
        never = threading.Event()

        def messages() -> Iterator[bytes]:
            never.wait(PATIENCE)
            yield b""

        slow = channel.stream_unary(PREDICT).future(messages())
        assert slow.code() is grpc.StatusCode.CANCELLED
        never.set()
        stub = predictions(channel)
        until(lambda: outcome(stub) is grpc.StatusCode.OK)


def outcome(stub) -> grpc.StatusCode:
    return stub.Predict.future(ask(), timeout=PATIENCE).code()


def test_stopping_answers_what_is_under_way_and_takes_nothing_new(repository):
    with gated(repository) as (service, server, stub), ThreadPoolExecutor(1) as threads:
        under_way = stub.Predict.future(ask(), timeout=PATIENCE)
        assert service.arrivals.acquire(timeout=PATIENCE)
        stopping = threads.submit(server.stop, PATIENCE)
        until(lambda: outcome_of_new_connection(server.port) is grpc.StatusCode.UNAVAILABLE)
        assert not stopping.done()
        service.gate.set()
        assert texts(under_way.result()) == [b"ABC"]
        stopping.result(PATIENCE)


def outcome_of_new_connection(port: int) -> grpc.StatusCode:
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Nope")
        return call.future(b"", timeout=PATIENCE).code()


def test_stopping_waits_no_longer_than_it_should(repository):
    with gated(repository) as (service, server, stub):
        under_way = stub.Predict.future(ask(), timeout=PATIENCE)
        assert service.arrivals.acquire(timeout=PATIENCE)
        server.stop(0.2)
        assert under_way.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


def test_many_clients_get_their_own_answers(service):
    def ask_often(client: int) -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            answers = [texts(predictions(channel).Predict(ask(f"c{client}t{turn}"))) for turn in range(20)]
        return answers == [[f"C{client}T{turn}".encode()] for turn in range(20)]

    with serving(service, workers=2) as server, ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask_often, range(32)))
