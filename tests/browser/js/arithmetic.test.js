// The arithmetic of the page against numbers that Python computed: test_javascript.py writes them to $FIXTURES.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const { WEB, FIXTURES } = process.env;
const from = (name) => import(`${WEB}/${name}.js`);
const given = JSON.parse(readFileSync(FIXTURES, "utf8"));

function close(found, wanted, tolerance, what) {
  assert.equal(found.length, wanted.length, what);
  found.forEach((value, i) => {
    const off = Math.abs(value - wanted[i]);
    assert.ok(off <= tolerance * Math.max(1, Math.abs(wanted[i])), `${what}[${i}]: ${value} is not ${wanted[i]}`);
  });
}

test("softmax, entropy, ranking and the filters are those of torch", async () => {
  const { entropy, filtered, ranking, softmax } = await from("sampling");
  for (const { logits, own, order, settings, sampled, bits } of given.sampling) {
    const numbers = Float32Array.from(logits);
    close([...softmax(numbers)], own, 1e-6, "softmax");
    assert.deepEqual([...ranking(numbers)], order);
    settings.forEach((one, i) => {
      const { probabilities } = filtered(numbers, ranking(numbers), one);
      close([...probabilities], sampled[i], 1e-5, JSON.stringify(one));
      close([entropy(probabilities)], [bits[i]], 1e-4, "entropy");
    });
  }
});

test("places on an axis and its ticks are those of figures/axes.py", async () => {
  const { scaleOf } = await from("svg");
  for (const { low, high, log, values, places, ticks } of given.axes) {
    const scale = scaleOf(low, high, 10, 210, log);
    close(values.map(scale), places, 1e-9, "place");
    close(values.map((v) => scale.back(scale(v))), values, 1e-9, "back");
    close(scale.ticks(), ticks, 1e-12, "tick");
  }
});

test("a safetensors file that torch wrote has its numbers and shapes", async () => {
  const { readTensors } = await from("safetensors");
  const bytes = Uint8Array.from(Buffer.from(given.tensors.file, "base64"));
  const found = readTensors(bytes.buffer);
  assert.deepEqual(Object.keys(found).sort(), Object.keys(given.tensors.numbers).sort());
  for (const [name, { shape, values }] of Object.entries(given.tensors.numbers)) {
    assert.deepEqual(found[name].shape, shape);
    assert.deepEqual([...found[name].data].map(Number), values);
  }
});

test("a cursor written into an address is read from it again", async () => {
  const { addressOf, readAddress } = await from("address");
  for (const cursor of given.cursors) assert.deepEqual(readAddress(addressOf(cursor)), cursor);
});

test("the line through points is the one of torch.linalg.lstsq, and the weights of GPT-3 are those of `parameters`", async () => {
  const { cosine, dot, GPT3, leastSquares, meanSquare, weightsOf } = await from("sums");
  const { points, slope, start, loss, a, b, product, angle, gpt3 } = given.sums;
  const line = leastSquares(points);
  close([line.slope, line.start, meanSquare(points, line), dot(a, b), cosine(a, b)], [slope, start, loss, product, angle], 1e-9, "sums");
  assert.equal(leastSquares([[1, 2], [1, 3]]), null);
  assert.deepEqual(weightsOf(GPT3).map(([, , n]) => n), gpt3);
  assert.equal(gpt3.reduce((sum, n) => sum + n, 0), 175_181_291_520);
});
