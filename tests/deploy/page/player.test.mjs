// Sampling, drawing, reading: token by token what Python does.

import assert from "node:assert/strict";
import { test } from "node:test";

import { randomNumbers } from "../../../seqlm/deploy/page/random.js";
import {
  chooseToken,
  guidedLogits,
  onlyAllowed,
  strategyProbabilities,
} from "../../../seqlm/deploy/page/sampling.js";
import { trace } from "../../../seqlm/deploy/page/generate.js";
import { near, open, torch } from "./opened.mjs";

const player = open("fp32");

/** The codes that `player.draw` draws after those it began with. */
function drawn(request) {
  const steps = [...player.draw(request)].filter((step) => step !== null);
  return steps.map(({ id }) => player.allowed.indexOf(id));
}

test("random numbers are numpy's", () => {
  const rows = [
    [42, 0],
    [7, 3],
  ].map((seeds) => {
    const next = randomNumbers(...seeds);
    return Array.from({ length: 5 }, next);
  });
  assert.deepEqual(rows, torch.random);
});

torch.strategies.forEach(({ settings, ...row }) => {
  test(`probabilities with ${JSON.stringify(settings)}`, () => {
    const guided = guidedLogits(row.logits, row.free, settings.guidance);
    const allowed = row.logits.map((_, id) => id).filter((id) => id !== row.barred);
    near(strategyProbabilities(onlyAllowed(guided, allowed), settings), row.after, 1e-9);
  });
});

test("a token is chosen by where its number lies, and an impossible one never", () => {
  const probabilities = [0, 0.25, 0, 0.75, 0];
  const chosen = [0, 0.2499, 0.25, 0.9999, 1].map((u) => chooseToken(probabilities, u));
  assert.deepEqual(chosen, [1, 1, 3, 3, 3]);
});

torch.drawings.forEach(({ settings, labels, start, codes }) => {
  const { strategy, guidance } = settings;
  test(`${strategy}, guidance ${guidance}, after ${start.length} codes: torch's pictures`, () => {
    labels.forEach((label, i) => {
      assert.deepEqual([...start, ...drawn({ label, codes: start, settings })], codes[i]);
    });
  });
});

test("each step tells the model's probabilities and those that were sampled from", () => {
  const { settings } = torch.drawings[2];
  const task = {
    prompt: player.vocabulary.drawingPrompt(3),
    free: player.vocabulary.drawingPrompt(null),
    allowed: player.allowed,
  };
  const ids = player.vocabulary.codeIds(torch.codes[0]);
  trace(player.model, task, ids, { ...settings, seed: 42 }).forEach((step, i) => {
    near(step.expected, torch.expected[i], 1e-5);
    near(step.after, torch.after[i], 1e-4);
  });
});

test("while it draws, it tells what trace tells afterwards", () => {
  const { settings } = torch.drawings[2];
  const steps = [...player.draw({ label: 3, settings })];
  const free = player.vocabulary.drawingPrompt(null);
  const task = { prompt: player.vocabulary.drawingPrompt(3), free, allowed: player.allowed };
  const ids = steps.map(({ id }) => id);
  trace(player.model, task, ids, settings).forEach(({ expected, after }, i) => {
    const { id, surprisal, candidates } = steps[i];
    near([surprisal], [-Math.log(expected[id])], 1e-9);
    assert.ok(candidates.some((one) => one.id === id));
    near(
      candidates.map((one) => one.after),
      candidates.map((one) => after[one.id]),
      1e-9,
    );
  });
});

test("reading: codes, classes and surprisal", () => {
  torch.images.forEach((image, i) => {
    const { codes, classes, steps } = player.read({ image });
    assert.deepEqual(codes, torch.codes[i]);
    near(classes, torch.classes[i], 1e-5);
    near(player.book.decode(codes), torch.decoded[i], 1e-6);
    if (i === 0)
      near(
        steps.map((step) => step.surprisal),
        torch.surprisal,
        1e-4,
      );
  });
});

test("text: the sentence that Python writes, up to <EOS> or the last position", () => {
  const { prompt, top_k, seed } = torch.text;
  const settings = { strategy: "sample", temperature: 1, top_k, top_p: 1, guidance: 1, seed };
  const ids = [...player.write({ tokens: prompt, settings })].map((step) => step.id);
  assert.deepEqual([...prompt, ...ids.map((id) => player.vocabulary.names[id])], torch.sentence);
});

test("the next tokens, the most likely first", () => {
  const rows = player.next({ tokens: torch.text.prompt });
  assert.equal(rows.length, 10);
  assert.ok(rows.every((row, i) => i === 0 || row.probability <= rows[i - 1].probability));
  assert.throws(
    () => player.next({ tokens: ["<IMG>", "<NEW>"] }),
    /<NEW> is not in the vocabulary/,
  );
});
