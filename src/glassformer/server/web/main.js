// Connects the store, the actions and the views. Views know only the store; this file knows all of them.

import * as api from "./api.js";
import { currentOf } from "./branches.js";
import { branchTree } from "./branch_tree.js";
import { chatView } from "./chat.js";
import { controlsView, DEFAULTS } from "./controls.js";
import { distributionView } from "./distribution.js";
import { rowsOf } from "./rows.js";
import { createActions } from "./actions.js";
import { readAddress, writeAddress } from "./address.js";
import { guessView } from "./guess.js";
import { follow } from "./follow.js";
import { frameView } from "./frame.js";
import { lookView } from "./look.js";
import { rankView } from "./rank.js";
import { runsView } from "./runs.js";
import { sideBySide } from "./side_by_side.js";
import { createStore, remember, remembered } from "./store.js";
import { baseOf, timeTravel } from "./time_travel.js";
import { tourView } from "./tour.js";
import { textSummary } from "./text_summary.js";
import { tokensPanel } from "./tokens_panel.js";
import { tokensView } from "./tokens.js";
import { fits, keepLink, linkedText } from "./write_link.js";
import { textOf } from "./vocabulary.js";

const store = createStore({
  models: [], // that the server has
  model: null, // the name of the one in use
  vocabulary: null, // its tokens
  mode: "text", // or "chat"
  system: "", // the system prompt of a chat
  chat: null, // {messages, answerStart}: what was sent, and the token at which the answer begins
  editing: null, // the turn of the chat that the next message replaces
  prompt: "",
  lookText: "", // what the views are about; empty: the example of each
  tokens: [], // {id, given, probability, start}: of the prompt and of the answer
  grown: 0, // how many tokens were appended to `tokens` in place
  probabilities: 0, // how often probabilities of the prompt arrived
  endTokens: null, // ids that end an answer; null: the model's end of text
  selected: null, // the selected position; tokens.length: the next token
  branches: [], // every text of this tab, see branches.js
  branch: null, // the id of the one on the screen
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
textSummary(document.getElementById("summary"), document.getElementById("tokens"), store);
chatView(document.getElementById("chat"), store, actions);
branchTree(document.getElementById("branches"), store, api, { goTo: actions.goTo });
const panel = distributionView(document.getElementById("distribution"), store, {
  branch: (index, id) => {
    actions.branch(index, id);
    text.focus();
  },
  leave: () => text.focus(),
});
follow(/** @type {HTMLInputElement} */ (document.getElementById("follow")), store, rows.load);
controlsView(document.getElementById("controls"), store);
frameView(store, actions, { retry: () => (rows.forgetFailure(), actions.retry()) });

const look = lookView(document.getElementById("look-panel"), store, api, actions);
const beside = sideBySide(document.getElementById("side-by-side-panel"), store, api);
const game = guessView(document.getElementById("guess-panel"), store, api);
const cut = tokensPanel(document.getElementById("tokens-panel"), store, api);
const rank = rankView(document.getElementById("rank-panel"), store, api, actions);
const tour = tourView(document.getElementById("tour-panel"), store, api, actions);
const train = runsView(document.getElementById("train-panel"), store, api, actions);
timeTravel(document.getElementById("time-travel"), store, api, actions);

const WAYS = ["write", "side-by-side", "guess"]; // to write
const PANELS = [...WAYS, "tokens", "look", "train", "rank", "tour"];

// The panel of the address; a model that it names is opened.
async function navigate() {
  const cursor = readAddress();
  const empty = store.state.status.kind === "nothing"; // no model: the panel that can make one
  const panel = empty ? "train" : PANELS.includes(cursor.panel) ? cursor.panel : "write";
  train.stop();
  for (const name of PANELS) {
    document.getElementById(`${name}-panel`).hidden = name !== panel;
  }
  document.getElementById("ways").hidden = !WAYS.includes(panel);
  for (const link of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-panel]"))) {
    const { panel: name } = link.dataset;
    const current = name === panel || (name === "write" && WAYS.includes(panel) && !link.closest("#ways"));
    link.setAttribute("aria-current", current ? "page" : "false");
  }
  if (!store.state.models.length && !empty) return;
  if (panel === "write") return goToText(cursor);
  if (panel === "side-by-side") return beside.go();
  if (panel === "guess") return game.go();
  if (panel === "tokens") return cut.go();
  if (panel === "train") return train.go(cursor);
  if (panel === "rank") return rank.go();
  if (panel === "tour") return tour.go(cursor);
  const named = store.state.models.some((model) => model.name === baseOf(cursor.model));
  if (named && cursor.model !== store.state.model) await actions.useModel(cursor.model);
  await look.go(cursor);
}
// Back and Forward walk over the branches.
async function goToText({ model, options }) {
  const found = linkedText(options);
  const known = store.state.branches.find((branch) => branch.id === Number(options.branch) && fits(branch, options));
  if (known && known.id !== store.state.branch) await actions.goTo(known.id);
  if (!known && found) return actions.openText(model, found);
  if (known && found) store.set({ selected: found.selected });
}
keepLink(store);
addEventListener("popstate", navigate);
for (const nav of ["panels", "ways"]) document.getElementById(nav).addEventListener("click", (event) => {
  const link = /** @type {Element} */ (event.target).closest("[data-panel]");
  const panel = link instanceof HTMLElement ? link.dataset.panel : null;
  if (!panel) return;
  event.preventDefault();
  const { tokens, vocabulary } = store.state;
  const text = vocabulary ? textOf(vocabulary, tokens.map((token) => token.id)) : "";
  if (panel === "look" && text) store.set({ lookText: text });
  writeAddress({ panel, view: null, options: {} });
  navigate();
});

let soon = 0;
store.subscribe((state, changed) => {
  if (["status", "sampling", "prompt", "mode", "model", "maxTokens", "seedInput", "system", "branch"].some((name) => changed.has(name))) {
    clearTimeout(soon);
    soon = setTimeout(() => state.status.kind !== "loading" && remember(state), 300); // not at every move of a slider
  }
});
addEventListener("pagehide", () => remember(store.state));

const kept = { ...store.state, ...remembered() };
store.set({ ...kept, ...currentOf(kept) }); // draws every view once
await actions.open();
await navigate();
