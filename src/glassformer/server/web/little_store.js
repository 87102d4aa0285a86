// A text of its own beside the main one: with its own model, sampling and branches, by the same actions and views.

import { createActions } from "./actions.js";
import { rowsOf } from "./rows.js";
import { createStore } from "./store.js";

// {store, actions, rows}; failed(text): an error to be shown.
export function littleText(models, api, fields = {}) {
  const store = createStore({
    models, model: null, vocabulary: null, mode: "text", prompt: "", tokens: [], grown: 0, probabilities: 0, endTokens: null,
    selected: null, branches: [], branch: null, rows: new Map(), sampling: null, maxTokens: 40, seedInput: "", seed: null, system: "", chat: null, editing: null,
    status: { kind: "idle", text: "" }, ...fields,
  });
  const actions = createActions(store, api);
  return { store, actions, rows: rowsOf(store, api, actions.failed) };
}
