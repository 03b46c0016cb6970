import assert from "node:assert/strict";
import { test } from "node:test";
import { textOf } from "../../service/http/page/exact_json.js";
import { eventOf, exactData } from "../../service/http/page/log_event.js";

globalThis.document = /** @type {any} */ ({ baseURI: "http://holdfast/" });
const { asOf } = await import("../../service/http/page/timeline.js");

const DATA = '{"owner":"w","output":{"n":12345678901234567890,"half":0.10}}';

test("an event keeps every digit of its numbers", () => {
  const event = eventOf(`{"sequence":7,"type":"task.completed","data":${DATA}}`);
  assert.equal(event.sequence, 7);
  assert.equal(textOf(exactData(event)), DATA);
});

test("attempts are shown as they were at a moment of the past", () => {
  const attempt = (task_id, n, started_at, finished_at, status) =>
    ({ task_id, attempt: n, status, started_at, finished_at, error_type: null });
  const now = [
    attempt("a", 1, "2026-01-01T00:00:01Z", "2026-01-01T00:00:05Z", "lost"),
    attempt("a", 2, "2026-01-01T00:00:06Z", "2026-01-01T00:00:08Z", "completed"),
    attempt("b", 1, "2026-01-01T00:00:04Z", "2026-01-01T00:00:09Z", "failed"),
    attempt("c", 1, "2026-01-01T00:00:07Z", "2026-01-01T00:00:09Z", "completed"),
  ];
  const then = [
    { task_id: "a", status: "RUNNING", attempt: 1 },
    { task_id: "b", status: "RUNNING", attempt: 1 },
    { task_id: "c", status: "READY", attempt: 0 },
  ];
  const seen = asOf(now, then, Date.parse("2026-01-01T00:00:03Z"));
  assert.deepEqual(
    seen.map((each) => [each.task_id, each.attempt, each.status, each.started_at, each.finished_at]),
    [["a", 1, "running", "2026-01-01T00:00:01Z", null], ["b", 1, "running", null, null]],
  );
  const ended = [{ task_id: "b", status: "FAILED", attempt: 1 }];
  assert.deepEqual(asOf(now, ended, Date.parse("2026-01-01T00:00:09Z")), [now[2]]);
});
