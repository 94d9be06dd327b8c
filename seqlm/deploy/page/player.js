// The model at work: it draws, completes, reads, and shows what it looked at. No page in here.

import { Codebook } from "./codebook.js";
import { beamSearch, generate, trace } from "./generate.js";
import { GPT2, softmax } from "./gpt2.js";
import { onlyAllowed, ranked } from "./sampling.js";
import { Vocabulary } from "./tokens.js";
import { decodeWeights } from "./weights.js";

const SHOWN = 10; // candidates in a table

export class Player {
  /** `data` is the JSON of the page, `bytes` are its weights. */
  constructor(data, bytes) {
    const weights = decodeWeights(bytes, data.tensors);
    this.config = data.config;
    this.probe = data.probe;
    this.vocabulary = new Vocabulary(data.tokens);
    this.model = new GPT2(data.config, weights);
    this.book = null;
    if (data.codebook) {
      const [height, width, patch] = data.codebook;
      this.book = new Codebook({ centers: weights.codebook, height, width, patch });
      const codes = Array.from({ length: this.book.nCodes }, (_, code) => code);
      this.allowed = this.vocabulary.codeIds(codes);
    }
  }

  /** How far a logit of the test row in the page lies from torch's, at most. */
  check() {
    const logits = this.logits(this.probe.ids);
    return this.probe.logits.reduce((far, x, i) => Math.max(far, Math.abs(x - logits[i])), 0);
  }

  /** The logits of the next token after `ids`. (V,) */
  logits(ids) {
    return this.model.forward([{ cache: this.model.newCache(ids.length), ids }])[0];
  }

  /**
   * Draw a picture of class `label`, or any for null, that begins with `codes`; `row` is its number
   * among several of one seed. Yields a summary of each new code, or null when there is none yet.
   */
  *draw({ label, codes = [], settings, row = 0 }) {
    const prompt = [...this.vocabulary.drawingPrompt(label), ...this.vocabulary.codeIds(codes)];
    const free = this.vocabulary.withholdClass(prompt);
    const steps = this.book.nPatches - codes.length;
    yield* this.continue({ prompt, free, steps, allowed: this.allowed, stop: null }, settings, row);
  }

  /** Continue a prompt of tokens, up to <EOS> or the last position; yields as `draw` does. */
  *write({ tokens, settings }) {
    const prompt = this.vocabulary.ids(tokens);
    const steps = this.config.n_positions - prompt.length + 1; // the last one needs no position
    const [free, stop] = [this.vocabulary.withholdClass(prompt), this.vocabulary.ids(["<EOS>"])[0]];
    yield* this.continue({ prompt, free, steps, allowed: null, stop }, settings);
  }

  *continue(task, settings, row = 0) {
    if (settings.strategy !== "beam") {
      for (const step of generate(this.model, task, settings, row)) yield summary(step);
      return;
    }
    const search = beamSearch(this.model, task, settings);
    let state = search.next();
    for (; !state.done; state = search.next()) yield null;
    yield* trace(this.model, task, state.value, settings).map(summary);
  }

  /** What the model thinks of a picture's `codes`, or of `image`: {codes, classes, steps}. */
  read({ image, codes = this.book.encode(image) }) {
    const ids = this.vocabulary.readingPrompt(codes);
    const cache = this.model.newCache(ids.length);
    const logits = this.model.forward([{ cache, ids }], true); // after each token, so of the next
    const steps = codes.map((_, i) => {
      const after = softmax(onlyAllowed(logits[i], this.allowed).slice());
      return summary({ id: ids[i + 1], expected: softmax(logits[i].slice()), after });
    });
    return { codes, steps, classes: this.classesOf(logits.at(-1)) };
  }

  /** The probabilities of the classes after <CLS>. (C,) */
  classify({ codes }) {
    return this.classesOf(this.logits(this.vocabulary.readingPrompt(codes)));
  }

  classesOf(logits) {
    return softmax(Float64Array.from(this.vocabulary.classIds, (id) => logits[id]));
  }

  /** The next tokens after `tokens`, the most likely first: [{id, probability}]. */
  next({ tokens }) {
    const probabilities = softmax(this.logits(this.vocabulary.ids(tokens)));
    const ids = ranked(probabilities).slice(0, SHOWN);
    return ids.map((id) => ({ id, probability: probabilities[id] }));
  }

  /** Read `ids`, so that `attention` can show what each of them looked at. */
  look({ ids }) {
    this.seen = this.model.newCache(ids.length, true);
    this.model.forward([{ cache: this.seen, ids }]);
  }

  /** Attention weights of one head over what was read last. (T, T) */
  attention({ layer, head }) {
    return this.model.attention(this.seen, layer, head);
  }
}

/** A step in few numbers: the likeliest tokens, and always the one that stands there. */
export function summary({ id, expected, after }) {
  const shown = ranked(expected).slice(0, SHOWN);
  if (!shown.includes(id)) shown.push(id);
  const candidates = shown.map((each) => ({
    id: each,
    probability: expected[each],
    after: after[each],
  }));
  return { id, surprisal: -Math.log(expected[id]), candidates };
}
