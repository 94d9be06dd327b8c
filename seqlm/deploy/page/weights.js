// The weights of the model: base64 text in the page becomes one Float32Array for each tensor.

/** The bytes that base64 `text` stands for. Uint8Array */
export function decodeBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** The number that 16 bits stand for: a sign, 5 bits of exponent, 10 bits of fraction. */
export function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24; // too small for a leading one
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/**
 * All tensors, as they lie one after another in `bytes`. {name: Float32Array}
 *
 * `tensors` lists [name, shape, kind]. A matrix is (outputs, inputs), row by row. Its kind is fp32,
 * fp16, or int8: then a scale in fp32 for each row comes first, and a weight is its whole number,
 * -127 to 127, times the scale of its row.
 */
export function decodeWeights(bytes, tensors) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const weights = {};
  let place = 0;
  const read = (size, get) => {
    place += size;
    return get(place - size);
  };
  const fp32 = (at) => view.getFloat32(at, true);
  const fp16 = (at) => halfToNumber(view.getUint16(at, true));
  const int8 = (at) => view.getInt8(at);
  for (const [name, shape, kind] of tensors) {
    const size = shape.reduce((product, n) => product * n, 1);
    const values = new Float32Array(size);
    if (kind === "int8") {
      const rows = shape[0];
      const scales = Float32Array.from({ length: rows }, () => read(4, fp32));
      const columns = size / rows;
      for (let i = 0; i < size; i++) values[i] = read(1, int8) * scales[Math.floor(i / columns)];
    } else {
      const [width, get] = kind === "fp16" ? [2, fp16] : [4, fp32];
      for (let i = 0; i < size; i++) values[i] = read(width, get);
    }
    weights[name] = values;
  }
  if (place !== bytes.length) throw new Error("the weights in this file are damaged");
  return weights;
}
