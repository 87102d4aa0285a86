// Numbers on the screen. Each has its exact value and its meaning as data, so that a test can compare it with torch:
//
//   data-value   in full precision        data-source   logits/12/345: position 12 (0 is the first token), token 345

export function percent(share) {
  if (share === 0) return "0 %";
  if (share >= 0.001) return `${(100 * share).toFixed(1)} %`;
  const small = 100 * share;
  return `${small >= 1e-4 ? small.toPrecision(2) : small.toExponential(0).replace("e-", "e−")} %`;
}

export const bits = (value) => `${Number.isFinite(value) ? value.toFixed(2) : "∞"} bits`;
export const decimal = (value) => (Number.isFinite(value) ? value.toFixed(2) : value < 0 ? "-∞" : "∞").replace("-", "−");
const GROUPED = new Intl.NumberFormat("en-GB"); // made once: toLocaleString makes one at every call
export const count = (value) => GROUPED.format(value);

// A token with visible spaces, cut to `width` characters: a space as ␣; one that does not break or has another width as ⍽.
export function visible(text, width = Infinity) {
  const shown = [...text.replaceAll(" ", "␣").replace(/\p{Zs}/gu, "⍽")];
  return shown.length <= width ? shown.join("") : `${shown.slice(0, width - 1).join("")}…`;
}

// An element with attributes and children (texts and elements).
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export function shown(value, source, format) {
  return element("span", { class: "number", "data-value": String(value), "data-source": source }, format(value));
}
