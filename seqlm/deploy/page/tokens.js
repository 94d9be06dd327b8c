// The vocabulary: names and ids of tokens, and the layouts in which they stand.
// The same rules as seqlm/data/tokens.py.

const STRUCTURAL = ["<PAD>", "<UNK>", "<IMG>", "</IMG>", "<CLS>", "<EOS>"];

/** The class that a token names, or null: <CLS_3> is 3. */
export function classOf(token) {
  const match = /^<CLS_(\d+)>$/.exec(token);
  return match ? Number(match[1]) : null;
}

/** The name of entry `code` of the code book: 17 is <Z_017>. */
export const codeToken = (code) => `<Z_${String(code).padStart(3, "0")}>`;

export class Vocabulary {
  /** `names` are the tokens in the order of their ids. */
  constructor(names) {
    this.names = names;
    this.byName = new Map(names.map((name, id) => [name, id]));
    const classes = names.filter((name) => classOf(name) !== null);
    classes.sort((a, b) => classOf(a) - classOf(b));
    this.classIds = classes.map((name) => this.byName.get(name));
  }

  /** The ids of tokens. Throws an error that names the first unknown one. */
  ids(tokens) {
    return tokens.map((token) => {
      const id = this.byName.get(token);
      if (id === undefined) throw new Error(`${token} is not in the vocabulary of this model`);
      return id;
    });
  }

  codeIds(codes) {
    return this.ids(codes.map(codeToken));
  }

  /** The prompt of a drawing, of class `label`; null lets the model choose. */
  drawingPrompt(label) {
    return this.ids(["<CLS>", label === null ? "<CLS>" : `<CLS_${label}>`, "<IMG>"]);
  }

  /** What asks for the class of a picture: its codes, and <CLS> after them. */
  readingPrompt(codes) {
    return [...this.ids(["<IMG>"]), ...this.codeIds(codes), ...this.ids(["</IMG>", "<CLS>"])];
  }

  /** A drawing prompt without its class, for guidance; null where `ids` names none. */
  withholdClass(ids) {
    const hidden = this.byName.get("<CLS>");
    const named = ids.length > 1 && ids[0] === hidden && classOf(this.names[ids[1]]) !== null;
    return named ? [hidden, hidden, ...ids.slice(2)] : null;
  }

  /** Tokens for a start of one's own: what is no structural token comes first. */
  suggestions() {
    const rest = this.names.filter((name) => !STRUCTURAL.includes(name));
    return [...STRUCTURAL.filter((name) => this.byName.has(name)), ...rest];
  }
}
