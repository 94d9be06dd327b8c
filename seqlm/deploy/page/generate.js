// Token after token: sampling, beam search, and what was expected at each place.

import { softmax } from "./gpt2.js";
import { randomNumbers } from "./random.js";
import { chooseToken, guidedLogits, logSoftmax } from "./sampling.js";
import { onlyAllowed, ranked, strategyProbabilities } from "./sampling.js";

const PLAIN = { strategy: "sample", temperature: 1, top_k: 0, top_p: 1 };

/** A sequence on its way. For guidance it is read twice: with the class, and without. */
class Branch {
  constructor(model, { prompt, free }, steps) {
    const room = prompt.length + steps - 1; // the last new token is never read
    const start = (ids) => ({ cache: model.newCache(room), ids });
    this.own = start(prompt);
    this.free = free ? start(free) : null;
  }

  append(id) {
    for (const part of [this.own, this.free]) if (part) part.ids = [id];
  }

  /** A branch that has read the same and goes on with `id`. */
  grow(id) {
    const copy = Object.create(Branch.prototype);
    for (const name of ["own", "free"]) {
      copy[name] = this[name] && { cache: this[name].cache.copy(), ids: [id] };
    }
    return copy;
  }
}

/** Logits of the next token of each branch: the model's `own`, and those `guided` by the class. */
function nextLogits(model, branches, guidance) {
  const logits = model.forward(branches.flatMap(({ own, free }) => (free ? [own, free] : [own])));
  return branches.map(({ free }) => {
    const own = logits.shift();
    return { own, guided: free ? guidedLogits(own, logits.shift(), guidance) : own };
  });
}

/** `task` without its prompt for guidance where the guidance is 1: the model itself. */
function guidedTask(task, settings) {
  return settings.guidance === 1 ? { ...task, free: null } : task;
}

/**
 * Continue a prompt; yields {id, expected, after} for each new token.
 *
 * `task` is {prompt, free, allowed, stop, steps}: ids; the same without the class, or null; the ids
 * that may be chosen, or null for all; the id that ends it; how many at most. `expected` are the
 * model's own probabilities, `after` those that were sampled from. `row` is the number of this
 * sequence among several of one seed.
 */
export function* generate(model, task, settings, row = 0) {
  const branch = new Branch(model, guidedTask(task, settings), task.steps);
  const random = randomNumbers(settings.seed, row);
  for (let step = 0; step < task.steps; step++) {
    const [{ own, guided }] = nextLogits(model, [branch], settings.guidance);
    const after = strategyProbabilities(onlyAllowed(guided, task.allowed), settings);
    const id = chooseToken(after, random());
    yield { id, expected: softmax(own.slice()), after };
    if (id === task.stop) return;
    branch.append(id);
  }
}

/**
 * Beam search: the most probable continuation among `num_beams` kept at each step.
 *
 * Yields after each step; returns the ids. B. Lowerre, The HARPY Speech Recognition System, 1976.
 * Sequences of different lengths are compared by their mean log probability per token.
 */
export function* beamSearch(model, task, settings) {
  const { steps, stop, allowed } = task;
  const width = settings.num_beams;
  let beams = [{ score: 0, ids: [], branch: new Branch(model, guidedTask(task, settings), steps) }];
  let finished = [];
  const best = (list) => list.reduce((one, other) => (other.mean > one.mean ? other : one));
  for (let step = 1; step <= steps; step++) {
    const logits = nextLogits(
      model,
      beams.map((beam) => beam.branch),
      settings.guidance,
    );
    // Each beam may end in one way only, so twice the width leaves enough that go on.
    const likely = mostLikely(beams, logits, allowed, 2 * width);
    const ended = likely.slice(0, width).filter(({ id }) => id === stop);
    finished.push(...ended.map(({ score, ids }) => ({ mean: score / step, ids })));
    finished = finished.sort((a, b) => b.mean - a.mean).slice(0, width);
    const grown = likely.filter(({ id }) => id !== stop).slice(0, width);
    const settled = finished.length === width && finished[width - 1].mean >= grown[0].score / step;
    if (settled) return best(finished).ids;
    if (step === steps) {
      finished.push(...grown.map(({ score, ids }) => ({ mean: score / step, ids })));
      return best(finished).ids;
    }
    beams = grown.map((one) => ({ ...one, branch: one.beam.branch.grow(one.id) }));
    yield step;
  }
  return [];
}

/** The `n` most likely ways to make one of `beams` a token longer. */
function mostLikely(beams, logits, allowed, n) {
  const ways = beams.flatMap((beam, i) => {
    const logP = logSoftmax(onlyAllowed(logits[i].guided, allowed));
    return ranked(logP)
      .slice(0, n)
      .filter((id) => logP[id] > -Infinity)
      .map((id) => ({ beam, id, score: beam.score + logP[id], ids: [...beam.ids, id] }));
  });
  return ways.sort((a, b) => b.score - a.score).slice(0, n);
}

/**
 * What was expected at each of `ids` after the prompt of `task`: a list like that of `generate`.
 *
 * Beam search samples from nothing: `after` is then the model's own probability among what is
 * allowed.
 */
export function trace(model, task, ids, settings) {
  const { free } = guidedTask(task, settings);
  const own = allLogits(model, task.prompt, ids);
  const without = free && allLogits(model, free, ids);
  const strategy = settings.strategy === "beam" ? PLAIN : settings;
  return ids.map((id, i) => {
    const guided = without ? guidedLogits(own[i], without[i], settings.guidance) : own[i];
    const after = strategyProbabilities(onlyAllowed(guided, task.allowed), strategy);
    return { id, expected: softmax(own[i].slice()), after };
  });
}

/** The logits of each of `ids`, from the prompt and those before it. */
function allLogits(model, prompt, ids) {
  const read = [...prompt, ...ids.slice(0, -1)];
  const cache = model.newCache(read.length);
  return model.forward([{ cache, ids: read }], true).slice(prompt.length - 1);
}
