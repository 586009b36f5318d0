"""Fetch a file once: resumed where it stopped, checked against its MD5, and never half there."""

import hashlib
import os
from pathlib import Path

import requests
import urllib3

from data.errors import DataError
from data.sources.rows import Progress

CHUNK = 1 << 18  # bytes
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte


def fetch(url: str, target: Path, md5: str, progress: Progress | None = None) -> Path:
    """Download the URL to `target` and return it; at once if the file is there already.

    What has arrived is kept in `<target>.part`, and the next call asks only for the rest of it.

    Raises:
        DataError: the server cannot be reached, refuses, or breaks off; or the MD5 of what came is another.
    """
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        _download(url, part, progress)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        have = part.stat().st_size if part.exists() else 0
        kept = f" {have:,} bytes are kept: the same command goes on from there." if have else ""
        raise DataError(f"the download of {url} failed ({_reason(error)}).{kept}") from error
    found = md5_of(part)
    if found != md5:
        part.unlink()
        raise DataError(f"what came from {url} is damaged or another file: MD5 {found}, expected {md5}.")
    part.replace(target)
    return target


def md5_of(path: Path) -> str:
    """Return the file's MD5 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _download(url: str, part: Path, progress: Progress | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    # "identity", and raw bytes below: a server may call a .tar.gz gzip-encoded, and requests would unpack it.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if have and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # everything is here already, or it is another file: the MD5 tells
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            have = 0  # this server does not resume
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(have, total)
            file.flush()
            os.fsync(file.fileno())


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    return f"{type(error).__name__}: {error}"[:200]
