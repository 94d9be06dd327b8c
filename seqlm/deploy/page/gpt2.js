// GPT-2, the forward pass: from the ids of tokens to the logits of the next one.
//
// A. Radford et al., Language Models are Unsupervised Multitask Learners, 2019. In every block each
// token looks back at the tokens before it (attention), then is changed by itself (MLP). Weights
// are Float32Array; what is computed on the way is Float64Array, which JavaScript adds up faster.

/** Rows of `x` (n, inputs) times the matrix `weight` (outputs, inputs), plus `bias`. (n, outputs) */
export function linear(x, n, weight, bias, inputs, outputs) {
  const y = new Float64Array(n * outputs);
  // Two rows and four outputs at a time: each number that is fetched is used more than once, which
  // makes this five times faster. At an odd end the last row, or output, is computed twice.
  for (let row = 0; row < n; row += 2) {
    const other = Math.min(row + 1, n - 1);
    for (let output = 0; output < outputs; output += 4) {
      eightProducts(x, row, other, weight, output, inputs, outputs, y);
    }
  }
  if (bias) for (let i = 0; i < y.length; i++) y[i] += bias[i % outputs];
  return y;
}

/** Two rows of `x` times four rows of `weight`, from `output` on, into `y`. Plain on purpose. */
function eightProducts(x, row, other, weight, output, inputs, outputs, y) {
  const last = outputs - 1;
  const b = Math.min(output + 1, last);
  const c = Math.min(output + 2, last);
  const d = Math.min(output + 3, last);
  const x1 = row * inputs;
  const x2 = other * inputs;
  const wa = output * inputs;
  const wb = b * inputs;
  const wc = c * inputs;
  const wd = d * inputs;
  let a1 = 0,
    b1 = 0,
    c1 = 0,
    d1 = 0,
    a2 = 0,
    b2 = 0,
    c2 = 0,
    d2 = 0;
  for (let i = 0; i < inputs; i++) {
    const one = x[x1 + i];
    const two = x[x2 + i];
    a1 += weight[wa + i] * one;
    b1 += weight[wb + i] * one;
    c1 += weight[wc + i] * one;
    d1 += weight[wd + i] * one;
    a2 += weight[wa + i] * two;
    b2 += weight[wb + i] * two;
    c2 += weight[wc + i] * two;
    d2 += weight[wd + i] * two;
  }
  const y1 = row * outputs;
  const y2 = other * outputs;
  y[y1 + output] = a1;
  y[y1 + b] = b1;
  y[y1 + c] = c1;
  y[y1 + d] = d1;
  y[y2 + output] = a2;
  y[y2 + b] = b2;
  y[y2 + c] = c2;
  y[y2 + d] = d2;
}

/** Each row of `x` (n, width) with mean 0 and variance 1, then scaled and shifted. */
export function layerNorm(x, n, scale, shift, epsilon) {
  const width = scale.length;
  const y = new Float64Array(x.length);
  for (let row = 0; row < n; row++) {
    const start = row * width;
    let [mean, variance] = [0, 0];
    for (let i = 0; i < width; i++) mean += x[start + i] / width;
    for (let i = 0; i < width; i++) variance += (x[start + i] - mean) ** 2 / width;
    const root = Math.sqrt(variance + epsilon);
    for (let i = 0; i < width; i++) {
      y[start + i] = ((x[start + i] - mean) / root) * scale[i] + shift[i];
    }
  }
  return y;
}

/** GPT-2's activation, in place: a smooth step from 0 to x. */
function gelu(x) {
  for (let i = 0; i < x.length; i++) {
    const value = x[i];
    const inner = Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3);
    x[i] = 0.5 * value * (1 + Math.tanh(inner));
  }
  return x;
}

/** Numbers that become probabilities, in place: e to the power of each, divided by their sum. */
export function softmax(x) {
  let largest = -Infinity;
  for (const value of x) largest = Math.max(largest, value);
  let sum = 0;
  for (let i = 0; i < x.length; i++) {
    x[i] = Math.exp(x[i] - largest);
    sum += x[i];
  }
  for (let i = 0; i < x.length; i++) x[i] /= sum;
  return x;
}

/** The keys and values of a sequence's tokens in every layer, so that each token is read once. */
class Cache {
  constructor(config, capacity = config.n_positions) {
    const room = () =>
      Array.from({ length: config.n_layer }, () => new Float32Array(capacity * config.n_embd));
    this.length = 0; // tokens read so far
    this.capacity = capacity;
    this.keys = room();
    this.values = room();
    this.queries = null; // kept only where someone will look at the attention weights
  }

  /** A cache that holds the same and can go on in another way. */
  copy() {
    const copy = Object.assign(Object.create(Cache.prototype), this);
    for (const name of ["keys", "values"]) copy[name] = this[name].map((each) => each.slice());
    return copy;
  }
}

export class GPT2 {
  /** `config` has GPT-2's own names; `weights` those of transformers, matrices (outputs, inputs). */
  constructor(config, weights) {
    this.config = { ...config, n_inner: config.n_inner ?? 4 * config.n_embd };
    this.weights = weights;
    this.head = weights["lm_head.weight"] ?? weights["wte.weight"];
  }

  /**
   * The logits after the last token of each sequence, or with `all` after every token.
   *
   * `batch` lists {cache, ids}: tokens that follow those in the cache, which takes them in. All
   * tokens of all sequences go through a layer together. Returns a list of Float64Array (V).
   */
  forward(batch, all = false) {
    const { n_layer, n_embd, vocab_size, layer_norm_epsilon } = this.config;
    const tokens = batch.flatMap(({ cache, ids }) => {
      if (cache.length + ids.length > cache.capacity) throw new Error("too long for this model");
      return ids.map((id, i) => ({ id, cache, position: cache.length + i }));
    });
    const n = tokens.length;
    let x = this.embed(tokens); // (n, n_embd)
    for (let layer = 0; layer < n_layer; layer++) x = this.block(x, tokens, layer);
    for (const { cache, ids } of batch) cache.length += ids.length;

    const last = tokens.map(({ cache, position }) => position === cache.length - 1);
    const wanted = tokens.map((_, i) => i).filter((i) => all || last[i]);
    const kept = new Float64Array(wanted.length * n_embd);
    wanted.forEach((i, row) => kept.set(x.subarray(i * n_embd, (i + 1) * n_embd), row * n_embd));
    x = this.norm(kept, wanted.length, "ln_f", layer_norm_epsilon);
    const logits = linear(x, wanted.length, this.head, null, n_embd, vocab_size);
    return wanted.map((_, row) => logits.subarray(row * vocab_size, (row + 1) * vocab_size));
  }

  /** What each token is plus where it stands. (n, n_embd) */
  embed(tokens) {
    const width = this.config.n_embd;
    const [what, where] = [this.weights["wte.weight"], this.weights["wpe.weight"]];
    const x = new Float64Array(tokens.length * width);
    tokens.forEach(({ id, position }, row) => {
      for (let i = 0; i < width; i++) {
        x[row * width + i] = what[id * width + i] + where[position * width + i];
      }
    });
    return x;
  }

  /** One block: x + attention(x), then x + MLP(x); both read a normalized x. */
  block(x, tokens, layer) {
    const { n_embd, n_inner, layer_norm_epsilon: epsilon } = this.config;
    const [n, name] = [tokens.length, `h.${layer}`];
    const qkv = this.layer(this.norm(x, n, `${name}.ln_1`, epsilon), n, `${name}.attn.c_attn`);
    const seen = this.attend(qkv, tokens, layer);
    x = add(x, this.layer(seen, n, `${name}.attn.c_proj`, n_embd));
    const inner = this.layer(this.norm(x, n, `${name}.ln_2`, epsilon), n, `${name}.mlp.c_fc`);
    return add(x, this.layer(gelu(inner), n, `${name}.mlp.c_proj`, n_inner));
  }

  /** What each token sees of those before it and of itself. (n, n_embd) */
  attend(qkv, tokens, layer) {
    const { n_embd, n_head } = this.config;
    const width = n_embd / n_head;
    const seen = new Float64Array(tokens.length * n_embd);
    tokens.forEach(({ cache, position }, row) => {
      const start = row * 3 * n_embd;
      const part = (i) => qkv.subarray(start + i * n_embd, start + (i + 1) * n_embd);
      const [query, keys, values] = [part(0), cache.keys[layer], cache.values[layer]];
      keys.set(part(1), position * n_embd);
      values.set(part(2), position * n_embd);
      cache.queries?.[layer].set(query, position * n_embd);
      for (let head = 0; head < n_head; head++) {
        const from = head * width;
        const shares = softmax(scores(query, keys, position + 1, n_embd, from, width));
        for (let past = 0; past <= position; past++) {
          const [share, value] = [shares[past], past * n_embd + from];
          for (let i = 0; i < width; i++)
            seen[row * n_embd + from + i] += share * values[value + i];
        }
      }
    });
    return seen;
  }

  /** An empty cache; `observed` also keeps the queries, which `attention` needs. */
  newCache(capacity, observed = false) {
    const cache = new Cache(this.config, capacity);
    if (observed) cache.queries = cache.keys.map((keys) => new Float32Array(keys.length));
    return cache;
  }

  /** Attention weights of one head over what `cache` has read: (T, T), each row sums to 1. */
  attention(cache, layer, head) {
    const { n_embd, n_head } = this.config;
    const [n, width] = [cache.length, n_embd / n_head];
    const weights = new Float32Array(n * n);
    for (let row = 0; row < n; row++) {
      const query = cache.queries[layer].subarray(row * n_embd, (row + 1) * n_embd);
      const matches = scores(query, cache.keys[layer], row + 1, n_embd, head * width, width);
      weights.set(softmax(matches), row * n);
    }
    return weights;
  }

  norm(x, n, name, epsilon) {
    return layerNorm(x, n, this.weights[`${name}.weight`], this.weights[`${name}.bias`], epsilon);
  }

  layer(x, n, name, inputs = this.config.n_embd) {
    const bias = this.weights[`${name}.bias`];
    return linear(x, n, this.weights[`${name}.weight`], bias, inputs, bias.length);
  }
}

/** How well a query matches each of the first `n` keys of a head, whose part starts at `from`. (n,) */
function scores(query, keys, n, stride, from, width) {
  const matches = new Float64Array(n);
  for (let past = 0; past < n; past++) {
    let product = 0;
    for (let i = from; i < from + width; i++) product += query[i] * keys[past * stride + i];
    matches[past] = product / Math.sqrt(width);
  }
  return matches;
}

function add(x, more) {
  for (let i = 0; i < x.length; i++) more[i] += x[i];
  return more;
}
