// The six figures of the server (figures/json.py): notes, tables and tokens as HTML, pictures as SVG or on a canvas.
//
// Numbers stand in `data-value` in full precision, and `data-source` says which: PATH/row/column of the figure PATH.

import { curves } from "./curves.js";
import { heatMap } from "./heat_map.js";
import { element, visible } from "./numbers.js";
import { points } from "./points.js";
import { plain, rgb } from "./svg.js";
import { filterOf } from "./table_filter.js";

/** @type {Record<string, (figure: any, path: string, picked: (r: number, c: number) => void) => Node[]>} */
const DRAWN = { note, table, heat_map: heatMap, curves, points, tokens };

// The elements of a list of figures. picked(figure, row, column): a cell or a row was clicked; without it nothing opens.
/** @param {any[]} figures @param {string} path @param {((figure: any, row: number, column: number) => void) | null} picked */
export function drawFigures(figures, path, picked = null) {
  const made = document.createDocumentFragment();
  let place = made; // of the next figure: a step of a walk-through, or the whole
  let beside = null; // small ones stand beside each other
  figures.forEach((figure, i) => {
    const draw = DRAWN[figure.kind];
    const shown = picked ? figure : { ...figure, links: [] };
    const parts = draw ? draw(shown, `${path}/${i}`, (r, c) => picked?.(figure, r, c)) : [element("p", {}, `a figure of kind ${figure.kind}: this page cannot draw it`)];
    const isSmall = figure.compact === true;
    const isMap = isSmall && figure.kind === "heat_map";
    if (!isSmall || beside?.dataset.kind !== figure.kind || beside.dataset.line !== (figure.line ?? "")) beside = null;
    if (figure.step) made.append((place = element("div", { class: "step" })));
    const block = element(isSmall ? "div" : "section", { class: `figure ${figure.kind}${isSmall ? " compact" : ""}`, "data-kind": figure.kind });
    if (figure.title) block.append(element(isMap ? "span" : "h3", isMap ? { class: "small" } : {}, figure.title));
    block.append(...parts);
    if (figure.omitted) block.append(element("p", { class: "small" }, omitted(figure.omitted)));
    if (isSmall && !beside) {
      place.append((beside = element("div", { class: "beside", "data-kind": figure.kind, "data-line": figure.line ?? "" })));
      if (figure.line) beside.append(element("span", { class: "line-name small" }, figure.line));
    }
    (isSmall ? beside : place).append(block);
  });
  return made;
}

const omitted = (parts) => `not drawn: ${Object.entries(parts).map(([name, n]) => `${n.toLocaleString("en-GB")} ${name}`).join(", ")}`;

function note(figure) {
  return [element(figure.verbatim ? "pre" : "p", {}, figure.text)];
}

function table(figure, path, picked) {
  if (!figure.rows.length && !figure.footer.length) return [];
  const head = element("tr", {}, ...figure.columns.map((column) => element("th", { scope: "col", class: numeric(column) && "n" }, column.name)));
  const marked = new Set(figure.marked);
  const body = [...figure.rows, ...figure.footer].map((row, r) => {
    const kind = r >= figure.rows.length ? "footer" : marked.has(r) ? "marked" : "";
    const links = figure.links?.[r] ?? [];
    const line = element("tr", { class: kind }, ...row.map((cell, c) => {
      const made = cellOf(cell, figure.columns[c], `${path}/${r}/${c}`);
      if (links.length > 1 || c === 0 ? links[c] : false) made.replaceChildren(element("button", { type: "button", class: "opens" }, ...made.childNodes));
      return made;
    }));
    line.addEventListener("click", ({ target }) => picked(r, target instanceof Element ? (target.closest("td")?.cellIndex ?? 0) : 0));
    return line;
  });
  const made = element("table", { class: "figure-table" }, element("thead", {}, head), element("tbody", {}, ...body));
  const about = `${figure.title || "table"}: arrow keys choose a row, Enter goes to it`;
  const region = element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": about }, made);
  chosenByKeys(region, body);
  return [...filterOf(figure.title, body.slice(0, figure.rows.length)), region];
}

// Up and Down move through the rows of a table, Enter clicks the chosen one.
function chosenByKeys(region, rows) {
  let at = -1;
  const choose = (r) => {
    rows[at]?.classList.remove("chosen");
    at = r;
    rows[at]?.classList.add("chosen");
    rows[at]?.scrollIntoView({ block: "nearest" });
  };
  region.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key] ?? 0;
    if (event.key === "Enter" && at >= 0 && event.target === region) rows[at].click();
    if (!by) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(at + by, rows.length - 1)));
  });
  region.addEventListener("blur", () => choose(-1));
}

const numeric = (column) => !["text", "token"].includes(column.kind);

function cellOf(cell, column, source) {
  const known = cell.value !== undefined && cell.value !== null;
  const made = element("td", { class: numeric(column) ? "n" : undefined, "data-value": known ? String(cell.value) : undefined, "data-source": known ? source : undefined }, cell.text);
  if (cell.bar === undefined || cell.bar === null) return made;
  const bar = element("i", { class: column.kind === "signed" ? "signed" : "" });
  bar.style.width = `${(column.kind === "signed" ? 50 : 100) * Math.abs(cell.bar)}%`;
  bar.style.background = rgb(cell.bar < 0 ? column.negative_color : column.color);
  if (column.kind === "signed") bar.style.marginLeft = `${50 + 50 * Math.min(cell.bar, 0)}%`;
  made.append(element("span", { class: "bar-track", "aria-hidden": "true" }, bar));
  return made;
}

function tokens(figure, path) {
  const spans = figure.texts.map((text, i) => {
    const value = figure.values[i];
    const shown = text.replaceAll("\\n", "⏎\n");
    if (value === null) return element("span", { class: figure.unit ? "faint" : undefined }, shown);
    const about = `${plain(value)} ${figure.unit}`.trim();
    const made = element("span", { title: `${visible(text)}: ${about}`, "data-value": String(value), "data-source": `${path}/${i}` }, shown);
    made.style.background = rgb(figure.color, figure.strength * Math.min(value / figure.highest, 1));
    return made;
  });
  const made = [element("div", { class: "figure-tokens" }, ...spans)];
  if (figure.unit) {
    const strip = element("i", { class: "strip" });
    strip.style.background = `linear-gradient(90deg, transparent, ${rgb(figure.color, figure.strength)})`;
    made.push(element("p", { class: "small" }, "0 ", strip, ` ${figure.highest.toFixed(figure.digits)} ${figure.unit}`));
  }
  return made;
}
