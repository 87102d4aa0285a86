// A safetensors file: 8 bytes with the length of the header, the header (JSON), then the numbers, little-endian.
// as the documentation of the library safetensors has it

const KINDS = { F32: Float32Array, F64: Float64Array, I64: BigInt64Array, I32: Int32Array, U8: Uint8Array };

// ArrayBuffer -> {name: {data, shape}, ...}
export function readTensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [start, end] = entry.data_offsets;
    const data = new KINDS[entry.dtype](buffer.slice(8 + length + start, 8 + length + end));
    tensors[name] = { data, shape: entry.shape };
  }
  return tensors;
}
