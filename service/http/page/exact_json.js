// JSON text read without losing a digit: numbers keep their spelling. Pure.
//
// JSON.parse turns 12345678901234567890 into another number; what a worker wrote must be shown as
// it is. The walk is a loop with a stack of its own, so that depth cannot exhaust the engine's.

/** A number as it was written. */
export class ExactNumber {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
  }
}

const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const STRING = /"(?:[^"\\]|\\.)*"/ys;
const SPACE = /[ \t\n\r]*/y;

/**
 * Read one JSON text: null, booleans, strings, ExactNumbers, arrays and Maps.
 * Throws SyntaxError with the place of the mistake.
 * @param {string} text
 * @returns {any}
 */
export function parseExact(text) {
  let at = 0;
  /** @type {{into: any[] | Map<string, any>, key: string}[]} */
  const open = [];
  /** @type {any} */
  let done;

  const fail = () => {
    throw new SyntaxError(`not JSON at character ${at}: ${text.slice(at, at + 20)}`);
  };
  const skip = () => {
    SPACE.lastIndex = at;
    SPACE.exec(text);
    at = SPACE.lastIndex;
  };
  const take = (/** @type {RegExp} */ pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (!found) return fail();
    at = pattern.lastIndex;
    return found[0];
  };
  const readKey = () => {
    skip();
    const key = JSON.parse(/** @type {string} */ (take(STRING)));
    skip();
    if (text[at] !== ":") fail();
    at += 1;
    return key;
  };
  /** A scalar, or an opened container. */
  const begin = () => {
    skip();
    const sign = text[at];
    if (sign === "{" || sign === "[") {
      at += 1;
      const into = sign === "{" ? new Map() : [];
      skip();
      if (text[at] === (sign === "{" ? "}" : "]")) {
        at += 1;
        return { value: into };
      }
      open.push({ into, key: sign === "{" ? readKey() : "" });
      return null;
    }
    if (sign === '"') return { value: JSON.parse(/** @type {string} */ (take(STRING))) };
    for (const [word, value] of /** @type {const} */ ([["true", true], ["false", false], ["null", null]])) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return { value };
      }
    }
    return { value: new ExactNumber(/** @type {string} */ (take(NUMBER))) };
  };

  for (;;) {
    let begun = begin();
    while (begun) {
      const top = open.at(-1);
      if (!top) {
        done = begun.value;
        skip();
        if (at < text.length) fail();
        return done;
      }
      if (Array.isArray(top.into)) top.into.push(begun.value);
      else top.into.set(top.key, begun.value);
      skip();
      const sign = text[at];
      at += 1;
      if (sign === ",") {
        if (!Array.isArray(top.into)) top.key = readKey();
        break;
      }
      if (sign !== (Array.isArray(top.into) ? "]" : "}")) {
        at -= 1;
        fail();
      }
      open.pop();
      begun = { value: top.into };
    }
  }
}

/**
 * The value as JSON text again, in one line.
 * @param {any} value
 * @returns {string}
 */
export function textOf(value) {
  if (value instanceof ExactNumber) return value.text;
  if (Array.isArray(value)) return `[${value.map(textOf).join(",")}]`;
  if (value instanceof Map) {
    return `{${[...value].map(([key, each]) => `${JSON.stringify(key)}:${textOf(each)}`).join(",")}}`;
  }
  return JSON.stringify(value);
}
