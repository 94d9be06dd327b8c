// The page's side of worker.js: a task is asked for, and its answer is awaited.

export class Client {
  /** `source` is the text of the worker. It becomes a blob, because a file from the disk may not
   * load another one. */
  constructor(source) {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    this.worker = new Worker(url);
    URL.revokeObjectURL(url);
    this.waiting = new Map(); // number of a task -> who waits for it
    this.last = 0;
    this.worker.onmessage = ({ data }) => this.hear(data);
    this.worker.onerror = (event) => {
      for (const { reject } of this.waiting.values()) reject(new Error(event.message));
    };
  }

  /**
   * The answer to a task of worker.js; undefined when a newer task of the same channel ended it.
   * `onStep` gets each step of a long task.
   */
  ask(task, details = {}, { channel = task, onStep = () => {} } = {}) {
    const number = ++this.last;
    this.worker.postMessage({ number, task, channel, details });
    return new Promise((resolve, reject) => {
      this.waiting.set(number, { resolve, reject, onStep });
    });
  }

  hear({ number, step, answer, error }) {
    const { resolve, reject, onStep } = this.waiting.get(number);
    if (step !== undefined) return onStep(step);
    this.waiting.delete(number);
    return error === undefined ? resolve(answer) : reject(new Error(error));
  }
}
