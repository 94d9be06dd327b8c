// numpy's default random numbers, so that a seed draws here what it draws in Python.
//
// M. E. O'Neill, PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for
// Random Number Generation, 2014 (PCG XSL RR 128/64), started from seeds as numpy's SeedSequence
// mixes them.

const POOL = 4;
const MULTIPLIER = (2549297995355413924n << 64n) | 4865540595714422341n;

const times = (a, b) => Math.imul(a, b) >>> 0;
const fold = (value) => (value ^ (value >>> 16)) >>> 0;

/** Eight words of 32 bits, well mixed, from whole numbers below 2^32. */
export function mixSeeds(seeds) {
  let constant = 0x43b0d7e5;
  const hash = (value) => {
    const mixed = value ^ constant;
    constant = times(constant, 0x931e8875);
    return fold(times(mixed, constant));
  };
  const mix = (a, b) => fold((times(a, 0xca01f9dd) - times(b, 0x4973f715)) >>> 0);
  const pool = Array.from({ length: POOL }, (_, i) => hash(seeds[i] ?? 0));
  for (let from = 0; from < POOL; from++) {
    for (let to = 0; to < POOL; to++) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  }
  for (const seed of seeds.slice(POOL)) {
    for (let to = 0; to < POOL; to++) pool[to] = mix(pool[to], hash(seed));
  }
  let out = 0x8b51f9dd;
  return Array.from({ length: 8 }, (_, i) => {
    const value = pool[i % POOL] ^ out;
    out = times(out, 0x58f38ded);
    return fold(times(value, out));
  });
}

/** A function that gives the next random number, 0 up to but without 1, at each call. */
export function randomNumbers(...seeds) {
  const words = mixSeeds(seeds).map(BigInt);
  // Pairs of words, the lower first, are numbers of 64 bits; pairs of those, the higher first, 128.
  const pair = (i) => words[i] | (words[i + 1] << 32n);
  const long = (i) => (pair(i) << 64n) | pair(i + 2);
  const low = (bits, value) => BigInt.asUintN(bits, value);
  const increment = low(128, (long(4) << 1n) | 1n);
  const step = (state) => low(128, state * MULTIPLIER + increment);
  let state = step(low(128, increment + long(0)));
  return () => {
    state = step(state);
    const mixed = low(64, (state >> 64n) ^ state);
    const turn = state >> 122n;
    const turned = (mixed >> turn) | low(64, mixed << low(6, 64n - turn));
    return Number(turned >> 11n) / 2 ** 53;
  };
}
