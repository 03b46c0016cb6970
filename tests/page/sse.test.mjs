import assert from "node:assert/strict";
import { test } from "node:test";
import { StreamParser } from "../../service/http/page/sse.js";

const STREAM =
  ": ping\n\nid: 7\nevent: task.progress\ndata: {\"text\":\"a\u2028id: 1\"}\n\r\ndata: one\r\ndata: two\r\n\r\nevent: nothing\n\n";

test("a line never ends at U+2028", () => {
  const [first, second, ...more] = new StreamParser().feed(STREAM);
  assert.deepEqual(first, { id: "7", event: "task.progress", data: '{"text":"a\u2028id: 1"}' });
  assert.deepEqual(second, { id: "7", event: "message", data: "one\ntwo" });
  assert.deepEqual(more, []);
});

test("it makes no difference where the stream is cut", () => {
  const whole = new StreamParser().feed(STREAM);
  for (let cut = 1; cut < STREAM.length; cut += 1) {
    const parser = new StreamParser();
    const found = [...parser.feed(STREAM.slice(0, cut)), ...parser.feed(STREAM.slice(cut))];
    assert.deepEqual(found, whole, `cut at ${cut}`);
  }
});
