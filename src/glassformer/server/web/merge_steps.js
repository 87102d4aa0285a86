// Byte-pair encoding step by step: the pieces of a chunk, and which two of them become one next.

import { count, element, shown } from "./numbers.js";

const marked = (text) => text.replaceAll(" ", "␣");

export function mergeSteps(root) {
  const list = element("div", { class: "line", role: "group", "aria-label": "chunks of the text" });
  const pieces = element("p", { class: "pieces", "aria-live": "polite" });
  const words = element("p", { class: "small" });
  const back = element("button", { type: "button", id: "merge-back" }, "← back");
  const next = element("button", { type: "button", class: "primary", id: "merge-next" }, "next merge →");
  const at = element("input", { type: "range", id: "merge-step", min: 0, step: 1, "aria-label": "merges done" });
  root.replaceChildren(element("h2", {}, "Merges, one by one"), element("p", { class: "small" }, "The text is cut into chunks; each starts as bytes, and of all pairs that are there the one learned first becomes one piece, until no known pair is left. Arrow keys step."), list, pieces, words, element("div", { class: "line" }, back, next, at));
  let chunks = [];
  let [chunk, step] = [null, 0];

  // The chunks of a text, as the server lists them; none: this tokenizer merges nothing.
  function show(found) {
    chunks = found.filter((one) => one.merges.length);
    root.hidden = !chunks.length;
    if (root.hidden) return;
    list.replaceChildren(...chunks.map((one, i) => element("button", { type: "button", "data-chunk": i }, marked(one.text))));
    const longest = chunks.reduce((best, one, i) => (one.merges.length > chunks[best].merges.length ? i : best), 0);
    choose(longest);
  }

  function choose(i) {
    chunk = chunks[i];
    for (const button of list.children) button.setAttribute("aria-pressed", String(Number(button.dataset.chunk) === i));
    at.max = String(chunk.merges.length);
    go(0);
  }

  function go(to) {
    step = Math.max(0, Math.min(to, chunk.merges.length));
    at.value = String(step);
    at.style.setProperty("--at", `${(100 * step) / chunk.merges.length}%`);
    at.setAttribute("aria-valuetext", `${step} of ${chunk.merges.length} merges`);
    back.disabled = step === 0;
    next.disabled = step === chunk.merges.length;
    const state = step ? chunk.merges[step - 1].state : chunk.symbols;
    const coming = chunk.merges[step];
    const done = step ? chunk.merges[step - 1].result : null;
    pieces.replaceChildren(...joined(state, coming).map(([text, kind]) => element("span", { class: `piece ${kind || (text === done ? "made" : "")}` }, marked(text))));
    words.replaceChildren(...(coming
      ? [`Step ${step} of ${chunk.merges.length}. Next: merge no. `, shown(coming.rank, `merge/${step}`, count), ` of the list: ${marked(coming.left)} + ${marked(coming.right)}`]
      : [`Done after ${chunk.merges.length} merges: ${state.length === 1 ? "one token" : `${state.length} tokens`}, `, ...chunk.ids.flatMap((id, i) => [i ? ", " : "id ", shown(id, `merged/${i}`, String)]), "."]));
  }

  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-chunk]");
    if (button) choose(Number(button.dataset.chunk));
  });
  back.addEventListener("click", () => go(step - 1));
  next.addEventListener("click", () => go(step + 1));
  at.addEventListener("input", () => go(Number(at.value)));
  root.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by || event.target === at) return;
    event.preventDefault();
    go(step + by);
  });
  return { show };
}

// The pieces with those that are merged next marked; pairs do not overlap.
function joined(state, coming) {
  const kinds = state.map(() => "");
  for (let i = 0; coming && i + 1 < state.length; i++) {
    if (kinds[i] || state[i] !== coming.left || state[i + 1] !== coming.right) continue;
    kinds[i] = kinds[i + 1] = "next";
  }
  return state.map((text, i) => [text, kinds[i]]);
}
