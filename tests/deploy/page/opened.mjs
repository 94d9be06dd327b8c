// What the tests share: an exported page read as a browser would, and what torch answers.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { Player } from "../../../seqlm/deploy/page/player.js";
import { decodeBase64 } from "../../../seqlm/deploy/page/weights.js";

const folder = process.env.SEQLM_PAGES;

export const torch = JSON.parse(readFileSync(`${folder}/torch.json`, "utf-8"));

/** The player of the page in one precision. */
export function open(precision) {
  const text = readFileSync(`${folder}/${precision}.html`, "utf-8");
  const part = (id) => new RegExp(`id="${id}">([^]*?)</script>`).exec(text)[1];
  return new Player(JSON.parse(part("data")), decodeBase64(part("weights")));
}

/** Fails unless all numbers of two equally long lists lie within `tolerance` of each other. */
export function near(found, wanted, tolerance) {
  assert.equal(found.length, wanted.length);
  wanted.forEach((value, i) => {
    const message = `number ${i}: ${found[i]} is not within ${tolerance} of ${value}`;
    assert.ok(Math.abs(found[i] - value) <= tolerance, message);
  });
}
