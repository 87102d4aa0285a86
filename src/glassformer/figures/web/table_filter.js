// A field above a long table, which shows only the rows that have some text in them.

import { element } from "./numbers.js";

const LONG = 20; // rows; shorter ones have no field

/** @param {string} title @param {HTMLElement[]} rows */
export function filterOf(title, rows) {
  if (rows.length <= LONG) return [];
  const input = element("input", { type: "search", class: "table-filter", placeholder: "search", "aria-label": `search ${title || "the table"}`, autocomplete: "off", spellcheck: "false" });
  const found = element("span", { class: "small", role: "status" });
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    rows.forEach((row) => (row.hidden = !row.textContent.toLowerCase().includes(wanted)));
    found.textContent = wanted ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
  });
  return [element("div", { class: "line" }, input, found)];
}
