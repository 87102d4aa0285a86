// Buttons that save what is on the screen: a page of its own, a picture, a line for each number.

import { element } from "./numbers.js";
import { pictureOf } from "./picture.js";

// `element`, and `offer(name, file, node)`, which shows the buttons: file(kind) gives the server's "html" or "csv" as a
// Blob, node is what a picture shows; `offer(null)` hides them. failed(error): something went wrong.
export function saveButtons(failed) {
  const root = element("div", { class: "save", role: "group", "aria-label": "save", hidden: true }, element("span", { class: "small" }, "save"));
  let current = null;
  const kinds = { html: ["HTML", "one file with all numbers; opens without a server"], png: ["PNG", "a picture"], csv: ["CSV", "a line for each number"] };
  for (const [kind, [text, title]] of Object.entries(kinds)) {
    const button = element("button", { type: "button", class: "quiet", title, "data-save": kind }, text);
    button.addEventListener("click", () => save(kind, button));
    root.append(button);
  }

  async function save(kind, button) {
    const { name, file, node } = current;
    button.disabled = true;
    try {
      download(kind === "png" ? await pictureOf(node) : await file(kind), `${name}.${kind}`);
    } catch (error) {
      failed(error);
    } finally {
      button.disabled = false;
    }
  }

  return {
    element: root,
    offer(name, file, node) {
      current = { name, file, node };
      root.hidden = name === null;
    },
  };
}

function download(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // the browser reads it after the click
}
