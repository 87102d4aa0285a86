// The draw: all tokens laid end to end in the order of ids make a line from 0 to 1, and a random number u falls on one.
//
// Moving a slider redraws the line and never draws another u.

import { element, shown } from "./numbers.js";
import { drawnAt, intervalOf } from "./sampling.js";
import { chip, spelled } from "./vocabulary.js";

const NARROWEST = 0.003; // of the line: a narrower part has no element of its own
const PLACES = 7; // behind the point

const place = (value) => value.toFixed(4);

export function drawLine(p, token, probabilities, sampling, vocabulary) {
  const line = element("div", { class: "draw-line", "aria-hidden": "true" });
  const came = token && probabilities[token.id] > 0 ? intervalOf(probabilities, token.id) : null;
  let reached = 0;
  for (let id = 0, odd = false; id < probabilities.length; id++) {
    const width = probabilities[id];
    if (!width) continue;
    odd = !odd;
    if (width >= NARROWEST || id === came?.id) line.append(part(id, reached, width, odd, id === came?.id, vocabulary));
    reached += width;
  }
  const made = element("div", { class: "draw" }, line);
  const u = token?.u;
  if (u !== undefined && u !== null) {
    const mark = element("i", { class: "u" });
    mark.style.left = `${100 * u}%`;
    line.append(mark);
  }
  made.append(element("p", { class: "small" }, ...words(p, token, probabilities, sampling, came, vocabulary)));
  return made;
}

function part(id, from, width, odd, came, vocabulary) {
  const made = element("span", { class: [odd && "odd", came && "came"].filter(Boolean).join(" "), title: `${spelled(vocabulary, id)}: ${place(from)} to ${place(from + width)}` });
  made.style.left = `${(100 * from).toFixed(PLACES)}%`;
  made.style.width = `${(100 * width).toFixed(PLACES)}%`;
  if (width > 0.05) made.append(spelled(vocabulary, id));
  return made;
}

function words(p, token, probabilities, sampling, came, vocabulary) {
  if (!token) return ["All tokens laid end to end in the order of their ids: a random number u from 0 to 1 will fall on one of them."];
  const its = came && ["from ", shown(came.from, `from/${p}/${came.id}`, place), " to ", shown(came.to, `to/${p}/${came.id}`, place)];
  const mine = [chip(vocabulary, token.id), ...(came ? [" lies ", ...its] : [" has no place on the line with these settings"])];
  if (token.given) return ["Nothing was drawn: this token was given. ", ...mine, "."];
  if (token.chosen) return ["Nothing was drawn: you chose this token. ", ...mine, "."];
  if (token.u === null || token.u === undefined) return ["Nothing was drawn: at temperature 0 the most likely token is taken. ", ...mine, "."];
  const now = drawnAt(probabilities, token.u);
  const said = ["The seed gave u = ", shown(token.u, `u/${p}`, place), ". ", ...mine];
  if (now.id === token.id || sampling.temperature === 0) return [...said, "."];
  return [...said, "; with the settings as they are now, the same u falls on ", chip(vocabulary, now.id), "."];
}
