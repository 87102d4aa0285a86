"""Parts of a record that talk to a model: chats with templates of several makers, and the server over HTTP."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cases

STARTS_WITHIN = 120  # seconds that a server may take
IDENTITY = ("id", "created", "request_id", "system_fingerprint")


def with_template(name: str) -> str:
    """A copy of the toy Llama whose tokenizer has a chat template of `cases.TEMPLATES`."""
    folder = Path("chats") / name
    if not folder.exists():
        shutil.copytree("inputs/models/llama", folder)
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": cases.TEMPLATES[name]}))
    return str(folder)


def chats(recorder: Any) -> Iterator[tuple[str, Any]]:
    for name in cases.TEMPLATES:
        for words in cases.SAID:
            text = [word.replace("_", " ") for word in words.split()]
            yield f"{name}: {words}", recorder.call("chat", with_template(name), *text)


def serve(recorder: Any) -> Iterator[tuple[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = [with_template("chatml"), str(recorder.run("shakespeare-fast")), "inputs/models/bert-vectors"]
    command = [sys.executable, "-m", "glassformer", "serve", *served, "--device", "cpu", "--port", str(port)]
    with open("serve.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until = time.monotonic() + STARTS_WITHIN
        while (found := asked(port, "GET /healthz"))["status"] != 200 and time.monotonic() < until:
            time.sleep(0.2)
        yield "healthz", found
        for request, bodies in cases.REQUESTS.items():
            for body in bodies:
                yield f"{request} {json.dumps(body)}", recorder.plain(asked(port, request, body))
    finally:
        process.terminate()
        process.wait()


def asked(port: int, request: str, body: Any = None) -> dict[str, Any]:
    """The status of an HTTP answer, and what it holds: JSON, events, or tensors."""
    method, path = request.split()
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    question = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(question, timeout=60) as answer:
            status, kind, raw = answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as error:
        return {"status": error.code, "error": [*json.loads(error.read() or b"{}")]}
    except OSError as error:
        return {"status": type(error).__name__}
    if kind == "application/json":
        found: Any = json.loads(raw)
    elif kind == "text/event-stream":
        found = [json.loads(line[6:]) for line in raw.decode().splitlines() if line[6:] not in ("", "[DONE]")]
    else:
        start = 8 + int.from_bytes(raw[:8], "little")  # a safetensors file
        found = {"header": json.loads(raw[8:start]), "numbers": hashlib.sha256(raw[start:]).hexdigest()}
    return {"status": status, "answer": without(found, IDENTITY)}


def without(value: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: without(each, keys) for key, each in value.items() if key not in keys}
    return [without(each, keys) for each in value] if isinstance(value, list) else value
