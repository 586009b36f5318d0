"""Who may ask: tokens, where they come from, and when there has to be one. The certificate's check is here too."""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
from pathlib import Path

import pytest

from app.errors import RequestError
from app.serving.http import access as access_module
from app.serving.http.access import Access, is_loopback, read_access, read_tokens, require_token
from app.serving.http.tls import check_tls

TOKEN = "correct-horse-battery-staple"
OTHER = "another.token_of~some+length/with=="


def write_private(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN} ", f"Bearer {OTHER}"])
def test_any_of_the_tokens_opens_whatever_the_case_of_its_scheme(header: str):
    assert Access([TOKEN, OTHER]).allows(header)


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", TOKEN, "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"),
        *(
            f"Bearer {TOKEN} {TOKEN}",
            f"Bearer {TOKEN.upper()}",
            f"Bearer{TOKEN}",
            f"Bearer {TOKEN}\n",
            "Bearer \xff\xfe",
        ),
        "Bearer \udc80 " + TOKEN,
    ],
)
def test_nothing_else_does(header: str | None):
    assert not Access([TOKEN]).allows(header)


def test_without_tokens_everybody_may_ask():
    assert Access().is_open
    assert Access().allows(None)
    assert not Access([TOKEN]).is_open


def test_an_access_that_is_printed_or_dumped_tells_no_token():
    access = Access([TOKEN])
    assert TOKEN not in repr(access) + repr(vars(access))


def test_the_token_comes_from_the_environment_and_a_file_goes_before_it(tmp_path: Path):
    assert read_access(None, {}).is_open
    assert read_access(None, {"VALENCE_TOKEN": ""}).is_open
    assert read_access(None, {"VALENCE_TOKEN": TOKEN}).allows(f"Bearer {TOKEN}")
    file = write_private(tmp_path / "tokens", f"{OTHER}\n")
    access = read_access(file, {"VALENCE_TOKEN": TOKEN})
    assert access.allows(f"Bearer {OTHER}")
    assert not access.allows(f"Bearer {TOKEN}")


def test_a_file_may_hold_several_tokens_blank_lines_and_remarks(tmp_path: Path):
    file = write_private(tmp_path / "tokens", f"# until May\n{TOKEN}\n\n  {OTHER}  \r\n")
    assert read_tokens(file) == [TOKEN, OTHER]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no token"),
        ("# nothing\n\n", "holds no token"),
        ("short", "line 1: a token of 5 characters; it takes 16 to 1024"),
        (f"{TOKEN}\n{'x' * 1025}\n", "line 2: a token of 1025 characters"),
        ("a token with some blanks", "characters that no bearer token has"),
        ("Umlaut-äöü-0123456789", "characters that no bearer token has"),
        ("tokens=with=equals=inside", "characters that no bearer token has"),
    ],
)
def test_an_unfit_token_is_refused_and_never_quoted(tmp_path: Path, text: str, says: str):
    file = write_private(tmp_path / "tokens", text)
    with pytest.raises(RequestError, match=says) as caught:
        read_access(file, {})
    assert str(file) in str(caught.value)
    for word in text.split():
        assert len(word) < 10 or word not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(RequestError, match="no-such-file: No such file or directory"):
        read_access(tmp_path / "no-such-file", {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="no UTF-8 text"):
        read_access(tmp_path / "binary", {})


def test_a_short_token_in_the_environment_is_refused_too():
    with pytest.raises(RequestError, match="variable VALENCE_TOKEN: a token of 6 characters"):
        read_access(None, {"VALENCE_TOKEN": "secret"})


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_token_file_that_others_may_read_is_warned_about(tmp_path, caplog, mode: int, warns: bool):
    file = write_private(tmp_path / "tokens", TOKEN)
    file.chmod(mode)
    with caplog.at_level(logging.WARNING):
        read_tokens(file)
    assert ("others may read the token file" in caplog.text) == warns
    assert TOKEN not in caplog.text


def test_tokens_are_replaced_while_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setattr(access_module, "RELOAD_SECONDS", 0.0)
    file = write_private(tmp_path / "tokens", TOKEN)
    access = read_access(file, {})
    replace(file, f"{TOKEN}\n{OTHER}\n")
    assert access.allows(f"Bearer {TOKEN}")
    assert access.allows(f"Bearer {OTHER}")
    replace(file, f"{OTHER}\n")
    assert not access.allows(f"Bearer {TOKEN}")
    assert access.allows(f"Bearer {OTHER}")


@pytest.mark.parametrize("damage", ["", "short", None])
def test_a_file_that_went_bad_neither_opens_the_server_nor_shuts_its_clients_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, damage: str | None
):
    monkeypatch.setattr(access_module, "RELOAD_SECONDS", 0.0)
    file = write_private(tmp_path / "tokens", TOKEN)
    access = read_access(file, {})
    if damage is None:
        file.unlink()
    else:
        replace(file, damage)
    assert access.allows(f"Bearer {TOKEN}")
    assert not access.allows(None)
    assert not access.is_open
    assert "the tokens stay as they are" in caplog.text


def replace(file: Path, text: str) -> None:
    """As a secret is replaced: another file under the same name, in one step."""
    os.replace(write_private(file.with_name("new"), text), file)  # noqa: PTH105


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST"])
def test_on_loopback_no_token_is_needed(host: str):
    assert is_loopback(host)
    require_token(host, Access(), no_auth=False)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.7", "2001:db8::1", "my-host", "localhost.example.com"]
)
def test_beyond_loopback_a_token_or_the_explicit_flag_is_needed(host: str):
    with pytest.raises(RequestError, match=r"VALENCE_TOKEN.*--token-file.*--no-auth") as caught:
        require_token(host, Access(), no_auth=False)
    assert f"--host {host} " in str(caught.value)
    require_token(host, Access([TOKEN]), no_auth=False)
    require_token(host, Access(), no_auth=True)


def test_a_token_and_no_auth_contradict_each_other():
    with pytest.raises(RequestError, match="--no-auth was given and a token too"):
        require_token("127.0.0.1", Access([TOKEN]), no_auth=True)


def test_a_guess_that_is_right_so_far_is_as_wrong_as_any_other():
    access = Access([TOKEN])
    assert not any(access.allows(f"Bearer {TOKEN[:length]}") for length in range(len(TOKEN)))
    assert not access.allows("Bearer " + "x" * 60_000)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two self-signed certificates with their keys, and the first key encrypted."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("one", "two"):
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")),
        )
    _openssl("ec", "-in", str(folder / "one.key"), "-aes128", "-passout", "pass:x", "-out", str(folder / "locked.key"))
    (folder / "text.pem").write_text("no certificate\n", encoding="utf-8")
    return folder


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def test_a_certificate_with_its_key_is_taken(certificates: Path):
    check_tls(certificates / "one.pem", certificates / "one.key")
    check_tls(None, None)


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [
        ("one.pem", None, "--tls_certificate was given without --tls_key"),
        (None, "one.key", "--tls_key was given without --tls_certificate"),
        ("none.pem", "one.key", r"--tls_certificate .*none\.pem: No such file"),
        ("one.pem", "none.key", r"--tls_key .*none\.key: No such file"),
        ("one.pem", ".", "--tls_key .*: Is a directory"),
        ("one.pem", "two.key", r"two\.key is not the key of --tls_certificate .*one\.pem"),
        ("one.pem", "locked.key", r"locked\.key is encrypted; give it without a passphrase"),
        ("text.pem", "one.key", r"text\.pem and --tls_key .*one\.key cannot be used"),
        ("one.pem", "text.pem", r"one\.pem and --tls_key .*text\.pem cannot be used"),
    ],
)
def test_files_that_do_not_make_a_server_are_refused_before_it_starts(
    certificates: Path, certificate: str | None, key: str | None, says: str
):
    paths = [None if name is None else certificates / name for name in (certificate, key)]
    with pytest.raises(RequestError, match=says):
        check_tls(*paths)


def test_the_checked_files_are_what_python_serves_with(certificates: Path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "one.pem", certificates / "one.key")
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
