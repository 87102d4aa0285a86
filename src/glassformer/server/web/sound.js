// A sound that was chosen, to be heard beside its figures; the word that is being said is marked as time passes.

import { element } from "./numbers.js";

/** @type {string | null} */
let address = null; // of the sound that is there now

// Put a player of `file` before everything in `root`, and the words of the table of times, if there is one.
/** @param {Element} root @param {any[]} figures @param {File | null} file */
export function soundPlayer(root, figures, file) {
  if (address) URL.revokeObjectURL(address);
  address = null;
  if (!file) return;
  address = URL.createObjectURL(file);
  const audio = /** @type {HTMLAudioElement} */ (element("audio", { controls: true, src: address, "aria-label": file.name }));
  const words = wordsOf(figures).map(({ word, start, end }) => {
    const made = element("button", { type: "button", class: "word", "data-start": String(start), "data-end": String(end), title: `${start.toFixed(2)} to ${end.toFixed(2)} s` }, word);
    made.addEventListener("click", () => {
      audio.currentTime = start;
      audio.play().catch(() => {}); // a browser that may not play shows the word all the same
    });
    return { made, start, end };
  });

  function mark() {
    for (const { made, start, end } of words) made.toggleAttribute("aria-current", audio.currentTime >= start && audio.currentTime < end);
  }
  function follow() {
    mark();
    if (!audio.paused && audio.isConnected) requestAnimationFrame(follow);
  }
  audio.addEventListener("play", follow);
  for (const moved of ["timeupdate", "seeked", "pause"]) audio.addEventListener(moved, mark);
  root.prepend(element("section", { class: "figure heard" }, audio, element("p", { class: "words" }, ...words.flatMap(({ made }) => [made, " "]))));
}

// The words of a table with the columns word, start and end (seconds).
/** @param {any[]} figures */
export function wordsOf(figures) {
  const table = figures.find((figure) => figure.kind === "table" && figure.columns.map((column) => column.name).join() === "word,start,end");
  return (table?.rows ?? []).map(([word, start, end]) => ({ word: word.text, start: Number(start.value), end: Number(end.value) }));
}
