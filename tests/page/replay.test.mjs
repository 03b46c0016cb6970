import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.document = /** @type {any} */ ({ baseURI: "http://holdfast/" });
const { replay } = await import("../../service/http/page/replay.js");
const { watchGaps } = await import("../../service/http/page/gaps.js");

const event = (sequence) => `id: ${sequence}\nevent: task.progress\ndata: {"sequence":${sequence}}\n\n`;
const CAUGHT_UP = 'id: 9\nevent: caught_up\ndata: {"sequence":9}\n\n';

/** Answers each request with the next of these; keeps what was asked. */
function served(...answers) {
  const asked = [];
  globalThis.fetch = async (url) => {
    asked.push(new URL(url).searchParams.get("after"));
    return answers.shift();
  };
  return asked;
}

test("a reading that is cut off goes on where it stopped, and half an event is none", async () => {
  const asked = served(
    new Response(`${event(3)}id: 4\nevent: task.pro`),
    new Response("", { status: 503 }),
    new Response(event(4) + CAUGHT_UP),
  );
  const seen = [];
  await replay({ plan: "p" }, (part) => seen.push(...part), new AbortController().signal);
  assert.deepEqual(seen.map((each) => each.sequence), [3, 4]);
  assert.deepEqual(asked, ["0", "3", "3"]);
});

test("a gap in a reading is told", async () => {
  const gap = { requested: 0, first: 4, head: 9, reason: "expired" };
  served(new Response(`event: gap\ndata: ${JSON.stringify(gap)}\n\n${event(4)}${CAUGHT_UP}`));
  const gaps = [];
  const forget = watchGaps((found) => gaps.push(found));
  await replay({ plan: "p" }, () => undefined, new AbortController().signal);
  forget();
  assert.deepEqual(gaps, [gap]);
});

test("what is refused for good is not asked again", async () => {
  const asked = served(new Response("", { status: 403 }));
  await assert.rejects(replay({ plan: "p" }, () => undefined, new AbortController().signal));
  assert.equal(asked.length, 1);
});
