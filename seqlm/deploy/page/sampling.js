// From the logits of the next token to the token itself: guidance, sampling strategy, draw.
// The same steps in the same order as seqlm/models/generation.py.

import { softmax } from "./gpt2.js";

/** ln of the softmax of `logits`: log probabilities. */
export function logSoftmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - largest), 0);
  return logits.map((logit) => logit - largest - Math.log(sum));
}

/**
 * Classifier-free guidance: (1 - w) ln p without the class + w ln p with it.
 *
 * 1 is the model itself, more exaggerates what the class changes. J. Ho and T. Salimans,
 * Classifier-Free Diffusion Guidance, 2022; G. Sanchez et al., Stay on Topic with Classifier-Free
 * Guidance, 2023.
 */
export function guidedLogits(logits, free, guidance) {
  const [own, without] = [logSoftmax(logits), logSoftmax(free)];
  return own.map((value, i) => without[i] + guidance * (value - without[i]));
}

/** `logits` with -Infinity for all ids but the `allowed`; all as they are where that is null. */
export function onlyAllowed(logits, allowed) {
  if (!allowed) return logits;
  const barred = new Float64Array(logits.length).fill(-Infinity);
  for (const id of allowed) barred[id] = logits[id];
  return barred;
}

/** Ids by their logits, the largest first; of equal ones the lower id. */
export function ranked(logits) {
  const ids = Array.from(logits, (_, id) => id);
  return ids.sort((a, b) => logits[b] - logits[a] || a - b);
}

/**
 * The probabilities that a strategy samples from: temperature, then top-k, then the nucleus.
 *
 * The nucleus (A. Holtzman et al., The Curious Case of Neural Text Degeneration, 2020) is the
 * smallest set of the most likely tokens that holds at least top_p.
 */
export function strategyProbabilities(logits, settings) {
  const { strategy, temperature, top_k, top_p } = settings;
  if (strategy === "greedy") {
    const best = ranked(logits)[0];
    return Float64Array.from(logits, (_, id) => (id === best ? 1 : 0));
  }
  if (!top_k && top_p === 1) return softmax(Float64Array.from(logits, (x) => x / temperature));
  const order = ranked(logits);
  const kept = Float64Array.from(order, (id, rank) =>
    top_k && rank >= top_k ? -Infinity : logits[id] / temperature,
  );
  softmax(kept);
  let before = 0; // the probability of all likelier tokens
  for (let rank = 0; rank < kept.length; rank++) {
    const probability = kept[rank];
    if (before >= top_p) kept[rank] = 0;
    before += probability;
  }
  const total = kept.reduce((sum, p) => sum + p, 0);
  const probabilities = new Float64Array(logits.length);
  order.forEach((id, rank) => (probabilities[id] = kept[rank] / total));
  return probabilities;
}

/** The id at which the summed probabilities pass the number `uniform`, 0 to 1. */
export function chooseToken(probabilities, uniform) {
  const total = probabilities.reduce((sum, p) => sum + p, 0);
  let [sum, last] = [0, 0];
  for (let id = 0; id < probabilities.length; id++) {
    sum += probabilities[id];
    if (probabilities[id] > 0) last = id;
    if (sum > uniform * total) return id;
  }
  return last; // rounding put the point on the total
}
