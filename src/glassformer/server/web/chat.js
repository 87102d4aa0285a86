// A chat of several turns: system prompt, edit a message, answer again, begin a new one. Each makes a branch.

import { element } from "./numbers.js";
import { turnsOf } from "./turns.js";

const NAMES = { user: "you", assistant: "model" };

export function chatView(root, store, actions) {
  const system = element("input", { id: "system", autocomplete: "off", placeholder: "none", spellcheck: "false" });
  const turns = element("ol", { class: "turns", id: "turns", "aria-label": "turns of the chat" });
  const fresh = element("button", { type: "button", class: "quiet", id: "new-chat" }, "new chat");
  const hint = element("p", { class: "small", id: "editing", hidden: true });
  const cancel = element("button", { type: "button", class: "quiet" }, "cancel");
  root.append(element("div", { class: "line system" }, element("label", { for: "system", class: "small" }, "system prompt"), system, fresh), turns, hint);

  function draw(state) {
    root.hidden = state.mode !== "chat";
    if (root.hidden) return;
    if (system.value !== state.system) system.value = state.system;
    const all = turnsOf(state);
    fresh.hidden = !all.length;
    turns.replaceChildren(...all.map((turn, i) => turnOf(turn, i, i === all.length - 1)));
    for (const [i, line] of [...turns.children].entries()) line.classList.toggle("later", state.editing !== null && i >= state.editing);
    hint.hidden = state.editing === null;
    hint.replaceChildren(`Editing turn ${(state.editing ?? 0) + 1}: what follows it becomes another branch. `, cancel);
  }

  function turnOf({ role, content }, i, last) {
    const line = element("li", { class: role, "data-turn": i }, element("span", { class: "who" }, NAMES[role] ?? role), element("span", { class: "said" }, content));
    if (role === "user") line.append(element("button", { type: "button", class: "quiet", "data-edit": i, "aria-label": `edit turn ${i + 1}` }, "edit"));
    const again = last ? "regenerate" : "regenerate from here";
    if (role === "assistant") line.append(element("button", { type: "button", class: "quiet", "data-again": i, "aria-label": `${again}: turn ${i + 1}` }, again));
    return line;
  }

  // Another answer needs another seed.
  function again(i) {
    const { seedInput, maxTokens } = store.state;
    if (seedInput !== "") store.set({ seedInput: String(Number(seedInput) + 1) });
    actions.begin(maxTokens, turnsOf(store.state).slice(0, i));
  }

  root.addEventListener("click", (event) => {
    const { edit, again: answer } = event.target.closest("button")?.dataset ?? {};
    if (edit !== undefined) {
      store.set({ editing: Number(edit), prompt: turnsOf(store.state)[Number(edit)].content });
      document.getElementById("prompt").focus();
    }
    if (answer !== undefined) again(Number(answer));
  });
  cancel.addEventListener("click", () => store.set({ editing: null, prompt: "" }));
  fresh.addEventListener("click", () => {
    actions.stop();
    store.set({ tokens: [], rows: new Map(), branch: null, chat: null, selected: null, seed: null, editing: null, prompt: "", status: { kind: "idle", text: "Ready." } });
  });
  system.addEventListener("input", () => store.set({ system: system.value }));
  store.subscribe((state, changed) => {
    if (["mode", "system", "chat", "tokens", "grown", "vocabulary", "editing"].some((name) => changed.has(name))) draw(state);
  });
}
