import assert from "node:assert/strict";
import { test } from "node:test";
import { parseExact, textOf } from "../../service/http/page/exact_json.js";

test("every number keeps its spelling", () => {
  const text = '{"a":[1.0e5,12345678901234567890,-0,0.10],"b":{"c":null,"d":[true,false,[],{}]}}';
  assert.equal(textOf(parseExact(text)), text);
});

test("it agrees with JSON.parse on everything else", () => {
  for (const value of [null, "", "\u2028\"\\\n", [[], [{}]], { "": { x: ["y"] } }]) {
    const text = JSON.stringify(value);
    assert.equal(textOf(parseExact(` ${text} `)), text);
  }
});

test("depth does not exhaust the stack", () => {
  const depth = 200_000;
  parseExact("[".repeat(depth) + "]".repeat(depth));
});

test("what is not JSON is refused with its place", () => {
  for (const text of ["", "[1,]", "{\"a\" 1}", "[1 2]", "{,}", "01x", "nul", "[1]]"]) {
    assert.throws(() => parseExact(text), SyntaxError, text);
  }
  assert.throws(() => parseExact("[1,]"), /character 3/);
});
