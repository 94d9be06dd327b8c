// The forward pass: logits in every precision, layout and length; weights; attention.

import assert from "node:assert/strict";
import { test } from "node:test";

import { layerNorm, linear } from "../../../seqlm/deploy/page/gpt2.js";
import { decodeWeights, halfToNumber } from "../../../seqlm/deploy/page/weights.js";
import { near, open, torch } from "./opened.mjs";

const TOLERANCES = { fp32: 1e-4, fp16: 2e-2, int8: 2e-2 };
const players = Object.fromEntries(Object.keys(TOLERANCES).map((name) => [name, open(name)]));

/** Logits after every token of `ids`, read in pieces of these lengths in turn. */
function logitsInPieces(model, ids, lengths) {
  const cache = model.newCache(ids.length);
  const logits = [];
  for (let at = 0, piece = 0; at < ids.length; piece++) {
    const part = ids.slice(at, at + lengths[piece % lengths.length]);
    logits.push(...model.forward([{ cache, ids: part }], true));
    at += part.length;
  }
  return logits;
}

for (const [precision, tolerance] of Object.entries(TOLERANCES)) {
  for (const [layout, ids] of Object.entries(torch.layouts)) {
    test(`${precision}: logits of layout ${layout} are torch's, at once and piece by piece`, () => {
      const { model } = players[precision];
      for (const lengths of [[ids.length], [1], [1, 3]]) {
        const logits = logitsInPieces(model, ids, lengths);
        logits.forEach((row, i) => near(row, torch.logits[layout][i], tolerance));
      }
    });
  }
}

test("a row of any length, on its own, has torch's logits", () => {
  const ids = torch.layouts.whole;
  for (let length = 1; length <= ids.length; length++) {
    near(players.fp32.logits(ids.slice(0, length)), torch.logits.whole[length - 1], 1e-4);
  }
});

test("sequences of different lengths side by side do not touch each other", () => {
  const { model } = players.fp32;
  const { read, draw, whole } = torch.layouts;
  const batch = [read, draw, whole].map((ids) => ({ cache: model.newCache(ids.length), ids }));
  const logits = model.forward(batch);
  ["read", "draw", "whole"].forEach((name, i) => near(logits[i], torch.logits[name].at(-1), 1e-4));
});

test("a cache that was copied goes on by itself", () => {
  const { model } = players.fp32;
  const ids = torch.layouts.whole;
  const cache = model.newCache(ids.length);
  model.forward([{ cache, ids: ids.slice(0, 10) }]);
  const copy = cache.copy();
  model.forward([{ cache: copy, ids: [2, 3, 4] }]);
  near(model.forward([{ cache, ids: [ids[10]] }])[0], torch.logits.whole[10], 1e-4);
});

test("more tokens than positions are refused", () => {
  const { model } = players.fp32;
  const cache = model.newCache(4);
  assert.throws(() => model.forward([{ cache, ids: [1, 2, 3, 4, 5] }]), /too long/);
});

test("the page checks itself, and notices weights that are not those it was made with", () => {
  for (const [precision, player] of Object.entries(players)) {
    assert.ok(player.check() < 1e-4, `${precision}: ${player.check()}`);
  }
  const broken = open("fp32");
  broken.model.weights["h.1.mlp.c_fc.weight"][0] += 3;
  assert.ok(broken.check() > 1e-3);
});

test("attention weights of every head are torch's", () => {
  const player = players.fp32;
  player.look({ ids: player.vocabulary.readingPrompt(torch.codes[0]) });
  torch.attention.forEach((heads, layer) =>
    heads.forEach((rows, head) => near(player.attention({ layer, head }), rows.flat(), 1e-5)),
  );
});

test("halves are numbers as the standard has them", () => {
  const known = { 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0001: 2 ** -24, 0x3555: 0.333251953125 };
  for (const [bits, value] of Object.entries(known))
    assert.equal(halfToNumber(Number(bits)), value);
  assert.equal(halfToNumber(0xfc00), -Infinity);
});

test("int8 rows have a scale each, and a file that was cut is noticed", () => {
  const bytes = new Uint8Array(12);
  new Float32Array(bytes.buffer, 0, 2).set([0.5, 2]);
  new Int8Array(bytes.buffer, 8).set([1, -127, 3, 0]);
  const tensors = [["w", [2, 2], "int8"]];
  near(decodeWeights(bytes, tensors).w, [0.5, -63.5, 6, 0], 0);
  assert.throws(() => decodeWeights(new Uint8Array(13), tensors), /damaged/);
});

test("linear: odd numbers of rows and outputs", () => {
  const weight = Float32Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]); // (5, 2)
  const x = Float64Array.from([1, 0, 0, 1, 1, 1]); // (3, 2)
  const wanted = [1, 3, 5, 7, 9, 2, 4, 6, 8, 10, 3, 7, 11, 15, 19];
  near(linear(x, 3, weight, null, 2, 5), wanted, 0);
  const shifted = linear(x, 3, weight, [1, 1, 1, 1, 1], 2, 5);
  near(
    shifted,
    wanted.map((value) => value + 1),
    0,
  );
});

test("layer norm: mean 0, variance 1", () => {
  near(layerNorm([1, 3], 1, Float32Array.of(1, 2), Float32Array.of(0, 1), 0), [-1, 3], 1e-12);
});
