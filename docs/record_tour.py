"""The page's tour as an animated picture: python docs/record_tour.py http://127.0.0.1:8000 docs/tour.webp

Needs a server (`glassformer serve runs/`), Chromium, and the packages playwright and Pillow. Each step stays for as
long as its text takes to read, two minutes in all.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1200, 1000
SHOWN_WIDTH = 900  # of the picture
SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("out")
    parser.add_argument("--model", help="which one, where several are served")
    given = parser.parse_args()
    path = os.environ.get("GLASSFORMER_CHROMIUM") or shutil.which("chromium")
    frames, words = list[Image.Image](), list[int]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
        page.goto(f"{given.address}/#tour/1")
        page.wait_for_selector("[data-step]")
        if given.model:
            page.select_option("#model", given.model)
        for step in range(1, page.locator("[data-step]").count() + 1):
            page.click(f'[data-step="{step}"]')
            page.wait_for_selector(f'[data-step="{step}"][aria-current="step"]')
            page.wait_for_selector("#tour-figures:not([aria-busy])")
            page.wait_for_timeout(300)  # the last figure is drawn
            page.evaluate("scrollTo(0, 0)")
            image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            frames.append(image.resize((SHOWN_WIDTH, SHOWN_WIDTH * HEIGHT // WIDTH), Image.Resampling.LANCZOS))
            words.append(len(page.inner_text(".tour-text").split()) + 15)
        browser.close()
    durations = [round(1000 * SECONDS * n / sum(words)) for n in words]
    frames[0].save(given.out, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=60, method=6)


if __name__ == "__main__":
    main()
