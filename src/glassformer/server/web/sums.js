// The arithmetic of the tour's widgets.

// The line y = slope x + start with the smallest mean of squared distances to points [x, y]; null: no such line.
export function leastSquares(points) {
  const n = points.length;
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / n;
  const [mx, my] = [mean(points.map(([x]) => x)), mean(points.map(([, y]) => y))];
  const spread = points.reduce((sum, [x]) => sum + (x - mx) ** 2, 0);
  if (n < 2 || spread === 0) return null;
  const slope = points.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0) / spread;
  return { slope, start: my - slope * mx };
}

// The loss of a line: the mean of squared distances.
export const meanSquare = (points, { slope, start }) => points.reduce((sum, [x, y]) => sum + (slope * x + start - y) ** 2, 0) / points.length;

export const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
export const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));

// The weights of a GPT in the lecture's categories: biases, norms and positions are not among them.
/** @returns {[string, string, number][]} */
export function weightsOf({ vocabulary, width, layers, heads, headWidth, hidden }) {
  const matrices = layers * heads * headWidth * width;
  return [
    ["Embedding", `${vocabulary} × ${width}`, vocabulary * width],
    ["Key", `${headWidth} × ${width}, ${heads} heads, ${layers} layers`, matrices],
    ["Query", `${headWidth} × ${width}, ${heads} heads, ${layers} layers`, matrices],
    ["Value", `${headWidth} × ${width}, ${heads} heads, ${layers} layers`, matrices],
    ["Output", `${width} × ${headWidth}, ${heads} heads, ${layers} layers`, matrices],
    ["Up-projection", `${hidden} × ${width}, ${layers} layers`, hidden * width * layers],
    ["Down-projection", `${width} × ${hidden}, ${layers} layers`, hidden * width * layers],
    ["Unembedding", `${vocabulary} × ${width}`, vocabulary * width],
  ];
}
export const GPT3 = { vocabulary: 50257, width: 12288, layers: 96, heads: 96, headWidth: 128, hidden: 4 * 12288 };
