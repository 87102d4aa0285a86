// Writing by diffusion: each draft of a table is a step, of which one is shown; what it wrote is marked.

import { element } from "./numbers.js";

const HIDDEN = "▒";

// Put the drafts of the table with a column "draft" as steps before everything in `root`. Without one: nothing.
/** @param {Element} root @param {any[]} figures */
export function draftSteps(root, figures) {
  const table = figures.find((figure) => figure.kind === "table" && figure.columns.some((column) => column.name === "draft"));
  if (!table) return;
  const place = table.columns.findIndex((column) => column.name === "draft");
  const drafts = table.rows.map((row) => row[place].text.replaceAll("␣", " "));
  const steps = table.rows.map((row, i) => {
    const about = table.columns.map((column, c) => (c === place ? "" : `${column.name} ${row[c].text}`)).filter(Boolean).join(", ");
    return element("div", { class: "step draft-step" }, element("p", { class: "note small" }, about), element("p", { class: "draft" }, ...marked(drafts[i - 1], drafts[i])));
  });
  root.prepend(...steps);
}

// A draft in parts: hidden, written since the draft before (where both are of one length), and there before.
/** @param {string | undefined} before @param {string} now */
export function marked(before, now) {
  const [old, letters] = [[...(before ?? "")], [...now]];
  const same = old.length === letters.length;
  const kind = (letter, i) => (letter === HIDDEN ? "hidden" : same && old[i] === HIDDEN ? "written" : "");
  /** @type {Node[]} */
  const parts = [];
  for (let i = 0, from = 0; i < letters.length; i++) {
    const own = kind(letters[i], i);
    if (i + 1 < letters.length && kind(letters[i + 1], i + 1) === own) continue;
    const text = letters.slice(from, i + 1).join("");
    parts.push(own === "written" ? element("mark", {}, text) : element("span", { class: own === "hidden" ? "faint" : undefined }, text));
    from = i + 1;
  }
  return parts;
}
