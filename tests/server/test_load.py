"""Many clients at once, a third of which disconnect in the middle: the others get their texts.

GLASSFORMER_CLIENTS=200 GLASSFORMER_SECONDS=60 python -m pytest tests/server/test_load.py -s      the long form
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time

import pytest
from patience import PATIENCE

pytest.importorskip("fastapi", reason="needs the extra serve")
httpx = pytest.importorskip("httpx")

from served import TEXT, running, small_decoder, text_of  # noqa: E402

from glassformer.training.devices import resident_bytes  # noqa: E402

CLIENTS = int(os.environ.get("GLASSFORMER_CLIENTS", "24"))
SECONDS = float(os.environ.get("GLASSFORMER_SECONDS", "3"))


def test_many_clients_and_some_that_disconnect():
    model, tokenizer = small_decoder()
    kinds = [(TEXT[i : i + 4 + i % 7], 3 + 5 * (i % 8), i) for i in range(30)]
    wanted = [text_of((model, tokenizer), prompt, n, seed=seed) for prompt, n, seed in kinds]
    done = {"answers": 0, "gone": 0}

    async def client(number: int, url: str, until: float) -> None:
        rng = random.Random(number)
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
            finished = 0
            while finished == 0 or time.monotonic() < until:  # each at least once, however busy the machine
                kind = rng.randrange(len(kinds))
                prompt, n, seed = kinds[kind]
                body = {"prompt": prompt, "max_tokens": n, "seed": seed, "stream": True}
                leaves = number % 3 == 0
                if leaves:
                    body["max_tokens"] = 5000
                text = ""
                async with http.stream("POST", "/v1/completions", json=body) as answer:
                    assert answer.status_code == 200
                    async for line in answer.aiter_lines():
                        if not line.startswith("data: {"):
                            continue
                        text += json.loads(line[6:])["choices"][0]["text"]
                        if leaves and len(text) > rng.randrange(20):
                            break
                if leaves:
                    done["gone"] += 1
                else:
                    assert text == wanted[kind]
                    done["answers"] += 1
                finished += 1

    async def all_clients(url: str) -> tuple[int, int]:
        until = time.monotonic() + SECONDS
        work = asyncio.gather(*(client(number, url, until) for number in range(CLIENTS)))
        await asyncio.sleep(SECONDS / 3)
        early = resident_bytes()
        await work
        return early, resident_bytes()

    with running({"base": (model, tokenizer)}, max_rows=16) as url:
        early, late = asyncio.run(all_clients(url))
        for _ in range(200):
            if idle(url):
                break
            time.sleep(0.05)
        assert idle(url), "a row was never freed"
    print(f"{done}, {early / 2**20:.0f} MiB after a third, {late / 2**20:.0f} MiB at the end")
    assert done["answers"] > CLIENTS / 2 and done["gone"] > CLIENTS / 4
    assert late - early < 60 << 20


def idle(url: str) -> bool:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    counts = [
        float(line.split()[1])
        for line in lines
        if line.startswith(("glassformer_rows_active{", "glassformer_rows_waiting{"))
    ]
    assert len(counts) == 2
    return sum(counts) == 0
