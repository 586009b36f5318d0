"""The nginx front of TensorFlow Serving, run for real before a stand-in that only says what reached it."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FRONT = Path(__file__).parents[1] / "deploy" / "front"
PROBE = Path(__file__).parents[1] / "deploy" / "serving" / "predict_probe.sh"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
TOKEN = "5f" * 32
PREDICT = "/v1/models/toy:predict"
METHOD = "/tensorflow.serving.PredictionService/Predict"

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@dataclass
class Front:
    """The running front: where it listens, whom to trust, and what it let through to the stand-in."""

    url: str
    inside: str  # for Prometheus and probes
    certificate: Path
    log: Path
    reached: list[dict[str, Any]] = field(default_factory=list)

    def post(self, body: Any, path: str = PREDICT, **headers: str) -> requests.Response:
        """POST with a token, over a new connection that trusts this certificate and no other."""
        headers = {"Authorization": f"Bearer {TOKEN}", **headers}
        return requests.post(self.url + path, data=body, headers=headers, verify=str(self.certificate), timeout=20)


def make_certificate(folder: Path) -> Path:
    """Write tls.crt and tls.key for localhost, signed by themselves, valid for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "tls.key").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    (folder / "tls.crt").write_bytes(certificate.public_bytes(pem))
    return folder / "tls.crt"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert text.count(old) == 1, f"not once in the file: {old}"
        text = text.replace(old, new)
    return text


def configure(folder: Path, upstream: str, *, rest: int, grpc_port: int, outside: int, inside: int) -> None:
    """Lay out the folder as it is mounted, with ports of this machine."""
    (folder / "run").mkdir(parents=True)
    make_certificate(folder / "tls")
    (folder / "tokens.map").write_text(f'"Bearer {TOKEN}" reviews-app;\n', encoding="utf-8")
    changes = {
        "listen 8443": f"listen 127.0.0.1:{outside}",
        "listen 8081": f"listen 127.0.0.1:{inside}",
        "/dev/stdout": "access.log",
    }
    (folder / "nginx.conf").write_text(replaced((FRONT / "nginx.conf").read_text(encoding="utf-8"), changes))
    text = re.sub(r"server [\w.-]+:8501", f"server 127.0.0.1:{rest}", (FRONT / upstream).read_text(encoding="utf-8"))
    (folder / "upstream.conf").write_text(re.sub(r"server [\w.-]+:8500", f"server 127.0.0.1:{grpc_port}", text))


def nginx(folder: Path, *options: str) -> list[str]:
    """The command of compose.yaml and of the manifests. Root's own workers could not enter pytest's folders."""
    user = " user root;" if os.geteuid() == 0 else ""
    assert NGINX is not None
    return [NGINX, "-p", str(folder / "run"), "-c", str(folder / "nginx.conf"), "-g", f"daemon off;{user}", *options]


class StandIn(BaseHTTPRequestHandler):
    """Answers with the status that the model is named after, closes the connection for `gone`."""

    protocol_version = "HTTP/1.1"
    reached: list[dict[str, Any]]

    def do_GET(self) -> None:
        """Note the request and answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.reached.append({"path": self.path, "body": body, "headers": dict(self.headers)})
        named = re.match(r"/v1/models/(\w+)", self.path)
        if named and named[1] == "gone":
            self.close_connection = True
            return
        self.send_response(int(named[1]) if named and named[1].isdecimal() else 200)
        answer = b'{"predictions": [0]}'
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on standard error."""


class QuietServer(ThreadingHTTPServer):
    """Says nothing of a client that leaves early: a probe goes once it knows the status."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing on standard error."""


@pytest.fixture(scope="module")
def stand_in() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The port of the REST stand-in, and the list of what reaches it."""
    reached: list[dict[str, Any]] = []
    server = QuietServer(("127.0.0.1", 0), type("Server", (StandIn,), {"reached": reached}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], reached
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def grpc_stand_in() -> Iterator[int]:
    """The port of a gRPC server with one method, which says what it was told and whether a token came along."""

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        told = dict(context.invocation_metadata())
        return request + (b" with a token" if told.get("authorization") else b"")

    server = grpc.server(ThreadPoolExecutor(2))
    methods = {"Predict": grpc.unary_unary_rpc_method_handler(answer)}
    service = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", methods)
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.fixture(scope="module")
def front(stand_in, grpc_stand_in: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front") / "etc"
    port, reached = stand_in
    outside, inside = free_ports(2)
    configure(folder, "upstream_pod.conf", rest=port, grpc_port=grpc_stand_in, outside=outside, inside=inside)
    url, inner = f"https://127.0.0.1:{outside}", f"http://127.0.0.1:{inside}"
    with subprocess.Popen(nginx(folder), stderr=subprocess.PIPE, text=True) as process:
        for _ in range(100):
            try:
                requests.get(f"{inner}/healthz", timeout=5).raise_for_status()
                break
            except requests.ConnectionError:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.1)
        yield Front(url, inner, folder / "tls" / "tls.crt", folder / "run" / "access.log", reached)
        process.send_signal(signal.SIGQUIT)  # the image's stop signal: what is under way is ended
        process.communicate(timeout=30)
    assert process.returncode == 0


@needs_nginx
@pytest.mark.parametrize("upstream", ["upstream_pod.conf", "upstream_compose.conf"])
def test_nginx_accepts_the_configuration(upstream: str, tmp_path: Path):
    configure(tmp_path / "etc", upstream, rest=8501, grpc_port=8500, outside=8443, inside=8081)
    tested = subprocess.run(nginx(tmp_path / "etc", "-t"), capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr


@needs_nginx
@pytest.mark.parametrize("header", [None, "", "Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}0", f"Basic {TOKEN}"])
def test_without_the_token_nothing_reaches_the_server(front: Front, header: str | None):
    before = len(front.reached)
    headers = {} if header is None else {"Authorization": header}
    answer = requests.post(front.url + PREDICT, data="{}", headers=headers, verify=str(front.certificate), timeout=20)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "token" in answer.json()["error"]
    assert len(front.reached) == before


@needs_nginx
def test_with_the_token_a_request_goes_through_unchanged(front: Front):
    body = '{"instances": ["a joyless, [] slick ride", "\\" [] \\\\", "größer"]}'.encode()
    answer = front.post(body)
    assert (answer.status_code, answer.json()) == (200, {"predictions": [0]})
    last = front.reached[-1]
    assert (last["path"], last["body"]) == (PREDICT, body)
    assert "Authorization" not in last["headers"]
    assert last["headers"]["X-Request-ID"] == answer.headers["X-Request-ID"]


@needs_nginx
def test_the_port_speaks_tls_alone(front: Front):
    answer = requests.post(front.url.replace("https", "http") + PREDICT, data="{}", timeout=20)
    assert answer.status_code == 400
    with pytest.raises(requests.exceptions.SSLError):
        requests.post(front.url + PREDICT, data="{}", timeout=20)


@needs_nginx
@pytest.mark.parametrize(
    "body", ['{"instances": [[]]}', '{"instances": [{"text": [ ]}]}', '{"instances": ["[",[\n\t]]}']
)
def test_the_request_that_ends_tensorflow_serving_does_not_reach_it(front: Front, body: str):
    front.post(body)
    assert front.reached[-1]["body"] == b'{"instances": []}'
    front.post(iter([body[:9].encode(), body[9:].encode()]))  # chunked
    assert front.reached[-1]["body"] == b'{"instances": []}'


def holds_an_empty_array(value: Any) -> bool:
    if isinstance(value, list):
        return not value or any(map(holds_an_empty_array, value))
    return isinstance(value, dict) and any(map(holds_an_empty_array, value.values()))


TEXTS = st.text(max_size=8) | st.text(alphabet='[]"\\ ,:', max_size=8)
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@needs_nginx
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_exactly_the_bodies_with_an_empty_array_are_replaced(front: Front, value: Any, ascii_only: bool, indent: Any):
    try:
        body = json.dumps({"instances": value}, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8
        body = json.dumps({"instances": value}, indent=indent).encode()
    front.post(body)
    expected = b'{"instances": []}' if holds_an_empty_array(value) else body
    assert front.reached[-1]["body"] == expected


@needs_nginx
@pytest.mark.parametrize("body", [b'{"instances":["' + b"\\\\" * 500_000 + b'"]}', b"[" * 1_000_000, b'"a",' * 250_000])
def test_a_large_body_is_looked_at_too(front: Front, body: bytes):
    assert front.post(body).status_code == 200
    assert front.reached[-1]["body"] == body
    front.post(body + b"[]")
    assert front.reached[-1]["body"] == b'{"instances": []}'


@needs_nginx
@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        (PREDICT, {"Content-Encoding": "gzip"}, b"\x1f\x8b", 415),
        (PREDICT, {}, b" " * (1024 * 1024 + 1), 413),
        ("/v1/models/gone:predict", {}, b"{}", 502),
        ("/monitoring/prometheus/metrics", {}, b"", 404),
        ("/v1/models/../../monitoring/prometheus/metrics", {}, b"", 404),
        ("/v1/models/503:predict", {}, b"{}", 503),
    ],
)
def test_what_is_refused_says_why(front: Front, path: str, headers: dict[str, str], body: bytes, status: int):
    answer = front.post(body, path, **headers)
    assert answer.status_code == status
    assert status == 503 or answer.json()["error"]


@needs_nginx
def test_metrics_are_for_inside(front: Front):
    answer = requests.get(f"{front.inside}/monitoring/prometheus/metrics", timeout=20)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4")
    assert front.reached[-1]["path"] == "/monitoring/prometheus/metrics"
    assert requests.post(f"{front.inside}/monitoring/prometheus/metrics", timeout=20).status_code == 403
    assert requests.post(front.inside + PREDICT, timeout=20).status_code == 404


@needs_nginx
def test_the_log_names_the_client_and_keeps_no_token_and_no_text(front: Front):
    answer = front.post('{"instances": ["a secret of somebody"]}', f"{PREDICT}?token={TOKEN}")
    (entry,) = logged(front.log, answer.headers["X-Request-ID"])
    assert (entry["client"], entry["path"], entry["status"]) == ("reviews-app", PREDICT, 200)
    assert TOKEN not in front.log.read_text(encoding="utf-8")
    assert "secret" not in front.log.read_text(encoding="utf-8")


def logged(log: Path, request_id: str) -> list[dict[str, Any]]:
    """The entries of a request, once there is one: nginx writes it after the answer."""
    deadline = time.monotonic() + 20
    while True:
        lines = [line for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        entries = [json.loads(line) for line in lines if request_id in line]
        if entries or time.monotonic() > deadline:
            return entries
        time.sleep(0.05)


@needs_nginx
def test_grpc_goes_through_the_same_port_with_the_same_token(front: Front):
    trust = grpc.ssl_channel_credentials(front.certificate.read_bytes())
    with grpc.secure_channel(front.url.removeprefix("https://"), trust) as channel:
        predict = channel.unary_unary(METHOD)
        assert predict(b"hello", metadata=[("authorization", f"Bearer {TOKEN}")], timeout=20) == b"hello"
        with pytest.raises(grpc.RpcError) as refused:
            predict(b"hello", timeout=20)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not on the PATH")
@pytest.mark.parametrize(
    ("purpose", "model", "exit_code"),
    [("ready", "toy", 0), ("live", "toy", 0), ("ready", "503", 1), ("live", "503", 0), ("live", "429", 0)]
    + [(purpose, model, 1) for purpose in ("ready", "live") for model in ("404", "500", "504", "gone")],
)
def test_the_probe_asks_for_a_prediction(stand_in, purpose: str, model: str, exit_code: int):
    port, reached = stand_in
    probe = subprocess.run(["bash", str(PROBE), purpose, model, str(port)], capture_output=True, text=True, timeout=20)
    assert probe.returncode == exit_code, probe.stdout + probe.stderr
    assert reached[-1]["path"] == f"/v1/models/{model}:predict"
    assert isinstance(json.loads(reached[-1]["body"])["instances"][0], str)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not on the PATH")
def test_the_probe_of_a_server_that_is_not_there_fails():
    (port,) = free_ports(1)
    assert subprocess.run(["bash", str(PROBE), "live", "toy", str(port)], capture_output=True).returncode == 1
