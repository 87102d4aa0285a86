"""`glassformer serve` on real sockets: "listening" is true when it is printed, and a port in use is one line."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import urllib.request

import pytest
from command_line import own_process
from patience import PATIENCE

pytest.importorskip("fastapi", reason="needs the extra serve")

from served import small_decoder

from glassformer.history import build_history
from glassformer.hub import save
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.server import ModelHandle
from glassformer.server.app import AddressError, bind, listen
from glassformer.server.middleware import APIError
from glassformer.server.worker import find_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model, tokenizer = small_decoder()
    path = tmp_path_factory.mktemp("models") / "small"
    save(path, model, tokenizer)
    return path


def test_it_listens_when_it_prints_that(folder):
    server = own_process("serve", folder, "--port", 0, cwd=folder)
    try:
        lines = []
        while not (lines and lines[-1].startswith("listening")):
            lines.append(server.stdout.readline())
            assert lines[-1], server.stderr.read()
        address = re.search(r"(http://127\.0\.0\.1:(\d+))/v1", lines[-1])
        assert int(address[2]) > 0
        with urllib.request.urlopen(f"{address[1]}/healthz", timeout=PATIENCE) as answer:  # at the first try
            assert json.load(answer) == {"status": "ok"}
    finally:
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=PATIENCE)
    assert err == "stopped\n"


def test_a_port_in_use_is_one_line_and_exit_code_1(folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = own_process("serve", folder, "--port", port, cwd=folder)
        out, err = server.communicate(timeout=PATIENCE)
    assert server.returncode == 1 and "listening" not in out
    (line,) = err.splitlines()
    assert f"port {port}" in line and "in use" in line and "--port" in line


def test_models_of_other_kinds_are_looked_into_and_continue_no_text():
    tokenizer = TOKENIZERS["characters"](["abc"])
    for kind, shape in (("bigram", {}), ("gru", {"n_embd": 12, "n_hidden": 14})):
        model = build_history(kind, vocab_size=tokenizer.vocab_size, block_size=8, **shape)
        handle = ModelHandle("mine", model, tokenizer)
        assert handle.use == "looking inside" and handle.worker is None
        with pytest.raises(APIError, match="mine continues no text; use /api/look/VIEW"):
            find_model({"mine": handle}, "mine", generates=True)


def test_two_that_bind_at_once_do_not_both_listen():
    first = bind("127.0.0.1", 0)
    port = first[0].getsockname()[1]
    second = bind("127.0.0.1", port)  # neither listens yet
    try:
        assert listen(first, "127.0.0.1") == f"http://127.0.0.1:{port}"
        with pytest.raises(AddressError, match=rf"port {port} of 127\.0\.0\.1 is in use.*--port"):
            listen(second, "127.0.0.1")
    finally:
        for one in (*first, *second):
            one.close()


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("192.0.2.1", 0, r"192\.0\.2\.1.*not an address of this machine.*--host"),  # reserved for documentation
        ("no.such.host.invalid", 0, r"no\.such\.host\.invalid.*--host"),
        ("127.0.0.1", 1, r"port 1\b.*--port"),
    ],
)
def test_an_address_that_cannot_be_used(host, port, words):
    if port == 1 and os.geteuid() == 0:
        pytest.skip("the superuser may listen on any port")
    with pytest.raises(AddressError, match=words):
        bind(host, port)


def test_a_name_of_two_addresses_gets_one_port():
    try:
        sockets = bind("localhost", 0)
    except AddressError:
        pytest.skip("localhost has no address here")
    try:
        assert len({one.getsockname()[1] for one in sockets}) == 1 and sockets[0].getsockname()[1] > 0
        assert listen(sockets, "::1").startswith("http://[::1]:")
    finally:
        for one in sockets:
            one.close()
