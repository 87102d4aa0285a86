// What temperature, top-k, top-p and min-p cut at a position, in words and with the numbers that decide it.

import { count, element, percent, shown } from "./numbers.js";
import { REASONS } from "./sampling.js";

// Where every bar ends when the temperature grows: all tokens that top-k keeps are equally likely.
export const limitOf = (size, { topK }) => 1 / (topK > 0 ? Math.min(topK, size) : size);

// How many tokens can be sampled, and how many each filter cuts and why.
export function keptLine(p, row, { reasons, tempered }, sampling) {
  const counts = REASONS.map(() => 0);
  for (const reason of reasons) counts[reason] += 1;
  const made = element("p", { class: "left-over" }, shown(counts[0], `kept/${p}`, count), " of ",
    shown(reasons.length, `vocabulary/${p}`, count), " tokens can be sampled");
  const rules = [
    null,
    [`below rank ${count(sampling.topK)}`],
    [`the likelier ones reach ${percent(sampling.topP)}`],
    ["less than ", shown(sampling.minP * tempered[row.order[0]], `least/${p}`, percent), `, ${percent(sampling.minP)} of the best`],
    ["not the most likely"],
  ];
  REASONS.forEach((name, i) => {
    if (i && counts[i]) made.append("; ", shown(counts[i], `cut/${name}/${p}`, count), ` cut by ${name} (`, ...rules[i], ")");
  });
  made.append(". ");
  if (sampling.temperature === 0) made.append(...tiesOf(p, row), " ");
  else made.append("Dashed line: ", shown(limitOf(reasons.length, sampling), `limit/${p}`, percent), ", where all bars end at a very high temperature.");
  return made;
}

// At temperature 0 the best token is taken; of equal ones, that with the smallest id.
function tiesOf(p, { logits, order }) {
  let equal = 0;
  while (equal < order.length && logits[order[equal]] === logits[order[0]]) equal += 1;
  const ties = shown(equal, `ties/${p}`, count);
  return equal > 1 ? [ties, " tokens share the largest logit; the smallest id is taken."] : [ties, " token has the largest logit: no tie."];
}

// The cell of a token that is cut, with the reason; null where it is not.
export function cutCell(p, id, row, { reasons, tempered }, sampling) {
  const reason = reasons[id];
  if (!reason) return null;
  const rank = row.order.indexOf(id) + 1;
  const why = [
    () => "",
    () => `rank ${count(rank)} is beyond ${count(sampling.topK)}`,
    () => `the ${count(rank - 1)} likelier ones reach ${percent(massAbove(row.order, tempered, rank))} already, and ${percent(sampling.topP)} is enough`,
    () => `${percent(tempered[id])} is less than ${percent(sampling.minP)} of the best, which has ${percent(tempered[row.order[0]])}`,
    () => "another token has a larger logit, or the same and a smaller id",
  ][reason]();
  const cut = element("span", { class: "reason", title: why }, `cut by ${REASONS[reason]}`, element("span", { class: "hidden" }, `: ${why}`));
  return element("td", { class: "share" }, element("span", { class: "cell" }, shown(0, `sampling/${p}/${id}`, percent), cut));
}

function massAbove(order, tempered, rank) {
  let sum = 0;
  for (let i = 0; i < rank - 1; i++) sum += tempered[order[i]];
  return sum;
}
