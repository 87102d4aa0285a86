// Everything around the text: model, prompt, buttons, status, key.

import * as api from "./api.js";
import { count, element } from "./numbers.js";
import { baseOf } from "./time_travel.js";

/** @type {(id: string) => any} - an element of index.html, whose kind the reader sees there */
const $ = (id) => document.getElementById(id);
const LABELS = { text: "Prompt: the model continues it", chat: "Chat: the model answers" };

export function frameView(store, actions, { retry }) {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    actions.begin(store.state.maxTokens);
  });
  $("read").addEventListener("click", () => actions.begin(0));
  $("stop").addEventListener("click", actions.stop);
  $("continue").addEventListener("click", actions.continueText);
  $("retry").addEventListener("click", retry);
  $("prompt").addEventListener("input", (event) => store.set({ prompt: event.target.value }));
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("composer").requestSubmit();
  });
  $("model").addEventListener("change", (event) => actions.useModel(event.target.value));
  $("max-tokens").addEventListener("input", (event) => {
    if (event.target.validity.valid && event.target.value) store.set({ maxTokens: Number(event.target.value) });
  });
  $("seed").addEventListener("input", (event) => {
    if (event.target.validity.valid) store.set({ seedInput: event.target.value });
  });
  $("modes").addEventListener("change", (event) => store.set({ mode: event.target.value }));
  $("colours").addEventListener("change", (event) => $("tokens").classList.toggle("plain", !event.target.checked));
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    api.useKey($("key").value);
    $("key").value = "";
    actions.retry();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && store.state.status.kind === "streaming") actions.stop();
  });

  store.subscribe((state, changed) => {
    if (changed.has("models") || changed.has("model")) drawModels(state);
    if (changed.has("mode") || changed.has("model") || changed.has("models")) drawMode(state);
    if (changed.has("prompt") && $("prompt").value !== state.prompt) $("prompt").value = state.prompt;
    if (changed.has("maxTokens") && Number($("max-tokens").value) !== state.maxTokens) $("max-tokens").value = state.maxTokens;
    if (changed.has("seedInput") && $("seed").value !== state.seedInput) $("seed").value = state.seedInput;
    if (changed.has("seed")) drawSeed(state.seed);
    if (changed.has("status") || changed.has("grown") || changed.has("tokens") || changed.has("model")) drawStatus(state);
  });
}

function drawModels({ models, model }) {
  $("model").replaceChildren(...models.map((one) => element("option", { value: one.name }, one.name)));
  if (model) $("model").value = baseOf(model);
  const sizes = models.find((one) => one.name === baseOf(model));
  const facts = sizes && [
    sizes.n_layer && `${sizes.n_layer} layers`, sizes.n_head && `${sizes.n_head} heads`,
    sizes.vocab_size && `${count(sizes.vocab_size)} tokens`, sizes.block_size && `context ${count(sizes.block_size)}`,
  ];
  $("sizes").textContent = facts ? facts.filter(Boolean).join(" · ") : "";
}

function drawMode({ mode, models, model }) {
  $("modes").hidden = !models.find((one) => one.name === baseOf(model))?.chats;
  $("modes").querySelector(`[value=${mode}]`).checked = true;
  $("prompt-label").textContent = LABELS[mode];
}

function drawSeed(seed) {
  $("seed-used").hidden = seed === null;
  $("seed-shown").textContent = seed ?? "";
  Object.assign($("seed-shown").dataset, { value: String(seed), source: "seed" });
}

function drawStatus({ status, tokens, models, model }) {
  const writes = models.find((one) => one.name === baseOf(model))?.writes ?? true;
  const busy = ["streaming", "reading"].includes(status.kind);
  const ready = !busy && !["loading", "key", "nothing"].includes(status.kind);
  const written = tokens.filter((token) => !token.given).length;
  $("status").dataset.state = status.kind;
  $("status-text").textContent = status.text;
  $("so-far").textContent = status.kind === "streaming" ? `${count(written)} tokens` : ""; // not in the status, which screen readers read aloud
  $("key-form").hidden = status.kind !== "key";
  $("retry").hidden = !["gone", "error"].includes(status.kind);
  $("stop").hidden = !busy;
  $("write").hidden = $("read").hidden = busy;
  $("write").disabled = $("read").disabled = !ready || !writes;
  $("continue").hidden = busy || !ready || !tokens.length;
  $("hint").hidden = tokens.length > 0 && busy;
  $("tokens").classList.toggle("empty", !tokens.length);
}
