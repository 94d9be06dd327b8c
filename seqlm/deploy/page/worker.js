// The worker: it computes, so that the page stays free to listen. One message is one task.
//
// In comes {number, task, channel, details}; out go {number, step} for each step of a long task, and
// at the end {number, answer} or {number, error}. A newer message of a channel ends the older one,
// whose answer is then undefined.

import { Player } from "./player.js";
import { decodeBase64 } from "./weights.js";

let player = null;
const newest = {}; // channel -> the number of its newest message

/** Let the messages that have come in meanwhile be heard. */
function pause() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

function open({ data, weights }) {
  player = new Player(data, decodeBase64(weights));
  return { difference: player.check(), centers: player.book?.centers };
}

async function work({ number, task, channel, details }) {
  newest[channel] = number;
  await pause(); // a newer one may be waiting
  if (newest[channel] !== number || task === "stop") return undefined;
  if (task === "open") return open(details);
  if (!["draw", "write"].includes(task)) return player[task](details);
  for (const step of player[task](details)) {
    postMessage({ number, step });
    await pause();
    if (newest[channel] !== number) return undefined;
  }
  return true;
}

onmessage = async ({ data: message }) => {
  const { number } = message;
  try {
    postMessage({ number, answer: await work(message) });
  } catch (error) {
    postMessage({ number, error: error.message });
  }
};
