"""Every choice about the embedded server; names and defaults are TensorFlow Serving's where it has them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from app.serving.http.access import Access
from app.serving.model_config import ModelSettings
from app.serving.text_protos import BatchingParameters, SslConfig

DEFAULT_HOST = "127.0.0.1"
DEFAULT_REST_PORT = 8501
DEFAULT_GRPC_PORT = 8500
METRICS_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True)
class ServerOptions:
    """What is served, where, and within which limits. Times are in the unit that the name says."""

    models: tuple[ModelSettings, ...]
    model_config_file: Path | None = None
    model_config_file_poll_wait_seconds: float = 0.0  # 0: the file is read once
    file_system_poll_wait_seconds: float = 1.0  # 0: the folders are read once
    enable_model_warmup: bool = True

    host: str = DEFAULT_HOST
    rest_api_port: int = DEFAULT_REST_PORT  # 0: any that is free
    grpc_port: int | None = 0  # 0: any that is free; None: no gRPC
    ssl: SslConfig | None = None  # of the gRPC port
    tls_certificate: Path | None = None  # of the REST port
    tls_key: Path | None = None
    access: Access = field(default_factory=Access)  # without tokens everybody may ask

    rest_api_timeout_in_ms: int = 30_000
    rest_api_num_threads: int = field(default_factory=lambda: 4 * (os.cpu_count() or 1))
    rest_api_enable_cors_support: bool = False
    batching: BatchingParameters | None = None
    metrics_path: str | None = METRICS_PATH  # None: no metrics
    per_process_gpu_memory_fraction: float = 0.0  # 0: it grows as it is needed

    max_body_bytes: int = 100 * 1024 * 1024
    max_rows: int = 10_000
    max_concurrent_requests: int = 256
    body_timeout_seconds: float = 30.0
    drain_seconds: float = 30.0
    access_log: bool = False
