import assert from "node:assert/strict";
import { test } from "node:test";
import { added, renewed } from "../../service/http/page/plan_rows.js";

const rows = (names, next = null) => ({ plans: names.split("").map((each) => ({ plan_id: each })), next });
const shown = ({ plans, next }) => [plans.map((each) => each.plan_id).join(""), next];

test("rows beyond those that are read anew stay", () => {
  assert.deepEqual(shown(renewed(rows("abcdef", "f"), rows("abc", "c"))), ["abcdef", "f"]);
  assert.deepEqual(shown(renewed(rows("abcdef", "f"), rows("xab", "b"))), ["xabcdef", "f"]);
});

test("a row that fits no longer leaves, and none is shown twice", () => {
  assert.deepEqual(shown(renewed(rows("abcdef", "f"), rows("acd", "d"))), ["acdef", "f"]);
  assert.deepEqual(shown(renewed(rows("abcdef", "f"), rows("fab", "b"))), ["fabcde", "f"]);
});

test("what is read to its end is all there is", () => {
  assert.deepEqual(shown(renewed(rows("abcdef", "f"), rows("ac"))), ["ac", null]);
  assert.deepEqual(shown(renewed(rows("abc", "c"), rows("uvw", "w"))), ["uvw", "w"]);
});

test("a further page is put behind", () => {
  assert.deepEqual(shown(added(rows("abc", "c"), rows("cde", "e"))), ["abcde", "e"]);
});
