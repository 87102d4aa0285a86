// From logits to sampling probabilities: the same arithmetic as `filtered_probabilities` in generation/filters.py, and
// which filter cut which token. A test compares the two.
//
// Numbers that are compared are rounded to 32 bits as in torch (Math.fround).

const f = Math.fround;

export const KEPT = 0;
export const REASONS = ["", "top-k", "top-p", "min-p", "temperature 0"]; // by the number in `reasons`

// Ids from the most to the least likely; equal ones in the order of ids.
export function ranking(logits) {
  const order = new Uint32Array(logits.length);
  for (let i = 0; i < order.length; i++) order[i] = i;
  return order.sort((a, b) => (logits[a] > logits[b] ? -1 : logits[a] < logits[b] ? 1 : a - b));
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

// {probabilities, reasons}: each token's sampling probability, and the filter that cut it (0: none).
export function filtered(logits, order, { temperature, topK, topP, minP }) {
  const V = logits.length;
  const reasons = new Uint8Array(V);
  const probabilities = new Float64Array(V);
  const best = order[0];
  if (temperature === 0) {
    reasons.fill(4);
    reasons[best] = KEPT;
    probabilities[best] = 1;
    return { probabilities, reasons };
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
  return { probabilities, reasons };
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
