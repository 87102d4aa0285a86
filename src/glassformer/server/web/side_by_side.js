// One prompt continued in several ways side by side: at temperatures 0, 1 and 5 as in the lecture, or by several models.

import { NEUTRAL } from "./controls.js";
import { littleText } from "./little_store.js";
import { element } from "./numbers.js";
import { textSummary } from "./text_summary.js";
import { baseOf } from "./time_travel.js";
import { tokensView } from "./tokens.js";
import { topBars } from "./top_bars.js";

const MOST = 4; // columns
const LECTURE = [0, 1, 5].map((temperature) => ({ ...NEUTRAL, temperature, topK: 20 }));
const FIELDS = [
  { name: "temperature", label: "T", min: 0, max: 100, step: "any" },
  { name: "topK", label: "top-k", min: 0, max: 2 ** 31 - 1, step: 1 },
  { name: "topP", label: "top-p", min: 0.01, max: 1, step: "any" },
];

export function sideBySide(root, main, api) {
  let columns = [];
  const prompt = element("textarea", { id: "side-prompt", rows: 2, spellcheck: "false" });
  const tokens = element("input", { id: "side-tokens", type: "number", min: 1, max: 500, value: 40 });
  const seed = element("input", { id: "side-seed", type: "number", min: 0, value: 1 });
  const button = (id, text, kind = "") => element("button", { type: "button", id, class: kind }, text);
  const [lecture, models, more, stop] = [button("side-lecture", "T = 0, 1, 5"), button("side-models", "by model"), button("side-more", "add one"), button("side-stop", "Stop")];
  const form = element("form", { class: "card", id: "side-form" },
    element("label", { for: "side-prompt" }, "One prompt, continued side by side"), prompt,
    element("div", { class: "line actions" }, element("button", { class: "primary", id: "side-go" }, "Generate"), stop, lecture, models, more,
      element("span", { class: "grow" }), element("label", { class: "small" }, "tokens ", tokens), element("label", { class: "small" }, "seed ", seed)),
    element("p", { class: "small" }, "Click a token: every column shows what stood to choose there."));
  const grid = element("div", { class: "columns" });
  root.replaceChildren(form, grid);

  const writing = () => main.state.models.filter((model) => model.writes);

  function add(model, sampling) {
    if (columns.length >= MOST) return;
    const column = columnOf(model, sampling, { api, models: writing(), onSelect: selectAll, onRemove: () => (column.root.remove(), (columns = columns.filter((one) => one !== column)), number()) });
    columns.push(column);
    grid.append(column.root);
    number();
  }

  function number() {
    grid.style.setProperty("--n", String(columns.length));
    more.disabled = columns.length >= MOST;
  }

  function reset(all) {
    columns.forEach((column) => (column.actions.stop(), column.root.remove()));
    columns = [];
    all.forEach(([model, sampling]) => add(model, sampling));
  }

  function selectAll(index) {
    for (const { store } of columns) if (index <= store.state.tokens.length) store.set({ selected: index });
  }

  lecture.addEventListener("click", () => reset(LECTURE.map((sampling) => [main.state.model, sampling])));
  models.addEventListener("click", () => reset(writing().slice(0, MOST).map((model) => [model.name, { ...NEUTRAL }])));
  more.addEventListener("click", () => add(main.state.model, { ...NEUTRAL }));
  stop.addEventListener("click", () => columns.forEach((column) => column.actions.stop()));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await Promise.all(columns.map((column) => column.write(prompt.value, Number(tokens.value), seed.value)));
    selectAll(Math.min(...columns.map(({ store }) => store.state.tokens.filter((token) => token.given).length)));
  });
  return {
    go() {
      if (!prompt.value) prompt.value = main.state.prompt || "Once upon a time there was a";
      const fits = columns.length && columns.every(({ store }) => main.state.models.some((model) => model.name === baseOf(store.state.model)));
      if (!fits && writing().length) reset(LECTURE.map((sampling) => [main.state.model, sampling]));
      models.hidden = writing().length < 2;
    },
  };
}

let columnsMade = 0;

// A column: its model and settings, its text, its distribution.
function columnOf(name, sampling, { api, models, onSelect, onRemove }) {
  const made = columnsMade++;
  const first = models.find((model) => model.name === baseOf(name)) ?? models[0];
  const { store, actions } = littleText(models, api, { sampling });
  const choice = element("select", { "aria-label": "model" }, ...models.map((model) => element("option", { value: model.name }, model.name)));
  const remove = element("button", { type: "button", class: "quiet", "aria-label": "remove this column" }, "remove");
  const numbers = FIELDS.map((field) => numberOf(field, store));
  const status = element("p", { class: "small", role: "status" });
  const list = element("div", { class: "tokens", role: "listbox", "aria-label": "text", "aria-orientation": "horizontal", tabindex: -1 });
  const summary = element("div", { class: "summary" });
  const bars = element("div", { class: "bars" });
  const root = element("section", { class: "card column" }, element("div", { class: "line spread" }, choice, remove), element("div", { class: "line settings" }, ...numbers), status, list, summary, bars);
  choice.value = first.name;
  choice.addEventListener("change", () => actions.useModel(choice.value));
  remove.addEventListener("click", onRemove);
  tokensView(list, store, { onLeave: () => {}, onSelect: () => onSelect(store.state.selected) });
  textSummary(summary, list, store, `side-${made}/`);
  topBars(bars, store, `side-${made}`);
  store.subscribe((state, changed) => {
    if (changed.has("status")) (status.textContent = state.status.text), (root.dataset.state = state.status.kind);
  });
  const ready = actions.useModel(name === null ? first.name : name);
  async function write(prompt, maxTokens, seedInput) {
    await ready;
    store.set({ prompt, maxTokens, seedInput });
    await actions.begin(maxTokens);
  }
  return { root, store, actions, write };
}

function numberOf({ name, label, ...range }, store) {
  const input = element("input", { type: "number", ...range, value: store.state.sampling[name], "data-setting": name });
  input.addEventListener("input", () => {
    if (input.validity.valid && input.value !== "") store.set({ sampling: { ...store.state.sampling, [name]: Number(input.value) } });
  });
  return element("label", { class: "small" }, `${label} `, input);
}
