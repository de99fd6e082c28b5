// The weights of the model as the page holds them (see packing.py), and as numbers.

// The bytes of a base64 text
function fromBase64(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

// Float32Arrays by name, from the bytes of all tensors in the order of `shapes`
function unpackWeights(bytes, shapes, dtype) {
  const weights = {};
  let offset = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const size = shape.reduce((a, b) => a * b);
    const kept = dtype === "int8" && shape.length === 1 ? "f32" : dtype; // vectors are small
    const [values, length] = UNPACK[kept](bytes, offset, size, shape[0]);
    weights[name] = values;
    offset += length;
  }
  return weights;
}

// Each returns the numbers and how many bytes they took
const UNPACK = {
  f32(bytes, offset, size) {
    return [new Float32Array(bytes.slice(offset, offset + 4 * size).buffer), 4 * size];
  },

  f16(bytes, offset, size) {
    const halves = new Uint16Array(bytes.slice(offset, offset + 2 * size).buffer);
    const values = new Float32Array(size);
    for (let i = 0; i < size; i++) values[i] = FLOAT_OF_HALF[halves[i]];
    return [values, 2 * size];
  },

  // The scale of each row, then the rows
  int8(bytes, offset, size, rows) {
    const [scales, length] = UNPACK.f32(bytes, offset, rows);
    const integers = new Int8Array(bytes.buffer, bytes.byteOffset + offset + length, size);
    const columns = size / rows;
    const values = new Float32Array(size);
    for (let row = 0; row < rows; row++)
      for (let i = row * columns; i < (row + 1) * columns; i++)
        values[i] = integers[i] * scales[row];
    return [values, length + size];
  },
};

// The number of every 16-bit pattern (IEEE 754 binary16)
const FLOAT_OF_HALF = new Float32Array(65_536);
for (let half = 0; half < 65_536; half++) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = (half & 1023) / 1024;
  const size = exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
  FLOAT_OF_HALF[half] = exponent === 31 ? NaN : sign * size; // packing.py refuses such
}

// The same weights as if they had been packed as int8
function roundedToInt8(weights, shapes) {
  const rounded = {};
  for (const [name, [rows, columns]] of Object.entries(shapes))
    rounded[name] = columns ? roundRows(weights[name], rows, columns) : weights[name];
  return rounded;
}

function roundRows(values, rows, columns) {
  const rounded = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    const first = row * columns;
    let largest = 0;
    for (let i = first; i < first + columns; i++)
      largest = Math.max(largest, Math.abs(values[i]));
    const scale = Math.fround(largest / 127) || 1;
    for (let i = first; i < first + columns; i++)
      rounded[i] = Math.round(values[i] / scale) * scale;
  }
  return rounded;
}
