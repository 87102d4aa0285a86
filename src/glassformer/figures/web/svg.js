// Places in a picture: scales, round ticks, and SVG elements. The arithmetic is that of figures/axes.py.

const SMALLEST = 1e-12; // of a logarithmic scale
export const WIDTH = 760; // of a drawing, user units

// An SVG element with attributes and children (texts and elements).
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

// A drawing of a size, which shrinks with the page down to a readable one.
export function drawing(title, width, height, ...children) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", "aria-label": title }, ...children);
}

export const label = (x, y, text, { anchor = "start", kind = "dim" } = {}) =>
  svg("text", { x: tenth(x), y: tenth(y), "text-anchor": anchor, class: kind }, text);

export const tenth = (value) => Number(value.toFixed(1));
export const rgb = ([red, green, blue], alpha = 1) => `rgba(${red}, ${green}, ${blue}, ${alpha.toFixed(3)})`;

// Letters of Chinese, Japanese and Korean are two wide.
export const widthOf = (text) => 7 * [...text].reduce((sum, c) => sum + (/[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uff60]/.test(c) ? 2 : 1), 0);

// From numbers low..high to places start..end, linear or logarithmic.
export function scaleOf(low, high, start, end, log = false) {
  if (log) [low, high] = [Math.max(low, SMALLEST), Math.max(high, SMALLEST)];
  if (!(high > low)) [low, high] = log ? [low / 2, low * 2] : [low - 0.5, low + 0.5];
  const turn = log ? (v) => Math.log(Math.max(v, SMALLEST)) : (v) => v;
  const at = (v) => start + ((turn(v) - turn(low)) / (turn(high) - turn(low))) * (end - start);
  const back = (place) => {
    const share = (place - start) / (end - start);
    return log ? low * (high / low) ** share : low + (high - low) * share;
  };
  return Object.assign(at, { low, high, back, ticks: () => (log ? logTicks(low, high) : ticks(low, high)) });
}

// Round numbers between low and high: steps of 1, 2 or 5 times a power of ten.
export function ticks(low, high, most = 6) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= rough * (1 - 1e-9));
  const [first, last] = [Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)];
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

// Powers of ten (read from text: 10 ** -4 is not 0.0001 in V8) between low and high, with 2 and 5 where there are few; linear ones within a power of ten.
export function logTicks(low, high) {
  const powers = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) powers.push(p);
  for (const factors of [[1], [1, 2, 5]]) {
    const found = powers.flatMap((p) => factors.map((f) => Number(`${f}e${p}`))).filter((v) => low <= v && v <= high);
    const every = Math.ceil(found.length / 8);
    if (found.length >= 3) return found.filter((_, i) => i % every === 0);
  }
  return ticks(low, high);
}

// The label of a tick: 20k, 0.25, 3e-5.
export function short(value) {
  for (const [size, letter] of /** @type {[number, string][]} */ ([[1e9, "G"], [1e6, "M"], [1e3, "k"]])) {
    if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(6))}${letter}`;
  }
  return String(Number(value.toPrecision(6)));
}

// A number under the pointer.
export function plain(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) >= 1e5 ? Math.round(value).toLocaleString("en-GB") : String(Number(value.toPrecision(5)));
}

// The index of the place nearest to x; places ascend.
export function nearest(places, x) {
  let [low, high] = [0, places.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (places[middle] < x) low = middle;
    else high = middle;
  }
  return Math.abs(x - places[low]) <= Math.abs(places[high] - x) ? low : high;
}

// Calls `read(x, y)` in user units with what the pointer rests on or the arrow keys move to; `rest` when it leaves.
export function pointed(picture, [left, top, right, bottom], [stepX, stepY], read, rest) {
  const clamp = (v, low, high) => Math.max(low, Math.min(high, v));
  let [x, y] = [left + stepX / 2, top + stepY / 2];
  picture.tabIndex = 0;
  const place = (event) => {
    const box = picture.getBoundingClientRect();
    const { width, height } = picture.viewBox.baseVal;
    x = clamp(((event.clientX - box.left) / box.width) * width, left, right - 0.01);
    y = clamp(((event.clientY - box.top) / box.height) * height, top, bottom - 0.01);
    return read(x, y, event);
  };
  picture.addEventListener("pointermove", place);
  picture.addEventListener("click", place);
  picture.addEventListener("focus", () => read(x, y));
  picture.addEventListener("keydown", (event) => {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (event.key === "Enter") read(x, y, event);
    if (!dx && !(dy && stepY)) return;
    event.preventDefault();
    x = clamp(x + dx * stepX, left, right - 0.01);
    y = clamp(y + dy * stepY, top, bottom - 0.01);
    read(x, y);
  });
  picture.addEventListener("pointerleave", rest);
  picture.addEventListener("blur", rest);
}
