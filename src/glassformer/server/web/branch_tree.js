// The branches of this tab as a tree: go to one, compare it with the one on the screen, remove it.

import { asTree, without } from "./branches.js";
import { comparison } from "./compare_branches.js";
import { drawFigures } from "./figures.js";
import { count, element, shown } from "./numbers.js";
import { meanOf } from "./text_summary.js";
import { baseOf } from "./time_travel.js";
import { spelled } from "./vocabulary.js";

const PREVIEW = 7; // tokens

export function branchTree(root, store, api, { goTo }) {
  const list = element("ul", { class: "tree" });
  const result = element("div", { class: "figures", id: "comparison", hidden: true });
  root.append(element("h2", { id: "branches-title" }, "Branches"), element("p", { class: "small" }, "Every text and branch of this tab keeps its numbers. Back and Forward walk over them."), list, result);
  list.setAttribute("aria-labelledby", "branches-title");

  async function draw({ branches, branch }) {
    root.hidden = branches.length < 2;
    if (root.hidden) return;
    const vocabularies = await vocabulariesOf(branches.map((one) => one.model));
    if (branches !== store.state.branches && branches.length !== store.state.branches.length) return;
    list.replaceChildren(...asTree(branches).map((one) => item(one, branch, vocabularies.get(baseOf(one.model)), several(branches))));
  }

  const several = (branches) => new Set(branches.map((one) => one.model)).size > 1;

  async function vocabulariesOf(models) {
    const names = [...new Set(models.map(baseOf))];
    return new Map(await Promise.all(names.map(async (name) => /** @type {[string, any]} */ ([name, await api.vocabulary(name).catch(() => null)]))));
  }

  function item(one, current, vocabulary, severalModels) {
    const text = (some) => some.map((token) => spelled(vocabulary, token.id)).join("");
    const go = element("button", { type: "button", class: "branch", "data-branch": one.id, "aria-current": one.id === current ? "true" : undefined });
    const from = one.parent === null ? 0 : one.at;
    go.append(element("b", {}, `${one.id}`), " ");
    if (from) go.append(element("span", { class: "faint" }, `at ${from}: `));
    go.append(element("span", { class: "token-text" }, text(one.tokens.slice(from, from + PREVIEW)), one.tokens.length > from + PREVIEW ? "…" : ""));
    const mean = meanOf(one.tokens);
    const facts = element("span", { class: "small facts-of" }, shown(one.tokens.length, `branch-tokens/${one.id}`, count), " tokens");
    if (mean) facts.append(", mean ", shown(mean.bits, `branch-bits/${one.id}`, (bits) => `${bits.toFixed(2)} bits`));
    if (severalModels) facts.append(`, ${one.model}`);
    const line = element("li", {}, go, facts);
    line.style.setProperty("--depth", String(one.depth));
    if (one.id !== current) {
      line.append(element("button", { type: "button", class: "quiet", "data-compare": one.id }, "compare"));
      line.append(element("button", { type: "button", class: "quiet", "data-remove": one.id, "aria-label": `remove branch ${one.id}` }, "remove"));
    }
    return line;
  }

  async function compare(id) {
    const { branches, branch } = store.state;
    const [a, b] = [branch, id].map((each) => branches.find((one) => one.id === each));
    const vocabularies = await vocabulariesOf([a.model, b.model]);
    result.replaceChildren(drawFigures(comparison(a, b, (one) => vocabularies.get(baseOf(one.model))), "branches"));
    result.hidden = false;
    result.scrollIntoView({ block: "nearest" });
  }

  list.addEventListener("click", (event) => {
    const { branch, compare: other, remove } = event.target.closest("button")?.dataset ?? {};
    if (branch) goTo(Number(branch));
    if (other) compare(Number(other));
    if (remove) store.set({ branches: without(store.state.branches, Number(remove)) });
  });
  store.subscribe((state, changed) => {
    if (changed.has("branch")) result.hidden = true;
    if (["branch", "branches", "status", "probabilities"].some((name) => changed.has(name))) draw(state);
  });
}
