import assert from "node:assert/strict";
import { test } from "node:test";
import { gapTold, tellGap, watchGaps } from "../../service/http/page/gaps.js";

test("a gap says which events are missing and why", () => {
  const gap = { requested: 8, first: 20, head: 60 };
  assert.equal(gapTold({ ...gap, reason: "expired" }), "events 9 to 19 have left the log before they could be sent");
  assert.match(gapTold({ ...gap, requested: 90, reason: "ahead_of_log" }), /ends at 60, before event 90/);
  assert.match(gapTold({ ...gap, reason: "unreadable" }), /cannot be understood/);
  assert.match(gapTold({ ...gap, reason: "a reason of a later version" }), /before 20 .*a reason of a later version/);
});

test("each gap is told to those who watch, until they no longer do", () => {
  const seen = [];
  const gap = { requested: 1, first: 3, head: 4, reason: "expired" };
  const forget = watchGaps((found) => seen.push(found));
  tellGap(gap);
  forget();
  tellGap(gap);
  assert.deepEqual(seen, [gap]);
});
