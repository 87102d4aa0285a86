// Several runs beside each other: which ones, their curves with intervals, whether the differences are real.

import { writeAddress } from "./address.js";
import { drawFigures } from "./figures.js";
import { element } from "./numbers.js";

export const COMPARE = "+compare"; // in the place of a run's name in the address
const MOST = 8; // runs at once

// `element`, `go(options, runs)`; failed(error, again).
export function compareView(api, { failed }) {
  const choice = element("fieldset", { class: "runs-to-compare" });
  const state = element("p", { class: "small", role: "status" });
  const figures = element("div", { class: "figures", id: "run-comparison" });
  const root = element("div", { class: "card", hidden: true }, element("h2", {}, "Compare runs"), choice, state, figures);
  let running = null;

  // runs: of the server, the last written first; options.runs: the chosen ones
  async function go({ runs: chosen }, runs) {
    root.hidden = false;
    const names = (chosen ?? runs.map((run) => run.name)).slice(0, MOST);
    choice.replaceChildren(element("legend", { class: "small" }, `at most ${MOST}`), ...runs.map(({ name }) => {
      const box = element("input", { type: "checkbox", name, checked: names.includes(name) });
      box.disabled = !box.checked && names.length >= MOST;
      return element("label", { class: "check" }, box, name);
    }));
    writeAddress({ panel: "train", view: COMPARE, options: { runs: names } }, { replace: true });
    if (names.length < 2) return (state.textContent = "Choose two or more."), figures.replaceChildren();
    running?.abort();
    const mine = (running = new AbortController());
    try {
      const drawn = await api.compareRuns(names, mine.signal);
      state.textContent = "";
      figures.replaceChildren(drawFigures(drawn, "compare"));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error instanceof api.Refused) state.textContent = error.message;
      else failed(error, () => go({ runs: chosen }, runs));
    }
  }

  choice.addEventListener("change", () => {
    const boxes = /** @type {NodeListOf<HTMLInputElement>} */ (choice.querySelectorAll("input"));
    const names = [...boxes].filter((box) => box.checked).map((box) => box.name);
    go({ runs: names }, [...boxes].map((box) => ({ name: box.name })));
  });
  return { element: root, go };
}
