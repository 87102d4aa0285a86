// The text as tokens, colored by surprise; each can be selected. A list box: one stop for Tab, then arrow keys.

import { element } from "./numbers.js";
import { surprise } from "./sampling.js";
import { flowing, spelled } from "./vocabulary.js";

const FULL_BITS = 12; // of surprise: the darkest color

export function tokensView(root, store, { onLeave, onSelect }) {
  const next = element("span", { class: "token next", role: "option", "aria-label": "the next token" });
  next.append(element("span", { class: "ink" }, "…"));
  const made = []; // one element a token
  let drawn = null; // the tokens they show, and how they are spelled
  let vocabulary = null;

  function draw(state) {
    if (state.tokens !== drawn || state.vocabulary !== vocabulary) {
      root.replaceChildren();
      made.length = 0;
      ({ tokens: drawn, vocabulary } = state);
    }
    const follow = root.scrollHeight - root.scrollTop - root.clientHeight < 40;
    const fresh = document.createDocumentFragment();
    for (let i = made.length; i < drawn.length; i++) {
      made.push(tokenElement(i, drawn[i], vocabulary));
      fresh.append(made[i]);
    }
    next.dataset.index = drawn.length;
    if (drawn.length) fresh.append(next);
    root.append(fresh);
    if (follow && state.status.kind === "streaming") root.scrollTop = root.scrollHeight;
  }

  function mark({ selected, tokens }) {
    for (const old of root.querySelectorAll("[aria-selected=true]")) old.setAttribute("aria-selected", "false");
    for (const old of root.querySelectorAll("[tabindex='0']")) old.tabIndex = -1;
    if (selected !== null) at(selected)?.setAttribute("aria-selected", "true");
    const stop = at(selected ?? (tokens.length > 1 ? 1 : tokens.length));
    if (stop) stop.tabIndex = 0;
  }

  const at = (index) => (index < made.length ? made[index] : made.length ? next : undefined);

  function select(index, focus) {
    if (!made.length) return;
    store.set({ selected: Math.max(0, Math.min(index, made.length)) });
    if (focus) at(store.state.selected).focus();
  }

  root.addEventListener("click", (event) => {
    const token = event.target.closest("[data-index]");
    if (!token) return;
    select(Number(token.dataset.index), true);
    onSelect();
  });
  root.addEventListener("keydown", (event) => {
    const index = Number(event.target.dataset.index);
    if (Number.isNaN(index) || event.ctrlKey || event.altKey || event.metaKey) return;
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: made.length, " ": index }[event.key];
    if (to !== undefined) select(to, true);
    else if (event.key === "ArrowDown" || event.key === "Enter") select(index), onLeave();
    else return;
    event.preventDefault();
  });
  root.addEventListener("focusin", (event) => {
    if (event.target.dataset.index && store.state.selected === null) select(Number(event.target.dataset.index));
  });

  store.subscribe((state, changed) => {
    if (changed.has("tokens") || changed.has("grown") || changed.has("vocabulary")) draw(state);
    if (changed.has("probabilities")) made.forEach((token, i) => color(token, i, state.tokens[i], state.vocabulary));
    if (changed.has("tokens") || changed.has("grown") || changed.has("selected") || changed.has("vocabulary")) mark(state);
  });
  return { focus: () => at(store.state.selected ?? 0)?.focus() };
}

function tokenElement(i, token, vocabulary) {
  const kinds = ["token", token.given ? "given" : "written"];
  if (vocabulary?.special.has(token.id)) kinds.push("special");
  if (vocabulary?.parts.has(token.id)) kinds.push("part");
  const what = { class: kinds.join(" "), role: "option", tabindex: -1, "aria-selected": "false" };
  // A space before a word is not colored: at the end of a line it would be a separate mark.
  const [, blank, ink] = /^(\s*)([^]*)$/.exec(flowing(vocabulary, token.id));
  const made = element("span", { ...what, "data-index": i, "data-id": token.id }, ink ? blank : "");
  made.append(element("span", { class: "ink" }, ink || blank));
  color(made, i, token, vocabulary);
  return made;
}

function color(made, i, token, vocabulary) {
  const text = spelled(vocabulary, token.id);
  if (token.probability === null || token.probability === undefined) {
    made.setAttribute("aria-label", `token ${i}: ${text}`);
    return;
  }
  const bits = surprise(token.probability);
  const rank = token.rank ? `, rank ${token.rank}` : "";
  made.dataset.value = String(bits);
  made.dataset.source = `surprise/${i - 1}/${token.id}`;
  made.setAttribute("aria-label", `token ${i}: ${text}, ${bits.toFixed(1)} bits of surprise${rank}`);
  made.style.setProperty("--heat", Math.min(bits / FULL_BITS, 1).toFixed(3));
}
