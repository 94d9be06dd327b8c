// What a widget of seqlm/static/ wants of its model, without Python behind it: named values that
// can be observed. In the playground anywidget provides the same.

export class State {
  constructor(values) {
    this.values = { ...values };
    this.observers = {};
  }

  get(name) {
    return this.values[name];
  }

  /** Set a value, and call who observes it where it is another one. */
  set(name, value) {
    if (this.values[name] === value) return;
    this.values[name] = value;
    for (const event of [`change:${name}`, "change"]) {
      for (const call of [...(this.observers[event] ?? [])]) call();
    }
  }

  on(event, call) {
    (this.observers[event] ??= []).push(call);
  }

  off(event, call) {
    this.observers[event] = (this.observers[event] ?? []).filter((each) => each !== call);
  }

  save_changes() {} // nobody else has to be told
}

/** Put a widget into `element`; its values can then be set and observed. */
export function mount(widget, element, values) {
  const state = new State(values);
  widget.render({ model: state, el: element });
  return state;
}
