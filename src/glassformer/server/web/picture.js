// A part of the page as a PNG: its copy inside an SVG image, with the page's own style rules, drawn on a canvas.
// Works without a library since browsers let SVG images hold HTML, as long as nothing in them is fetched.

const SCALE = 2; // pixels of the picture for one of the page
const MOST = 16_000; // pixels along a side of a canvas

/** @param {HTMLElement} node @returns {Promise<Blob>} */
export async function pictureOf(node) {
  const scrolled = [node, .../** @type {NodeListOf<HTMLElement>} */ (node.querySelectorAll(".scroll"))];
  const width = Math.ceil(Math.max(...scrolled.map((part) => node.clientWidth + part.scrollWidth - part.clientWidth)));
  const height = Math.ceil(node.scrollHeight);
  const copy = copyOf(node);
  copy.style.width = `${width}px`;
  const style = document.createElement("style");
  style.textContent = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules].map((rule) => rule.cssText)).join("\n");
  copy.prepend(style);
  const markup = new XMLSerializer().serializeToString(copy);
  const space = "http://www.w3.org/2000/svg";
  const svg = `<svg xmlns="${space}" width="${width}" height="${height}"><foreignObject width="100%" height="100%">${markup}</foreignObject></svg>`;
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const scale = Math.min(SCALE, MOST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.drawImage(image, 0, 0);
  return new Promise((done, failed) => canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("the browser made no picture"))), "image/png"));
}

// A copy that looks alike outside the page: canvases as images, colours of the present theme.
function copyOf(node) {
  const copy = /** @type {HTMLElement} */ (node.cloneNode(true));
  const canvases = /** @type {NodeListOf<HTMLCanvasElement>} */ (node.querySelectorAll("canvas"));
  copy.querySelectorAll("canvas").forEach((blank, i) => {
    const image = new Image(canvases[i].clientWidth, canvases[i].clientHeight);
    image.className = blank.className;
    image.src = canvases[i].toDataURL();
    blank.replaceWith(image);
  });
  const [now, theme] = [getComputedStyle(node), getComputedStyle(document.documentElement)];
  for (const name of themeNames()) copy.style.setProperty(name, theme.getPropertyValue(name));
  for (const name of ["color", "font-family", "font-size", "line-height", "color-scheme"]) copy.style.setProperty(name, now.getPropertyValue(name));
  const curves = node.querySelectorAll(".curve");
  copy.querySelectorAll(".curve").forEach((curve, i) => {
    /** @type {SVGElement} */ (curve).style.setProperty("--line", getComputedStyle(curves[i]).getPropertyValue("--line"));
  });
  Object.assign(copy.style, { margin: "0", border: "none", borderRadius: "0" });
  return copy;
}

// The names of the colours and fonts: what :root sets.
function themeNames() {
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]);
  const root = rules.filter((rule) => rule instanceof CSSStyleRule && rule.selectorText.includes(":root"));
  return new Set(root.flatMap((rule) => [.../** @type {CSSStyleRule} */ (rule).style].filter((name) => name.startsWith("--"))));
}
