"""How long the page takes to redraw a distribution over 50,257 tokens when a slider moves.

    pip install playwright    # and Chromium: Debian's package, or GLASSFORMER_CHROMIUM=/path/to/it
    python benchmarks/page_sliders.py [--moves 60]

Prints JSON: milliseconds from the slider's event to the new layout (arithmetic, table, line of the draw), for each
slider the fastest move, the median and the 95th percentile, and the renderer's processor time a move with painting,
which does not depend on what else the machine does; and of ranking the logits, which is done once a position. The
model is random and tiny: the page's work depends on the size of the vocabulary alone, which is GPT-2's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import threading
import time
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch
import uvicorn
from playwright.sync_api import sync_playwright

from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.server import ModelHandle, create_app

MOVE = """async ([id, values]) => {
    const slider = document.getElementById(id);
    const took = [];
    for (const value of values) {
        slider.value = value;
        const started = performance.now();
        slider.dispatchEvent(new Event("input"));
        document.getElementById("distribution").getBoundingClientRect();
        took.push(performance.now() - started);
        await new Promise(requestAnimationFrame);
    }
    return took;
}"""
RANK = """async (n) => {
    const { ranking } = await import("/web/sampling.js");
    const took = [];
    for (let i = 0; i < n; i++) {
        const logits = Float32Array.from({ length: 50257 }, () => 4 * (Math.random() + Math.random() - 1));
        const started = performance.now();
        ranking(logits);
        took.push(performance.now() - started);
    }
    return took;
}"""


def summary(took: list[float]) -> dict[str, float]:
    times = sorted(took[3:])  # the first ones compile
    return {
        "fastest_ms": round(times[0], 1),
        "median_ms": round(times[len(times) // 2], 1),
        "p95_ms": round(times[int(0.95 * len(times))], 1),
    }


def cpu_seconds(session: Any) -> float:
    """Processor time of this browser's renderers so far."""
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    return sum(one["cpuTime"] for one in processes if one["type"] == "renderer")


def served(app: Any) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    return f"http://127.0.0.1:{port}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=60)
    n = parser.parse_args().moves
    torch.manual_seed(0)
    tokenizer = build_tokenizer("gpt2")
    config = ModelConfig.make(family="modern", vocab_size=50_257, block_size=64, n_layer=1, n_head=2, n_embd=16)
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    url = served(create_app({"gpt2-sized": ModelHandle("gpt2-sized", model, tokenizer)}))
    chromium = os.environ.get("GLASSFORMER_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    found: dict[str, Any] = {"vocabulary": 50_257, "moves": n}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        session = browser.new_browser_cdp_session()
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.wait_for_selector("#status[data-state=idle]")
        page.click("#neutral")
        page.fill("#prompt", "Once upon a time there was a")
        page.click("#read")
        page.wait_for_selector("#status[data-state=done]")
        page.click('#tokens [data-index="4"]')
        page.wait_for_selector('[data-source="entropy/3"]')
        page.evaluate(MOVE, ["temperature", [1 + 0.01 * i for i in range(10)]])
        for slider, least, most in (
            ("temperature", 0.1, 5),
            ("topK", 1, 100),
            ("topP", 0.1, 0.99),
            ("minP", 0.01, 0.5),
        ):
            page.click("#neutral")
            values = [least + (most - least) * i / (n - 1) for i in range(n)]
            before = cpu_seconds(session)
            found[slider] = summary(page.evaluate(MOVE, [slider, values]))
            found[slider]["cpu_ms"] = round(1000 * (cpu_seconds(session) - before) / n, 1)
        found["ranking"] = summary(page.evaluate(RANK, 20))
        browser.close()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
