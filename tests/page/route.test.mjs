import assert from "node:assert/strict";
import { test } from "node:test";
import { hashOf, parseRoute } from "../../service/http/page/route.js";

test("what was written is read again", () => {
  for (const [path, query] of [
    [["plans"], { status: "FAILED", text: "a&b=c" }],
    [["plans", "a/b c"], { task: "t" }],
    [["audit"], {}],
  ]) {
    assert.deepEqual(parseRoute(hashOf(path, query)), { path, query });
  }
});

test("empty values are left out", () => {
  assert.equal(hashOf(["plans"], { status: "", task: null, at: 0 }), "#/plans?at=0");
});

test("an address that is no address is read as it is", () => {
  assert.deepEqual(parseRoute("#/plans/%E0%A4%A").path, ["plans", "%E0%A4%A"]);
  assert.deepEqual(parseRoute("").path, []);
});
