"""The server with SmolLM2 on a CPU: one stream against many, the first token, and a cold start.

    glassformer pull smollm2-135m-instruct
    python benchmarks/server.py [--streams 32] [--rounds 3] [--dtype int4]

Prints JSON. One stream and `--streams` at once take turns on one server, which is idle otherwise; tokens are counted by
the clients over loopback. The first token is that of a chat of a few words. A cold start is a new process until its
first token: once with what is compiled in the cache folder, once with an empty one (`without_compile_cache`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import _one_line  # noqa: F401  (first: it reports what is missing)
import httpx

NAME = "smollm2-135m-instruct"
WORDS = [
    "The river",
    "My grandmother",
    "In the morning",
    "A small house",
    "The teacher",
    "Once upon a time",
    "The old",
    "We",
]


def wait_until_it_answers(process: subprocess.Popen[bytes], url: str) -> str:
    while process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/healthz").status_code == 200:
                return url
        time.sleep(0.01)
    raise SystemExit("the server has ended; was the model pulled?")


@contextlib.contextmanager
def server(dtype: str, environment: dict[str, str]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "glassformer", "serve", NAME, "--dtype", dtype, "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        yield wait_until_it_answers(process, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


async def stream(port: int, number: int, n: int) -> int:
    """How many tokens came. Over a bare connection: a client library would take a good part of the processors."""
    body = {"model": NAME, "prompt": WORDS[number % len(WORDS)], "max_tokens": n, "seed": number, "stream": True}
    text = json.dumps({**body, "logit_bias": {"2": -100}})  # no end before max_tokens
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
    tokens = 0
    while line := await reader.readline():
        tokens += line.startswith(b"data: {")
    writer.close()
    return tokens


async def together(url: str, streams: int, n: int) -> float:
    """Tokens per second of so many streams at once."""
    port = httpx.URL(url).port or 80
    started = time.perf_counter()
    shown = await asyncio.gather(*(stream(port, number, n) for number in range(streams)))
    if sum(shown) != streams * n:
        raise SystemExit(f"{sum(shown)} tokens came, {streams * n} were asked for")
    return sum(shown) / (time.perf_counter() - started)


def first_token(url: str) -> float:
    body = {"model": NAME, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 1, "temperature": 0}
    started = time.perf_counter()
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
    return time.perf_counter() - started


def cold_start(dtype: str, environment: dict[str, str]) -> float:
    started = time.perf_counter()
    with server(dtype, environment) as url:
        first_token(url)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="int4")
    args = parser.parse_args()
    one, many, first = [], [], []
    with server(args.dtype, {}) as url:
        for _ in range(args.rounds + 1):  # the first round warms up
            one.append(asyncio.run(together(url, 1, 2 * args.tokens)))
            many.append(asyncio.run(together(url, args.streams, args.tokens)))
            first += [first_token(url) for _ in range(5)]
    starts = [cold_start(args.dtype, {}) for _ in range(args.rounds)]
    with tempfile.TemporaryDirectory() as folder:  # another cache that has the model and nothing compiled
        from glassformer.files import cache_folder

        (Path(folder) / "models").symlink_to(cache_folder() / "models")
        uncompiled = []
        for _ in range(args.rounds):
            shutil.rmtree(Path(folder) / "native", ignore_errors=True)
            uncompiled.append(cold_start(args.dtype, {"GLASSFORMER_CACHE": folder}))
    alone, batched = statistics.median(one[1:]), statistics.median(many[1:])
    result = {
        "dtype": args.dtype,
        "tokens_per_second": {"1 stream": round(alone, 1), f"{args.streams} streams": round(batched, 1)},
        "times": round(batched / alone, 2),
        "first_token_ms": round(1000 * statistics.median(first[5:]), 1),
        "cold_start_seconds": round(statistics.median(starts), 2),
        "without_compile_cache": round(statistics.median(uncompiled), 2),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
