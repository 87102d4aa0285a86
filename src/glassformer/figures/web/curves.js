// Lines over the same axis, as SVG; a cursor reads out all of them.

import { element } from "./numbers.js";
import { drawing, label, nearest, plain, pointed, rgb, scaleOf, short, svg, tenth, WIDTH, widthOf } from "./svg.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [64, 14, 12, 34];
const MOST_DOTS = 80; // values of a line that are marked

export function curves(figure, path) {
  const lines = figure.lines.filter((line) => line.x.some((x, i) => drawn(figure, x, line.y[i])));
  if (!lines.length) return [element("p", { class: "faint" }, "no numbers to draw")];
  const [legend, used] = legendOf(figure);
  const top = used + TOP;
  const bottom = top + (figure.compact ? 190 : 320) - TOP - BOTTOM;
  const across = scaleOf(figure.limits[0], figure.limits[1], LEFT, WIDTH - RIGHT, figure.x_log);
  const up = scaleOf(figure.limits[2], figure.limits[3], bottom, top, figure.y_log);
  const picture = drawing(figure.title, WIDTH, bottom + BOTTOM, ...legend);
  for (const y of up.ticks()) {
    picture.append(svg("path", { class: "grid", d: `M${LEFT} ${tenth(up(y))}H${WIDTH - RIGHT}` }));
    picture.append(label(LEFT - 6, up(y) + 4, short(y), { anchor: "end" }));
  }
  for (const [x, text] of ticksAcross(figure, across)) {
    picture.append(label(x, bottom + 16, text, { anchor: x > WIDTH - 40 ? "end" : "middle" }));
  }
  picture.append(label(WIDTH - RIGHT, bottom + 31, figure.x_axis, { anchor: "end" }));
  for (const { name, x } of figure.events) {
    if (x < across.low || x > across.high) continue;
    picture.append(svg("path", { class: "event", d: `M${tenth(across(x))} ${top}V${bottom}` }, svg("title", {}, name)));
  }
  figure.lines.forEach((line, i) => picture.append(lineOf(figure, line, across, up, `${path}/${i}`)));
  for (const { name, y } of figure.levels) {
    picture.append(svg("path", { class: "level", d: `M${LEFT} ${tenth(up(y))}H${WIDTH - RIGHT}` }));
    picture.append(label(WIDTH - RIGHT - 2, up(y) - 5, name, { anchor: "end", kind: "dim halo" }));
  }
  const cursor = svg("path", { class: "cursor", d: "" });
  picture.append(cursor);
  const out = element("output", {}, "");
  const name = (v) => (figure.x_labels.length ? figure.x_labels[v] : v.toLocaleString("en-GB"));
  const read = (x) => {
    const at = lines[0].x[nearest(lines[0].x, across.back(x))];
    cursor.setAttribute("d", `M${tenth(across(at))} ${top}V${bottom}`);
    const parts = lines.map((line) => {
      const i = nearest(line.x, at);
      const other = line.x[i] === at ? "" : ` (${figure.x_axis} ${name(line.x[i])})`;
      return `${line.name} ${plain(line.y[i])}${other}`;
    });
    out.textContent = `${figure.x_axis || "x"} ${name(at)}: ${parts.join(" · ")}`;
  };
  const rest = () => (cursor.setAttribute("d", ""), (out.textContent = ""));
  pointed(picture, [LEFT, top, WIDTH - RIGHT, bottom], [(WIDTH - LEFT - RIGHT) / 100, 0], read, rest);
  return [element("div", { class: "scroll" }, picture), out];
}

const finite = (v) => v !== null && Number.isFinite(v);
const drawn = (figure, x, y) => finite(x) && finite(y) && (!figure.x_log || x > 0) && (!figure.y_log || y > 0);

function ticksAcross(figure, across) {
  const names = figure.x_labels;
  if (!names.length) return across.ticks().map((x) => [across(x), short(x)]);
  const every = Math.max(1, Math.ceil(names.length / 12));
  return names.map((name, i) => [across(i), name]).filter((_, i) => i % every === 0);
}

function lineOf(figure, line, across, up, path) {
  const group = svg("g", { class: `curve${line.faint ? " faint" : ""}`, "data-source": path });
  group.style.setProperty("--light", rgb(line.color));
  group.style.setProperty("--dark", rgb(line.dark_color));
  const high = (y) => tenth(up(Math.min(y, up.high)));
  const order = [...line.x.keys()].sort((a, b) => line.x[a] - line.x[b]);
  if (line.low && line.high) {
    const known = order.filter((i) => finite(line.low[i]) && finite(line.high[i]) && (!figure.y_log || line.low[i] > 0));
    const edge = (values, i) => `${tenth(across(line.x[i]))},${high(values[i])}`;
    const outline = [...known.map((i) => edge(line.high, i)), ...known.reverse().map((i) => edge(line.low, i))];
    group.append(svg("polygon", { class: "band", points: outline.join(" ") }));
  }
  const pieces = [[]];
  for (const i of order) {
    if (drawn(figure, line.x[i], line.y[i])) pieces.at(-1).push(i);
    else if (pieces.at(-1).length) pieces.push([]);
  }
  const all = pieces.flat();
  for (const piece of pieces.filter((some) => some.length)) {
    const points = piece.map((i) => `${tenth(across(line.x[i]))},${high(line.y[i])}`).join(" ");
    group.append(svg("polyline", { points, "data-values": piece.map((i) => line.y[i]).join(" ") }));
  }
  if ((line.dots || all.length === 1) && all.length <= MOST_DOTS) {
    group.append(...all.map((i) => svg("circle", { cx: tenth(across(line.x[i])), cy: high(line.y[i]), r: 2.5 })));
  }
  return group;
}

// The name of the y-axis and, of several lines, their colours and names; and how high that is.
/** @returns {[SVGElement[], number]} */
function legendOf(figure) {
  const parts = [];
  let [x, y] = [LEFT, 14];
  if (figure.y_axis) {
    parts.push(label(x, y, figure.y_axis));
    x += widthOf(figure.y_axis) + 16;
  }
  for (const line of figure.lines.length > 1 ? figure.lines : []) {
    const length = 22 + widthOf(line.name) + 16;
    if (x + length > WIDTH && x > LEFT) [x, y] = [LEFT, y + 18];
    const key = svg("rect", { class: "key", x, y: y - 8, width: 16, height: 8, rx: 2 });
    const group = svg("g", { class: `curve${line.faint ? " faint" : ""}` }, key);
    group.style.setProperty("--light", rgb(line.color));
    group.style.setProperty("--dark", rgb(line.dark_color));
    parts.push(group, label(x + 22, y, line.name, { kind: "" }));
    x += length;
  }
  return [parts, parts.length ? y + 6 : 0];
}
