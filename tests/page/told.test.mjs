import assert from "node:assert/strict";
import { test } from "node:test";
import { duration, nextPause, relative, short } from "../../service/http/page/clock.js";
import { progressOf } from "../../service/http/page/statuses.js";

test("times are told as people tell them", () => {
  const now = Date.parse("2026-01-01T00:10:00Z");
  const told = ["2026-01-01T00:09:48Z", "2026-01-01T00:07:00Z", "2026-01-01T00:11:00Z", "2026-01-01T00:10:00Z"];
  assert.deepEqual(told.map((at) => relative(at, now)), ["12 s ago", "3 min ago", "in 1 min", "now"]);
  assert.equal(relative(null, now), "–");
});

test("durations have the precision of their size", () => {
  assert.deepEqual([0.0123, 1.234, 75, 7260].map(duration), ["12.3 ms", "1.23 s", "1 min 15 s", "2 h 1 min"]);
  assert.deepEqual([950, 12_345, 4_500_000].map(short), ["950", "12.3k", "4.5M"]);
});

test("progress counts what has ended", () => {
  assert.deepEqual(progressOf({ COMPLETED: 2, FAILED: 1, RUNNING: 3, PENDING: 4 }), { ended: 3, total: 10 });
});

test("what does not change is looked at ever more seldom, and often again after news", () => {
  const pauses = [5_000];
  for (let n = 0; n < 5; n += 1) pauses.push(nextPause(pauses[n], 5_000, false));
  assert.deepEqual(pauses, [5_000, 10_000, 20_000, 30_000, 30_000, 30_000]);
  assert.equal(nextPause(30_000, 5_000, true), 5_000);
});
