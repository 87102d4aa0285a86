// The page: what can be done, and who draws what of it. The views know the store, and this file knows everybody.

import * as api from "./api.js";
import { controlsView, USUAL } from "./controls.js";
import { distributionView } from "./distribution.js";
import { rowsOf } from "./rows.js";
import { writer } from "./writing.js";
import { frameView } from "./frame.js";
import { createStore, remember, remembered } from "./store.js";
import { tokensView } from "./tokens.js";

const store = createStore({
  models: [], // what is served
  model: null, // the name of the one in use
  vocabulary: null, // its tokens
  mode: "text", // or "chat"
  prompt: "",
  tokens: [], // {id, given, probability, chance, start}: of the prompt and of the answer
  grown: 0, // counts what was added to `tokens` where it lies
  probabilities: 0, // counts how often the prompt's probabilities came
  endTokens: null, // ids that end an answer; null: the model's end of text
  selected: null, // the place in the text that is looked at; tokens.length: what comes next
  rows: new Map(), // by position p: logits after tokens[0..p], and what follows from them
  sampling: USUAL,
  maxTokens: 60,
  seedAsked: "",
  seed: null, // that was drawn with
  status: { kind: "loading", text: "asking the server …" },
});

const actions = writer(store, api);
const rows = rowsOf(store, api, actions.failed);

const text = tokensView(document.getElementById("tokens"), store, {
  leave: () => panel.focus(),
  chosen: () => panel.show(),
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

store.subscribe((state, changed) => {
  if (["status", "sampling", "prompt", "mode", "model", "maxTokens", "seedAsked"].some((name) => changed.has(name))) {
    if (state.status.kind !== "loading") remember(state);
  }
});
addEventListener("pagehide", () => remember(store.state));

store.set({ ...store.state, ...remembered() }); // everything is drawn once
actions.open();
