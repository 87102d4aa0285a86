// Connects the store, the actions and the views. Views know only the store; this file knows all of them.

import * as api from "./api.js";
import { controlsView, DEFAULTS } from "./controls.js";
import { distributionView } from "./distribution.js";
import { rowsOf } from "./rows.js";
import { createActions } from "./actions.js";
import { readAddress, writeAddress } from "./address.js";
import { frameView } from "./frame.js";
import { lookView } from "./look.js";
import { runsView } from "./runs.js";
import { createStore, remember, remembered } from "./store.js";
import { baseOf, timeTravel } from "./time_travel.js";
import { tokensView } from "./tokens.js";

const store = createStore({
  models: [], // that the server has
  model: null, // the name of the one in use
  vocabulary: null, // its tokens
  mode: "text", // or "chat"
  prompt: "",
  lookText: "", // what the views are about; empty: the example of each
  tokens: [], // {id, given, probability, start}: of the prompt and of the answer
  grown: 0, // how many tokens were appended to `tokens` in place
  probabilities: 0, // how often probabilities of the prompt arrived
  endTokens: null, // ids that end an answer; null: the model's end of text
  selected: null, // the selected position; tokens.length: the next token
  rows: new Map(), // by position p: the logits after tokens[0..p], and their probabilities, order and entropy
  sampling: DEFAULTS,
  maxTokens: 60,
  seedInput: "",
  seed: null, // of the text on the screen
  status: { kind: "loading", text: "connecting …" },
});

const actions = createActions(store, api);
const rows = rowsOf(store, api, actions.failed);

const text = tokensView(document.getElementById("tokens"), store, {
  onLeave: () => panel.focus(),
  onSelect: () => panel.show(),
});
const panel = distributionView(document.getElementById("distribution"), store, {
  branch: (index, id) => {
    actions.branch(index, id);
    text.focus();
  },
  leave: () => text.focus(),
});
controlsView(document.getElementById("controls"), store);
frameView(store, actions, { retry: () => (rows.forgetFailure(), actions.retry()) });

const look = lookView(document.getElementById("look-panel"), store, api, actions);
const train = runsView(document.getElementById("train-panel"), store, api, actions);
timeTravel(document.getElementById("time-travel"), store, api, actions);

const PANELS = ["write", "look", "train"];

// The panel of the address; a model that it names is opened.
async function navigate() {
  const cursor = readAddress();
  const panel = PANELS.includes(cursor.panel) ? cursor.panel : "write";
  train.stop();
  for (const name of PANELS) {
    document.getElementById(`${name}-panel`).hidden = name !== panel;
    document.querySelector(`[data-panel=${name}]`).setAttribute("aria-current", name === panel ? "page" : "false");
  }
  if (panel === "write" || !store.state.models.length) return;
  if (panel === "train") return train.go(cursor);
  const named = store.state.models.some((model) => model.name === baseOf(cursor.model));
  if (named && cursor.model !== store.state.model) await actions.useModel(cursor.model);
  await look.go(cursor);
}
addEventListener("popstate", navigate);
document.getElementById("panels").addEventListener("click", (event) => {
  const link = /** @type {Element} */ (event.target).closest("[data-panel]");
  const panel = link instanceof HTMLElement ? link.dataset.panel : null;
  if (!panel) return;
  event.preventDefault();
  const { tokens, vocabulary } = store.state;
  const text = tokens.map((token) => vocabulary?.texts[token.id] ?? "").join("");
  if (panel === "look" && text) store.set({ lookText: text });
  writeAddress({ panel, view: null, options: {} });
  navigate();
});

store.subscribe((state, changed) => {
  if (["status", "sampling", "prompt", "mode", "model", "maxTokens", "seedInput"].some((name) => changed.has(name))) {
    if (state.status.kind !== "loading") remember(state);
  }
});
addEventListener("pagehide", () => remember(store.state));

store.set({ ...store.state, ...remembered() }); // draws every view once
await actions.open();
await navigate();
