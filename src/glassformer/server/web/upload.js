// A file for a model that reads pictures, sounds or episodes: chosen or dropped here, sent with a view's options.

import { element } from "./numbers.js";

const KINDS = {
  patches: { words: "picture", accept: "image/png,image/jpeg,image/webp,image/bmp,image/gif" },
  frames: { words: "sound", accept: "audio/*,.wav,.flac,.ogg,.mp3" },
  trajectory: { words: "episode (.npz)", accept: ".npz" },
  image_text: { words: "picture, or a text below", accept: "image/png,image/jpeg,image/webp,image/bmp,image/gif" },
};
const MOST_BYTES = 6_000_000;

// `element`, `use(kind)` (what the model reads), `file()`: {name, data in base64, blob} or null. changed(): another one.
// needed(): a file can be chosen; optional(): a text serves too.
export function uploadField(changed) {
  const input = element("input", { type: "file", id: "view-file" });
  const words = element("label", { for: "view-file" });
  const about = element("span", { class: "about", role: "status" });
  const preview = element("canvas", { class: "preview", hidden: true, "aria-hidden": "true" });
  const root = element("div", { class: "option wide", hidden: true }, words, input, about, preview);
  let chosen = null;
  let kindNow = null;

  function use(kind) {
    kindNow = kind;
    root.hidden = !KINDS[kind];
    if (root.hidden || words.textContent === KINDS[kind].words) return;
    words.textContent = KINDS[kind].words;
    input.setAttribute("accept", KINDS[kind].accept);
    input.value = "";
    chosen = null;
    preview.hidden = true;
  }

  async function take(file) {
    chosen = null;
    about.textContent = "";
    preview.hidden = true;
    if (!file) return;
    if (file.size > MOST_BYTES) return (about.textContent = `${file.name} has ${file.size.toLocaleString("en-GB")} bytes, more than ${MOST_BYTES.toLocaleString("en-GB")}: choose a smaller one`);
    const bytes = new Uint8Array(await file.arrayBuffer());
    let letters = "";
    for (let i = 0; i < bytes.length; i += 8192) letters += String.fromCharCode(...bytes.subarray(i, i + 8192));
    chosen = { name: file.name, data: btoa(letters), blob: file };
    await show(file);
    changed();
  }

  async function show(file) {
    if (!file.type.startsWith("image/")) return;
    const picture = await createImageBitmap(file).catch(() => null);
    if (!picture) return;
    const scale = 96 / Math.max(picture.width, picture.height);
    [preview.width, preview.height] = [picture.width * scale, picture.height * scale].map((side) => Math.max(1, Math.round(side)));
    const context = preview.getContext("2d");
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(picture, 0, 0, preview.width, preview.height);
    preview.hidden = false;
  }

  input.addEventListener("change", () => take(input.files[0]));
  const optional = () => ["trajectory", "image_text"].includes(kindNow ?? "");
  return { element: root, use, needed: () => !root.hidden, optional, file: () => chosen };
}
