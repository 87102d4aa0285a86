// From logits to sampling probabilities: the same arithmetic as `filtered_probabilities` in generation/filters.py, and
// which filter cut which token. A test compares the two.
//
// Numbers that are compared are rounded to 32 bits as in torch (Math.fround).

const f = Math.fround;

export const KEPT = 0;
export const REASONS = ["", "top-k", "top-p", "min-p", "temperature 0"]; // by the number in `reasons`

const IDS = 2 ** 21; // more than any vocabulary has: an id and 32 bits of a logit fit into the 53 of a number

// Ids from the most to the least likely; equal ones in the order of ids. Sorts numbers that hold both, since a
// comparison in JavaScript for each pair of 50,257 takes ten times as long.
export function ranking(logits) {
  const own = new Float32Array(logits);
  for (let i = 0; i < own.length; i++) own[i] += 0; // -0 equals 0
  const bits = new Int32Array(own.buffer);
  const keys = new Float64Array(bits.length);
  for (let i = 0; i < keys.length; i++) keys[i] = -(bits[i] < 0 ? -2147483648 - bits[i] : bits[i]) * IDS + i;
  keys.sort();
  const order = new Uint32Array(keys.length);
  for (let i = 0; i < keys.length; i++) order[i] = keys[i] - Math.floor(keys[i] / IDS) * IDS;
  return order;
}

// The model's own probabilities: temperature 1, nothing cut.
export function softmax(logits) {
  let best = -Infinity;
  for (const logit of logits) if (logit > best) best = logit;
  const p = new Float64Array(logits.length);
  let sum = 0;
  for (let i = 0; i < p.length; i++) sum += p[i] = Math.exp(logits[i] - best);
  for (let i = 0; i < p.length; i++) p[i] /= sum;
  return p;
}

// {probabilities, reasons, tempered}: each token's sampling probability, the filter that cut it (0: none), and its
// probability after temperature and top-k, which top-p and min-p compare.
export function filtered(logits, order, { temperature, topK, topP, minP }) {
  const V = logits.length;
  const reasons = new Uint8Array(V);
  const probabilities = new Float64Array(V);
  const best = order[0];
  if (temperature === 0) {
    reasons.fill(4);
    reasons[best] = KEPT;
    probabilities[best] = 1;
    return { probabilities, reasons, tempered: probabilities };
  }
  const divisor = f(Math.max(temperature, 1e-30));
  const scaled = new Float32Array(V);
  for (let i = 0; i < V; i++) scaled[i] = f(logits[i] - logits[best]) / divisor;
  if (topK > 0 && topK < V) {
    const worstKept = scaled[order[topK - 1]];
    for (let i = 0; i < V; i++) if (scaled[i] < worstKept) reasons[i] = 1;
  }
  let sum = 0;
  for (let i = 0; i < V; i++) if (reasons[i] === KEPT) sum += probabilities[i] = Math.exp(scaled[i]);
  for (let i = 0; i < V; i++) probabilities[i] /= sum;
  const tempered = probabilities.slice();
  if (topP < 1) {
    let reached = 0;
    for (const i of order) {
      if (reasons[i] !== KEPT) continue;
      reached += f(probabilities[i]);
      if (i !== best && f(f(reached) - f(probabilities[i])) >= f(topP)) reasons[i] = 2; // the better ones reach p without it
    }
  }
  if (minP > 0) {
    const least = f(f(minP) * f(probabilities[best]));
    for (let i = 0; i < V; i++) if (reasons[i] === KEPT && f(probabilities[i]) < least) reasons[i] = 3;
  }
  sum = 0;
  for (let i = 0; i < V; i++) reasons[i] === KEPT ? (sum += probabilities[i]) : (probabilities[i] = 0);
  for (let i = 0; i < V; i++) probabilities[i] /= sum;
  return { probabilities, reasons, tempered };
}

// Inverse transform sampling, as `sample_at` in generation/sampling.py: all tokens laid end to end in the order of
// ids make a line from 0 to 1, and u falls on one of them. {id, from, to}
export function drawnAt(probabilities, u) {
  let total = 0;
  for (const p of probabilities) total += p;
  let reached = 0;
  let last = 0; // that can be drawn
  for (let id = 0; id < probabilities.length && reached <= u * total; id++) {
    if (probabilities[id]) last = id;
    reached += probabilities[id];
  }
  return { id: last, from: (reached - probabilities[last]) / total, to: reached / total };
}

// The part of the line that a token has.
export function intervalOf(probabilities, id) {
  let [total, from] = [0, 0];
  for (let i = 0; i < probabilities.length; i++) {
    if (i < id) from += probabilities[i];
    total += probabilities[i];
  }
  return { id, from: from / total, to: (from + probabilities[id]) / total };
}

// In bits.
export function entropy(p) {
  let bits = 0;
  for (const share of p) if (share > 0) bits -= share * Math.log2(share);
  return Math.abs(bits);
}

export function surprise(probability) {
  return Math.abs(Math.log2(probability));
}
