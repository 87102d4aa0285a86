// The numbers of a matrix: SVG where each cell can be named, a canvas where they are many or small.

import { element, visible } from "./numbers.js";
import { drawing, label, plain, pointed, rgb, svg, tenth, WIDTH, widthOf } from "./svg.js";

const [ROW_LABEL, COLUMN_LABEL] = [30, 18]; // letters
const MOST_NUMBERS = 24; // columns of which the cells also have their number written
const MOST_CELLS = 1024; // that are elements of the page

const MASKED = "rgba(128, 132, 140, 0.3)"; // a cell of a canvas without a number, which is none of 0

const isNumber = (text) => /^-?[\d,]+(\.\d+)?$/.test(text);

// picked(row, column): a cell was clicked.
export function heatMap(figure, path, picked) {
  const [R, C] = [figure.rows.length, figure.columns.length];
  if (!R || !C) return [element("p", { class: "faint" }, "no numbers to draw")];
  if (figure.compact) return [small(figure, path, picked)];
  const rows = figure.rows.map((text) => visible(text, ROW_LABEL));
  const columns = figure.columns.map((text) => visible(text, COLUMN_LABEL));
  const left = Math.max(...rows.map(widthOf)) + 8;
  const written = C <= MOST_NUMBERS && R * C <= MOST_CELLS;
  const texts = written ? figure.values.map((row) => row.map((v) => cellText(figure, v))) : null;
  const longest = texts ? Math.max(...texts.flat().map(widthOf)) * 0.85 + 6 : 0;
  const [countsAcross, countsDown] = [columns.every(isNumber), rows.every(isNumber)];
  const width = Math.max(longest, countsAcross ? Math.min(22, (WIDTH - left) / C) : 15, 3);
  const height = texts ? 20 : countsDown ? Math.max(3, Math.min(17, 600 / R)) : 17;
  const upright = !countsAcross && columns.some((text) => widthOf(text) > width);
  const top = 24 + (upright ? Math.max(...columns.map(widthOf)) + 10 : 18);
  const [right, bottom] = [left + C * width, top + R * height];
  const picture = drawing(figure.title, Math.max(WIDTH, right + 2), bottom + 4, ...captionOf(figure));
  if (right > WIDTH) picture.style.minWidth = `${right + 2}px`; // smaller, its labels could not be read
  const every = countsAcross ? Math.max(1, Math.ceil((Math.max(...columns.map(widthOf)) + 8) / width)) : 1;
  columns.forEach((text, c) => {
    const x = left + (c + 0.5) * width;
    if (upright) picture.append(svg("text", { class: "dim", transform: `translate(${tenth(x + 4)} ${tenth(top - 6)}) rotate(-90)` }, text));
    else if (c % every === 0) picture.append(label(x, top - 5, text, { anchor: "middle" }));
  });
  const each = Math.max(1, Math.ceil(12 / height));
  rows.forEach((text, r) => r % each === 0 && picture.append(label(left - 6, top + (r + 0.5) * height + 4, text, { anchor: "end" })));
  if (R * C <= MOST_CELLS) picture.append(...cells(figure, path, texts, left, top, width, height));
  else picture.append(many(figure, left, top, right - left, bottom - top));
  picture.append(svg("rect", { class: "frame", x: tenth(left), y: top, width: tenth(right - left), height: tenth(bottom - top) }));
  const ring = svg("rect", { class: "ring", width: tenth(width), height: tenth(height), visibility: "hidden" });
  picture.append(ring);
  const out = element("output", {}, "");
  const read = (x, y, event) => {
    const [c, r] = [Math.floor((x - left) / width), Math.floor((y - top) / height)];
    ring.setAttribute("x", tenth(left + c * width));
    ring.setAttribute("y", tenth(top + r * height));
    ring.setAttribute("visibility", "visible");
    out.textContent = readout(figure, r, c);
    Object.assign(out.dataset, { value: String(figure.values[r][c]), source: `${path}/${r}/${c}` });
    if (event?.type === "click" || event?.type === "keydown") picked(r, c);
  };
  const rest = () => (ring.setAttribute("visibility", "hidden"), (out.textContent = ""), delete out.dataset.value, delete out.dataset.source);
  if (figure.links?.length) picture.classList.add("opens");
  pointed(picture, [left, top, right, bottom], [width, height], read, rest);
  return [element("div", { class: "scroll" }, picture), out];
}

export function readout(figure, r, c) {
  const named = (axis, text) => (axis ? `${axis} ${text}` : text);
  const place = `${named(figure.row_axis, visible(figure.rows[r]))} · ${named(figure.column_axis, visible(figure.columns[c]))}`;
  return `${place}: ${plain(figure.values[r][c])}`;
}

function cellText(figure, value) {
  if (value === null) return "";
  return figure.log ? value.toExponential(1) : value.toFixed(figure.digits);
}

const fillOf = (figure, share) => rgb(share < 0 ? figure.negative_color : figure.color, Math.abs(share));

function cells(figure, path, texts, left, top, width, height) {
  const made = [];
  let struck = ""; // cells without a number: masked
  figure.values.forEach((row, r) => row.forEach((value, c) => {
    const [x, y] = [left + c * width, top + r * height];
    if (value === null) return (struck += `M${tenth(x)} ${tenth(y + height)}l${tenth(width)} ${tenth(-height)}`);
    const box = { x: tenth(x), y: tenth(y), width: tenth(width), height: tenth(height) };
    made.push(svg("rect", { ...box, fill: fillOf(figure, figure.shares[r][c] ?? 0), "data-value": value, "data-source": `${path}/${r}/${c}` }));
    if (texts) made.push(svg("text", { class: "cell", x: tenth(x + width / 2), y: tenth(y + height / 2 + 3.5) }, texts[r][c]));
  }));
  return struck ? [...made, svg("path", { class: "masked", d: struck })] : made;
}

// One pixel a cell, scaled up without smoothing.
function raster(figure) {
  const canvas = element("canvas", { width: figure.columns.length, height: figure.rows.length, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  figure.shares.forEach((row, r) => row.forEach((share, c) => {
    if (share === 0) return;
    context.fillStyle = share === null ? MASKED : fillOf(figure, share);
    context.fillRect(c, r, 1, 1);
  }));
  return canvas;
}

function many(figure, x, y, width, height) {
  const canvas = raster(figure);
  canvas.className = "cells";
  return svg("foreignObject", { x: tenth(x), y: tenth(y), width: tenth(width), height: tenth(height) }, canvas);
}

// One of many beside each other: no labels; all of it is a button.
function small(figure, path, picked) {
  const canvas = raster(figure);
  canvas.className = "cells";
  const name = figure.title || "heat map";
  const button = element("button", { type: "button", class: "small-map", title: name, "aria-label": name, "data-source": path }, canvas);
  button.addEventListener("click", () => picked(0, 0));
  return button;
}

// The names of the axes, and what the colours stand for.
function captionOf(figure) {
  const axes = [["down", figure.row_axis], ["across", figure.column_axis]].filter(([, axis]) => axis);
  const text = axes.map(([side, axis]) => `${side}: ${axis}`).join(" · ");
  const end = (v) => (figure.log ? v.toExponential(1) : v === 0 ? "0" : plain(v));
  const n = figure.signed ? 17 : 9;
  const parts = [label(0, 14, text)];
  let x = text ? widthOf(text) + 16 : 0;
  parts.push(label(x, 14, end(figure.lowest)));
  x += widthOf(end(figure.lowest)) + 6;
  for (let i = 0; i < n; i++) {
    const share = figure.signed ? (2 * i) / (n - 1) - 1 : i / (n - 1);
    parts.push(svg("rect", { x: tenth(x + 12 * i), y: 4, width: 12, height: 12, fill: fillOf(figure, share) }));
  }
  parts.push(svg("rect", { class: "frame", x: tenth(x), y: 4, width: 12 * n, height: 12 }));
  parts.push(label(x + 12 * n + 6, 14, end(figure.highest)));
  return parts;
}
