"""The aclImdb archive: packed, unpacked, of another origin, broken; and its download over real HTTP.

The archives here have the official layout with 3 reviews of each kind, of 2 films.
"""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from data.sources import DataConfig, RawRows, load_rows
from data.sources.imdb import load_imdb


def load(archive: Path) -> RawRows:
    return load_rows(DataConfig(source="imdb", archive=archive))


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def imdb_files() -> dict[str, str]:
    files = {"README": "about", "train/unsup/0_0.txt": "unlabelled", "imdb.vocab": "the"}
    for split in ("train", "test"):
        for label in ("pos", "neg"):
            films = [f"http://www.imdb.com/title/tt{number}/usercomments" for number in (7, 7, 1000)]
            files[f"{split}/urls_{label}.txt"] = "\n".join(films) + "\n"
            for number in range(3):
                files[f"{split}/{label}/{number}_{9 - number}.txt"] = f"{split} {label}<br /><br />{number}"
    return files


def pack(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"aclImdb/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def test_an_imdb_archive_is_read_with_the_film_of_each_review(tmp_path: Path) -> None:
    rows = load(archive=pack(tmp_path / "imdb.tar.gz", imdb_files()))
    assert len(rows.frame) == 12
    train = rows.frame[rows.frame["split"] == "train"]
    assert train["text"].tolist() == [f"train {label}\n\n{i}" for label in ("neg", "pos") for i in range(3)]
    assert train["label"].tolist() == ["neg"] * 3 + ["pos"] * 3
    assert train["group"].tolist() == ["tt7", "tt7", "tt1000"] * 2
    assert (rows.name, rows.origin, rows.group_name) == ("imdb", "imdb.tar.gz", "film")


@pytest.mark.parametrize("inside", ["aclImdb", ""])
def test_an_unpacked_folder_gives_the_rows_of_the_archive(tmp_path: Path, inside: str) -> None:
    for name, text in imdb_files().items():
        write(tmp_path / "aclImdb" / name, text.encode())
    unpacked = load(archive=tmp_path / inside)
    packed = load(archive=pack(tmp_path / "imdb.tar.gz", dict(reversed(imdb_files().items()))))
    assert unpacked.frame["text"].tolist() == packed.frame["text"].tolist()
    assert unpacked.frame["group"].tolist() == packed.frame["group"].tolist()


def test_another_archive_of_the_layout_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = pack(tmp_path / "mine.tar.gz", imdb_files())
    config = DataConfig(source="imdb", archive=path)
    load_imdb(config, md5=md5(path.read_bytes()))
    assert not caplog.records
    load_imdb(config)
    (warning,) = caplog.records
    assert warning.name == "valence"
    assert "mine.tar.gz is not the official aclImdb_v1.tar.gz: its MD5 is" in warning.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/urls_pos.txt": None}, "it has no train/urls_pos.txt"),
        ({f"test/neg/{i}_{9 - i}.txt": None for i in range(3)}, "it has no test/neg/*.txt"),
        (
            {"train/urls_neg.txt": "tt1\n"},
            "train/neg/1_8.txt: review 1 has no line in the urls file of 1 lines",
        ),
        ({"test/urls_neg.txt": "tt1\nnothing\n"}, "test/urls_neg.txt, line 2: 'nothing' names no film"),
    ],
)
def test_an_archive_of_another_layout_is_refused(tmp_path: Path, change: dict[str, str | None], message: str) -> None:
    files = {name: text for name, text in (imdb_files() | change).items() if text is not None}
    with pytest.raises(DataError) as refused:
        load(archive=pack(tmp_path / "imdb.tar.gz", files))
    assert message in str(refused.value)


@pytest.mark.parametrize("keep", [0, 20, 400])
def test_a_broken_archive_is_refused(tmp_path: Path, keep: int) -> None:
    path = pack(tmp_path / "imdb.tar.gz", imdb_files())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="not a tar archive that can be read"):
        load(archive=path)
    with pytest.raises(DataError, match="no such archive or folder"):
        load(archive=tmp_path / "other.tar.gz")


# The download


class Archive(BaseHTTPRequestHandler):
    """Serves `server.content`; breaks off after `server.stop_at` bytes; with or without Range."""

    def do_GET(self) -> None:
        server: Any = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.resumes else 0
        if self.path != "/aclImdb_v1.tar.gz":
            return self.send_error(404)
        if start >= len(server.content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "application/x-gzip")
        self.send_header("Content-Encoding", "x-gzip")  # as some servers say of a .tar.gz
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start : server.stop_at])
        return None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Archive) as running:
        served: Any = running
        served.content = pack(tmp_path / "served.tar.gz", imdb_files()).read_bytes()
        served.asked, served.resumes, served.stop_at = [], True, None
        served.url = f"http://127.0.0.1:{running.server_port}/aclImdb_v1.tar.gz"
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield served
        running.shutdown()


def download(server: Any, cache: Path, progress: Any = None) -> RawRows:
    config = DataConfig(source="imdb", cache=cache)
    return load_imdb(config, progress, url=server.url, md5=md5(server.content))


def test_the_archive_is_downloaded_once_with_progress(server: Any, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    rows = download(server, tmp_path / "cache", lambda done, total: seen.append((done, total)))
    assert len(rows.frame) == 12
    assert seen[-1] == (len(server.content), len(server.content))
    assert [path.name for path in (tmp_path / "cache" / "imdb").iterdir()] == ["aclImdb_v1.tar.gz"]
    download(server, tmp_path / "cache")
    assert server.asked == [None]


@pytest.mark.parametrize("resumes", [True, False])
def test_a_download_that_broke_off_goes_on_where_it_stopped(server: Any, tmp_path: Path, resumes: bool) -> None:
    server.resumes, server.stop_at = resumes, 100
    with pytest.raises(DataError, match="100 bytes are kept: the same command goes on from there"):
        download(server, tmp_path)
    server.stop_at = None
    assert len(download(server, tmp_path).frame) == 12
    assert server.asked == [None, "bytes=100-"]


def test_a_download_that_stopped_before_its_check_is_completed(server: Any, tmp_path: Path) -> None:
    write(tmp_path / "imdb" / "aclImdb_v1.tar.gz.part", server.content)
    assert len(download(server, tmp_path).frame) == 12


def test_a_damaged_download_is_refused_and_thrown_away(server: Any, tmp_path: Path) -> None:
    expected = md5(server.content)
    server.content = server.content[:-1] + b"?"
    config = DataConfig(source="imdb", cache=tmp_path / "cache")
    with pytest.raises(DataError, match=f"MD5 {md5(server.content)}, expected {expected}"):
        load_imdb(config, url=server.url, md5=expected)
    assert not list((tmp_path / "cache" / "imdb").iterdir())


def test_a_server_that_refuses_or_is_not_there_is_an_error(server: Any, tmp_path: Path) -> None:
    config = DataConfig(source="imdb", cache=tmp_path / "cache")
    with pytest.raises(DataError, match="HTTP status 404"):
        load_imdb(config, url=server.url + "x", md5="")
    with pytest.raises(DataError, match=r"the download of http://127\.0\.0\.1:1/ failed \(ConnectionError"):
        load_imdb(config, url="http://127.0.0.1:1/", md5="")
